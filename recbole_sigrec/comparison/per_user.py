"""Metrics of each test user, from the items that a model recommended."""

from __future__ import annotations

import dataclasses

import numpy as np
from recbole.evaluator.metrics import NDCG, Recall

from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.recbole_repairs.numpy_names import numpy_aliases

METRICS = {"recall": Recall, "ndcg": NDCG}
"""The metrics that are compared user by user: RecBole's own, before it takes their mean."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The distinct pairs of the test part, and what training knows about their users and items.

    Its arrays are int64 and have one value for each user or for each pair.
    """

    users: np.ndarray  # [n_users], the ids of the users of the part, ascending
    row: np.ndarray  # [n_pairs], the place in ``users`` of the pair's user
    item: np.ndarray  # [n_pairs], the id of the pair's item
    activity: np.ndarray  # [n_users], training pairs of the user
    popularity: np.ndarray  # [n_pairs], training pairs of the pair's item

    @classmethod
    def from_split(cls, split: Split) -> HeldOut:
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
        numpy_aliases()
        hits = self.hits(top).astype(np.int64)
        relevant = np.bincount(self.row, minlength=len(self.users))
        config = {"topk": [cutoff], "metric_decimal_place": 6}
        return {
            name: metric(config).metric_info(hits, relevant)[:, cutoff - 1]
            for name, metric in METRICS.items()
        }
