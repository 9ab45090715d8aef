"""Lists of the best items, plain or diverse."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_sigrec.kernels.top import first_of_equals

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The best items of some users.

    Attributes:
        users: who, a token or the place of a history, for each row.
        items: row → item tokens, best first; an array of str.
        scores: row → their scores, float32.
    """

    users: list[Any]
    items: list[np.ndarray]
    scores: list[np.ndarray]

    def frame(self) -> pd.DataFrame:
        """As a table with the columns user, item, rank (from 1) and score."""
        import pandas as pd

        sizes = [len(items) for items in self.items]
        users = np.empty(len(self.users), dtype=object)
        users[:] = self.users
        ranks = [np.arange(1, size + 1) for size in sizes]
        columns = {
            "user": np.repeat(users, sizes),
            "item": np.concatenate([np.empty(0, object), *self.items]),
            "rank": np.concatenate([np.empty(0, np.int64), *ranks]),
            "score": np.concatenate([np.empty(0, np.float32), *self.scores]),
        }
        return pd.DataFrame(columns)

    def add(self, names: np.ndarray, scores: np.ndarray, top: np.ndarray) -> None:
        """Add the lists of further users, without the items whose score is −∞.

        Args:
            names: the items' tokens.
            scores: float32 [n, n_items].
            top: int64 [n, k], the best items of each, best first.
        """
        tokens = names[top]
        for row, values in enumerate(np.take_along_axis(scores, top, axis=1)):
            kept = values > -np.inf
            whole = kept.all()
            self.items.append(tokens[row] if whole else tokens[row][kept])
            self.scores.append(values if whole else values[kept])


def diverse(scores: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """The k items of each user, chosen one by one from the best 10 k.

    Each is the one of largest score − diversity · σ · the largest cosine to an item already chosen,
    if that is positive, σ the deviation of these 10 k scores. Maximal marginal relevance (Carbonell
    and Goldstein, SIGIR 1998); the scale σ is our choice.

    Shapes: scores [n, n_items], vectors of norm one [n_items, d] → int64 [n, k].
    """
    pools = first_of_equals(scores, min(10 * k, scores.shape[1]))
    rows = zip(pools, scores, strict=True)
    return np.stack([_chosen(pool, row[pool], vectors[pool], k, diversity) for pool, row in rows])


def _chosen(
    pool: np.ndarray, values: np.ndarray, vectors: np.ndarray, k: int, diversity: float
) -> np.ndarray:
    """k items of one user's pool; those with a score of −∞ come last."""
    finite = values > -np.inf
    penalty = diversity * (values[finite].std() if finite.any() else 0.0)
    near = np.zeros(len(pool), dtype=np.float32)
    left, chosen = list(range(len(pool))), []
    for _ in range(k):
        place = left.pop(int(np.argmax(values[left] - penalty * near[left])))
        chosen.append(place)
        near = np.maximum(near, vectors @ vectors[place])
    return pool[chosen]
