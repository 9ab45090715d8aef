"""A small data set of RecBole's atomic files, and values with which its models train on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

N_USERS, N_ITEMS, EACH = 40, 30, 10
"""Users and items of the data set, and the interactions of each user."""

SHARED = {
    **{"epochs": 2, "topk": [5, 10], "valid_metric": "Recall@10", "state": "ERROR"},
    **{"use_gpu": False, "gpu_id": "", "show_progress": False, "embedding_size": 8},
    **{"train_batch_size": 200, "checkpoint_dir": "saved"},
}
"""Config values of all runs here; the rest is RecBole's default."""

RATED = {"load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}}
NO_NEGATIVES = {"train_neg_sample_args": None}


def negatives(**changed: object) -> dict:
    """RecBole's ``train_neg_sample_args``, all of its keys."""
    usual = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0}
    return {"train_neg_sample_args": {**usual, "dynamic": False, "candidate_num": 0, **changed}}


def table(seed: int = 0) -> list[tuple[int, int, int, int]]:
    """(user, item, rating, time): seven items of the user's parity, three of the other."""
    rng = np.random.default_rng(seed)
    rows, times = [], rng.permutation(N_USERS * EACH)
    for user in range(N_USERS):
        own, other = (
            rng.permutation(np.arange(start, N_ITEMS, 2)) for start in (user % 2, 1 - user % 2)
        )
        for item in [*own[: EACH - 3], *other[:3]]:
            rows.append((user, int(item), int(rng.integers(1, 6)), int(times[len(rows)])))
    return rows


def write_rated(root: Path, name: str = "rated", rows: list | None = None) -> Path:
    """The folder of the data set: ``.inter``, ``.user`` and ``.item`` files."""
    folder = root / name
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += [f"u{u}\ti{i}\t{r}\t{t}" for u, i, r, t in (table() if rows is None else rows)]
    (folder / f"{name}.inter").write_text("\n".join(lines) + "\n", "utf-8")
    lines = ["user_id:token\tage:float\tgender:token"]
    lines += [f"u{u}\t{20 + u}\t{'MF'[u % 2]}" for u in range(N_USERS)]
    (folder / f"{name}.user").write_text("\n".join(lines) + "\n", "utf-8")
    lines = ["item_id:token\tyear:float\tgenre:token_seq\tvector:float_seq"]
    lines += [f"i{i}\t{1990 + i}\ta{i % 3} b{i % 2}\t{i / 10} {1 - i / 10}" for i in range(N_ITEMS)]
    (folder / f"{name}.item").write_text("\n".join(lines) + "\n", "utf-8")
    return folder
