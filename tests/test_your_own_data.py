"""docs/your-own-data.md: its commands, as they stand there, on data made here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_sigrec import cli
from recbole_sigrec.encode import images, text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-own-data.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the page is in the repository alone")

N_USERS, N_ITEMS, GROUPS = 60, 60, 4
COLOURS = [(220, 30, 30), (30, 200, 30), (30, 30, 220), (200, 200, 40)]
WORDS = ["red cotton shirt", "green garden hose", "blue steel kettle", "yellow paper lamp"]
WITHOUT_PICTURE, DAMAGED, WITHOUT_TEXT = 5, 6, 7


@pytest.fixture
def shop(monkeypatch):
    """The files with which the page begins, in the working directory; the encoders are small ones.

    Customers buy within a group of products that share a colour and words.
    """
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    names = [f"A{n:03}" for n in range(N_ITEMS)]
    Path("pictures").mkdir()
    lines = ["product,title,description"]
    for n, name in enumerate(names):
        colour = tuple(int(c + rng.integers(-20, 20)) for c in COLOURS[n % GROUPS])
        if n != WITHOUT_PICTURE:
            Image.new("RGB", (32, 32), colour).save(f"pictures/{name}.jpg")
        lines.append(f'{name},"{WORDS[n % GROUPS]}, {n}",' if n != WITHOUT_TEXT else f"{name},,")
    Path("pictures", f"{names[DAMAGED]}.jpg").write_bytes(b"no picture")
    Path("products.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["customer,product,time"]
    for user in range(N_USERS):
        own = rng.permutation(np.arange(user % GROUPS, N_ITEMS, GROUPS))[:7]
        lines += [f"c{user},{names[n]},{time}" for time, n in enumerate(own)]
    Path("purchases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    class Colours(torch.nn.Module):
        num_features = 3

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x.mean(dim=(2, 3))

    def to_tensor(image):
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)

    monkeypatch.setattr(images, "load_vision_model", lambda *_: (Colours(), to_tensor))
    monkeypatch.setattr(text, "_sentence_transformers", lambda required: None)


def commands() -> list[list[str]]:
    """The lines of the page's bash blocks, as arguments."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_commands_of_the_page(shop, capsys):
    pytest.importorskip("plotly")
    given = commands()
    assert [c[1] for c in given] == ["encode", "encode", "import", "inspect", "run"]
    shown = []
    for program, *arguments in given:
        assert program == "recbole-sigrec"
        assert cli.main(arguments) == 0, arguments
        shown.append(capsys.readouterr().out)
    assert shown[0] == f"text_feat.npy: {N_ITEMS} items, 1 missing (1 without a known word)\n"
    assert shown[1] == f"image_feat.npy: {N_ITEMS - 1} items, 1 missing (1 cannot be decoded)\n"
    figures = json.loads(Path("shop.json").read_text("utf-8"))
    assert (figures["users"], figures["items"]) == (N_USERS, N_ITEMS)
    assert figures["split"] == {"train": 5 * N_USERS, "valid": N_USERS, "test": N_USERS}
    assert figures["modalities"]["text"]["missing"] == 1
    assert figures["modalities"]["image"]["missing"] == 2
    for modality in figures["modalities"].values():
        assert modality["alignment_lift"] > 2
    assert "Plotly.newPlot(" in Path("shop.html").read_text("utf-8")
    result = json.loads(Path("result.json").read_text("utf-8"))
    assert result["config"]["missing_modality"] == "neighbor"
    assert result["test_result"]["recall@10"] > 0.3  # at random .19
