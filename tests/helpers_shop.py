"""The files of a small shop, as the pages about a user's own data begin with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_sigrec.encode import images, text

N_USERS, N_ITEMS, GROUPS = 60, 60, 4
COLOURS = [(220, 30, 30), (30, 200, 30), (30, 30, 220), (200, 200, 40)]
WORDS = ["red cotton shirt", "green garden hose", "blue steel kettle", "yellow paper lamp"]
WITHOUT_PICTURE, DAMAGED, WITHOUT_TEXT = 5, 6, 7


def make_shop(monkeypatch):
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
    new = [f"N1,{WORDS[0]},0", f'N2,,"{WORDS[1]}, 1"', "N3,unknown,"]
    Path("new.csv").write_text("\n".join([lines[0], *new]) + "\n", encoding="utf-8")
    Path("new_pictures").mkdir()
    Path("new_pictures", "N1.jpg").write_bytes(Path("pictures", f"{names[0]}.jpg").read_bytes())
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
