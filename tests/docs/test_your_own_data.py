"""docs/your-own-data.md: its commands, as they stand there, on data made here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers_shop import N_ITEMS, N_USERS, make_shop

from recbole_sigrec import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-own-data.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the page is in the repository alone")


@pytest.fixture
def shop(monkeypatch):
    make_shop(monkeypatch)


def commands() -> list[list[str]]:
    """The lines of the page's bash blocks, as arguments."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_commands_of_the_page(shop, capsys):
    pytest.importorskip("plotly")
    given = commands()
    assert [c[1] for c in given] == [
        "encode",
        "encode",
        "import",
        "inspect",
        "run",
        "encode",
        "encode",
    ]
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
    assert shown[5] == "new_text_feat.npy: 3 items, 1 missing (1 without a known word)\n"
    assert shown[6] == "new_image_feat.npy: 1 items, 0 missing\n"
    for modality in ("text", "image"):
        made_by = Path(f"{modality}_encoder.safetensors").read_bytes()
        assert Path(f"dataset/shop/{modality}_encoder.safetensors").read_bytes() == made_by
    old, new = (np.load(f"{name}text_feat.npy") for name in ("", "new_"))
    np.testing.assert_array_equal(new[:2], old[:2])
    old, new = (np.load(f"{name}image_feat.npy") for name in ("", "new_"))
    np.testing.assert_array_equal(new[0], old[0])
