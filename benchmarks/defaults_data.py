"""The eight data sets of the benchmark of defaults, under names that no property file has."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import recbole

LARGE = ("tiktok", "baby", "sports", "microlens")
"""Folders of MMRec's layout, with their own split."""

SHOPS = {
    "shop-microlens": ("microlens", 3500),
    "shop-baby": ("baby", 2000),
    "shop-sports": ("sports", 3000),
}
"""Name → (the data set that its users are drawn from, how many are drawn)."""

SEED, CORE = 1, 3

NAMES = (*LARGE, "ml-100k", *SHOPS)

MOVIES = {
    "load_col": {"inter": ["user_id", "item_id"]},
    "normalize_all": None,
    "item_modalities": {
        "text": {"columns": ["movie_title", "release_year"], "encoder": "tfidf", "dimension": 64},
        "genre": {"columns": ["class"], "encoder": "multi_hot"},
    },
}


def make(name: str, source: Path, out: Path) -> tuple[str, dict[str, Any]]:
    """Make a data set's folder in ``out`` where it is not there.

    Returns:
        Its name there, ``my-<name>``, and the config keys without which it cannot be read.
    """
    own = f"my-{name}"
    folder = out / own
    if not folder.is_dir():
        making = out / f".{own}"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        if name == "ml-100k":
            for file in (Path(recbole.__file__).parent / "dataset_example/ml-100k").iterdir():
                (making / f"{own}{file.suffix}").symlink_to(file)
        elif name in LARGE:
            (making / f"{own}.inter").symlink_to((source / name / f"{name}.inter").resolve())
            for file in (source / name).glob("*_feat.npy"):
                (making / file.name).symlink_to(file.resolve())
        else:
            _write_shop(making, own, source / SHOPS[name][0], SHOPS[name][1])
        making.rename(folder)
    return own, MOVIES if name == "ml-100k" else {}


def _write_shop(folder: Path, own: str, source: Path, n_users: int) -> None:
    """Users drawn from a data set, with its split; each user and item has three pairs or more."""
    frame = pd.read_csv(source / f"{source.name}.inter", sep="\t")
    user, item = frame.columns[:2]
    rng = np.random.default_rng(SEED)
    frame = frame[frame[user].isin(rng.choice(frame[user].unique(), n_users, replace=False))]
    size = -1
    while len(frame) != size:
        size = len(frame)
        for column in (item, user):
            frame = frame[frame.groupby(column)[column].transform("size") >= CORE]
    frame.to_csv(folder / f"{own}.inter", sep="\t", index=False)
    known = np.sort(frame[item].unique())
    for file in source.glob("*_feat.npy"):
        modality = file.name.removesuffix("_feat.npy")
        np.save(folder / file.name, np.load(file)[known])
        np.save(folder / f"{modality}_ids.npy", known.astype(str))
