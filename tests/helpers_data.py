"""Small data sets on disk, and the one way in which the tests run the command line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

N_USERS, N_ITEMS = 24, 20
SMALL = (
    *("--epochs=1", "--embedding_size=4", "--knn_k=3", "--collab_knn_k=3", "--topk=[5,20]"),
    *("--use_gpu=False", "--train_batch_size=64"),
)
"""Settings under which every model here trains within a fraction of a second."""


def interactions(n_users: int = N_USERS, n_items: int = N_ITEMS) -> pd.DataFrame:
    """MMRec's columns: each user has 4 training items, 1 for validation, 1 for testing."""
    rows = [
        (user, (user + 3 * n) % n_items, label)
        for user in range(n_users)
        for n, label in enumerate((0, 0, 0, 0, 1, 2))
    ]
    return pd.DataFrame(rows, columns=["userID", "itemID", "x_label"])


def features(n_rows: int = N_ITEMS, d: int = 6, seed: int = 0) -> np.ndarray:
    """A random matrix without a zero row."""
    return np.random.default_rng(seed).normal(size=(n_rows, d)).astype(np.float32)


def write_mmrec(root: Path, name: str = "toy", frame=None, modalities=None) -> Path:
    """A folder in MMRec's layout: ``<root>/<name>/<name>.inter`` and ``<modality>_feat.npy``."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    frame = interactions() if frame is None else frame
    frame.to_csv(folder / f"{name}.inter", sep="\t", index=False)
    for modality, array in (modalities or {"image": features(), "text": features(seed=1)}).items():
        np.save(folder / f"{modality}_feat.npy", array)
    return folder


def write_atomic(root: Path, name: str = "atomic", frame=None, items=None) -> Path:
    """A folder of RecBole atomic files; the tokens of the frame get a letter in front.

    Args:
        frame: ``userID`` and ``itemID``.
        items: the ``.item`` file's columns after ``item_id:token``: header → values, one per item.
    """
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    frame = interactions() if frame is None else frame
    typed = pd.DataFrame(
        {"user_id:token": "u" + frame["userID"].astype(str), "item_id:token": tokens(frame)}
    )
    typed.to_csv(folder / f"{name}.inter", sep="\t", index=False)
    if items:
        table = pd.DataFrame({"item_id:token": [f"i{n}" for n in range(N_ITEMS)], **items})
        table.to_csv(folder / f"{name}.item", sep="\t", index=False)
    return folder


def tokens(frame: pd.DataFrame) -> pd.Series:
    """The item tokens that ``write_atomic`` gives the items of a frame."""
    return "i" + frame["itemID"].astype(str)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder → the hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
