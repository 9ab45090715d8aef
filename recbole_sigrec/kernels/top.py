"""The best places of each row of scores, without sorting all of them; by NumPy alone."""

from __future__ import annotations

import numpy as np


def top_places(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k places of largest score in each row, best first.

    The places are dealt into about √(n k) groups. The k best lie in the k + 1 groups of largest
    maximum, so that only those are searched.

    Args:
        scores: float32 [n_rows, n], C-ordered.
        k: at most n.

    Returns:
        (int64 [n_rows, k], bool [n_rows]: whether two of a row's k + 1 best scores are equal, so
        that another order of its places would be as good).

    Cost: one pass over the scores and two partial sorts of √(n k) entries per row.
    """
    n_rows, n = scores.shape
    n_in_group = int((n / (k + 1)) ** 0.5)
    if n_in_group < 2:
        candidates = np.broadcast_to(np.arange(n), scores.shape)
        values = scores
    else:
        n_groups = n // n_in_group
        used = n_groups * n_in_group  # place g + i · n_groups is in group g; the rest are in none
        grouped = scores[:, :used].reshape(n_rows, n_in_group, n_groups)
        groups = _largest(grouped.max(axis=1), k + 1)  # [n_rows, k + 1]
        members = groups[:, None, :] + np.arange(n_in_group)[:, None] * n_groups
        rest = np.broadcast_to(np.arange(used, n), (n_rows, n - used))
        candidates = np.concatenate([members.reshape(n_rows, -1), rest], axis=1)
        values = np.take_along_axis(scores, candidates, axis=1)
    places = _largest(values, min(k + 1, n))
    values = np.take_along_axis(values, places, axis=1)
    order = np.argsort(-values, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    places = np.take_along_axis(places, order[:, :k], axis=1)
    tied = (values[:, 1:] == values[:, :-1]).any(axis=1)
    return np.take_along_axis(candidates, places, axis=1), tied


def first_of_equals(scores: np.ndarray, k: int) -> np.ndarray:
    """The k places of largest score in each row, best first; of equal scores the first place's.

    Shapes: float32 [n_rows, n] → int64 [n_rows, k].
    """
    top, tied = top_places(scores, k)
    if tied.any():
        top[tied] = np.argsort(-scores[tied], axis=1, kind="stable")[:, :k]
    return top


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest of each row, in no order."""
    n = values.shape[1]
    return np.argpartition(values, n - k, axis=1)[:, n - k :]
