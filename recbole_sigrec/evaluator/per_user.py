"""Metrics of each test user, from the items that a model recommended."""

from __future__ import annotations

import dataclasses

import numpy as np
from recbole.evaluator.metrics import NDCG, Recall

from recbole_sigrec import compat
from recbole_sigrec.evaluator.split import Split

METRICS = {"recall": Recall, "ndcg": NDCG}
"""The metrics that are compared user by user: RecBole's own, before it takes their mean."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The distinct pairs of the test part, and what training knows about their users and items.

    Attributes:
        users: int64 [n_users], the ids of the users of the part, ascending.
        row: int64 [n_pairs], the place in ``users`` of each pair's user.
        item: int64 [n_pairs], its item's id.
        activity: int64 [n_users], training pairs of each user.
        popularity: int64 [n_pairs], training pairs of each pair's item.
    """

    users: np.ndarray
    row: np.ndarray
    item: np.ndarray
    activity: np.ndarray
    popularity: np.ndarray

    @classmethod
    def of(cls, split: Split) -> HeldOut:
        user, item = split.pairs(2)
        n_items = split.dataset.item_num
        user, item = np.divmod(np.unique(user * n_items + item), n_items)
        users, row = np.unique(user, return_inverse=True)
        train_user, train_item = split.pairs(0)
        activity = np.bincount(train_user, minlength=split.dataset.user_num)[users]
        popularity = np.bincount(train_item, minlength=n_items)[item]
        return cls(users, row, item, activity, popularity)

    def hits(self, top: np.ndarray) -> np.ndarray:
        """Whether each place of the users' lists ``top`` [n_users, k] is in their pairs: bool."""
        n_items = 1 + max(int(top.max()), int(self.item.max()))
        keys = self.row * n_items + self.item
        return np.isin(np.arange(len(top))[:, None] * n_items + top, keys)

    def found(self, top: np.ndarray, cutoff: int) -> np.ndarray:
        """Whether each pair's item is among the first ``cutoff`` of its user's list: bool [n]."""
        return (top[self.row, :cutoff] == self.item[:, None]).any(axis=1)

    def metrics(self, top: np.ndarray, cutoff: int) -> dict[str, np.ndarray]:
        """Metric → its value at ``cutoff`` for each user: float64 [n_users].

        Their means are the evaluator's figures, up to its rounding.
        """
        compat.numpy_aliases()
        hits = self.hits(top).astype(np.int64)
        relevant = np.bincount(self.row, minlength=len(self.users))
        config = {"topk": [cutoff], "metric_decimal_place": 6}
        return {
            name: metric(config).metric_info(hits, relevant)[:, cutoff - 1]
            for name, metric in METRICS.items()
        }
