"""Small data sets on disk, and ways to run on them, for the tests of data and of bad input."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_sigrec import Config
from recbole_sigrec.cli import run_command
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.model.training_free import TrainingFree
from recbole_sigrec.model_names import MODELS

TRAINING_FREE = [name for name in MODELS if issubclass(resolve_model(name), TrainingFree)]
LEARNED = [name for name in MODELS if name not in TRAINING_FREE]
"""Our models that gradient descent trains."""

N_USERS, N_ITEMS = 24, 20
SMALL = {
    **{"epochs": 1, "embedding_size": 4, "knn_k": 3, "collab_knn_k": 3, "topk": [5, 20]},
    **{"train_batch_size": 64, "use_gpu": False, "gpu_id": "", "checkpoint_dir": "saved"},
}
"""Values with which a model here trains within a fraction of a second."""


def interactions(n_users: int = N_USERS, n_items: int = N_ITEMS) -> pd.DataFrame:
    """MMRec's columns: each user has 4 training items, 1 for validation, 1 for the test."""
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
    if modalities is None:
        modalities = {"image": features(), "text": features(seed=1)}
    for modality, array in modalities.items():
        np.save(folder / f"{modality}_feat.npy", array)
    return folder


def write_atomic(root: Path, name: str = "atomic", frame=None, items=None) -> Path:
    """A folder of RecBole atomic files, with user tokens u0, u1, … and item tokens i0, i1, …

    Args:
        frame: ``userID`` and ``itemID``, the numbers in those tokens.
        items: the ``.item`` file's columns after ``item_id:token``: header → one value per item.
    """
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    frame = interactions() if frame is None else frame
    typed = pd.DataFrame(
        {
            "user_id:token": "u" + frame["userID"].astype(str),
            "item_id:token": "i" + frame["itemID"].astype(str),
        }
    )
    typed.to_csv(folder / f"{name}.inter", sep="\t", index=False)
    if items:
        table = pd.DataFrame({"item_id:token": [f"i{n}" for n in range(N_ITEMS)], **items})
        table.to_csv(folder / f"{name}.item", sep="\t", index=False)
    return folder


def load(folder: Path, model: str = "SIGRec", **values) -> MultimodalDataset:
    """The data set of a folder."""
    values = {**SMALL, "data_path": str(folder.parent), **values}
    return MultimodalDataset(Config(model, folder.name, config_dict=values))


def run_on(folder: Path, *arguments: str) -> int:
    """``recbole-sigrec run`` on a data set's folder, with ``SMALL``; the exit status."""
    given = {argument.partition("=")[0] for argument in arguments}
    values = {**SMALL, "data_path": folder.parent, "dataset": folder.name}
    small = (f"--{key}={value}" for key, value in values.items() if f"--{key}" not in given)
    return run_command("run", *small, *arguments)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder but logs and cached graphs → the hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.relative_to(folder).parts[0].startswith("log")
        and path.parent.name != "graphs"
    }


class Payload:
    """An object whose unpickling writes a file: what a hostile pickle could do."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)
