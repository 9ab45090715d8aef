"""Negative sampling, vectorised, under RecBole's Sampler interface."""

from __future__ import annotations

import numpy as np
import torch
from recbole.sampler import Sampler as RecBoleSampler


class Sampler(RecBoleSampler):
    """RecBole's sampler with an exact, vectorised rejection of used items.

    A drawn item that its user has used (in this phase or an earlier one) is drawn again until none
    is left. Randomness is NumPy's global state, as in RecBole, so ``seed`` governs it.

    Args:
        phases, datasets, distribution, alpha: as in RecBole.
        candidates: ``all`` items, or those with a training interaction (``train``): an item that
            nobody has used in training is then never pushed down as a negative.
    """

    def __init__(
        self, phases, datasets, distribution="uniform", alpha=1.0, candidates: str = "all"
    ):
        train = datasets[0]
        self._train_items = train.inter_feat[train.iid_field].numpy()
        self._pool = np.unique(self._train_items) if candidates == "train" else None
        self._used_keys: dict[str, np.ndarray] = {}
        super().__init__(phases, datasets, distribution, alpha)

    def _uni_sampling(self, sample_num):
        if self._pool is None:
            return np.random.randint(1, self.item_num, sample_num)
        return self._pool[np.random.randint(0, len(self._pool), sample_num)]

    def _get_candidates_list(self):
        """Popularity is that of training; RecBole counts validation and test items too."""
        return list(self._train_items)

    def _phase_keys(self) -> np.ndarray:
        """Sorted ``user · n_items + item`` of the phase's used pairs."""
        if self.phase not in self._used_keys:
            used = self.used_ids
            users = np.repeat(np.arange(len(used)), [len(items) for items in used])
            items = np.fromiter((i for s in used for i in s), dtype=np.int64, count=len(users))
            self._used_keys[self.phase] = np.sort(users * self.item_num + items)
        return self._used_keys[self.phase]

    def sample_by_user_ids(self, user_ids, item_ids, num):
        """``num`` unused items per user: int64 [len(user_ids) · num], users repeating fastest.

        Raises:
            ValueError: a user has used every candidate.
        """
        keys = self._phase_keys()
        users = np.tile(np.asarray(user_ids), num)
        drawn = self.sampling(len(users))
        open_ = np.arange(len(users))
        for _ in range(10_000):
            wanted = users[open_] * self.item_num + drawn[open_]
            place = np.searchsorted(keys, wanted)
            used = keys[np.minimum(place, len(keys) - 1)] == wanted
            open_ = open_[used]
            if len(open_) == 0:
                return torch.from_numpy(drawn.astype(np.int64))
            drawn[open_] = self.sampling(len(open_))
        raise ValueError(f"no unused item can be drawn for user id {users[open_[0]]}")
