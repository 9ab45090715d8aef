"""Negative sampling, vectorised, under RecBole's Sampler interface."""

from __future__ import annotations

import numpy as np
import torch
from recbole.sampler import Sampler as RecBoleSampler

from recbole_sigrec.data.user_items import UserItems, sorted_distinct
from recbole_sigrec.errors import DataError, some

_ROUNDS = 50  # of drawing again, before the unused items are listed


class Sampler(RecBoleSampler):
    """RecBole's sampler with an exact, vectorised rejection of used items.

    A drawn item that its user has used (in this phase or an earlier one) is drawn again until none
    is left. Randomness is NumPy's global state, as in RecBole, so ``seed`` governs it.

    Args:
        phases, datasets, distribution, alpha: as in RecBole.
        candidates: negatives of training are drawn from ``all`` items, or from those with a
            training interaction (``train``): an item that nobody has used in training is then
            never pushed down. Evaluation's uniform draws are from all items in any case; by
            popularity, here and there, from those of training, whose popularity it is (RecBole
            counts all three parts, which tells of the test).
    """

    def __init__(
        self, phases, datasets, distribution="uniform", alpha=1.0, candidates: str = "all"
    ):
        self._train = datasets[0]
        self._train_items = self._train.inter_feat[self._train.iid_field].numpy()
        self._pool = sorted_distinct(self._train_items) if candidates == "train" else None
        self.phase = None
        try:
            super().__init__(phases, datasets, distribution, alpha)
        except ValueError as error:  # a user has used every item
            raise DataError(f"negative sampling: {error}") from None

    def check(self, phase: str) -> None:
        """See that every user of a part has an item left to draw in it.

        Raises:
            DataError: a user has used every candidate.
        """
        own = self.set_phase(phase)
        limited = own._limited()
        candidate = np.zeros(self.item_num, dtype=bool)
        candidate[self._train_items if limited else slice(1, None)] = True
        users, items = np.divmod(own.used_keys, self.item_num)
        used = np.bincount(users[candidate[items]], minlength=self.user_num)
        part = self.datasets[self.phases.index(phase)]
        there = sorted_distinct(part.inter_feat[self.uid_field].numpy())
        full = there[used[there] >= candidate.sum()]
        if len(full):
            tokens = self._train.field2id_token[self._train.uid_field][full]
            other = ""
            if limited and phase == "train" and self.distribution == "uniform":
                other = "set negative_items: all, or "
            elif limited:
                other = "draw uniformly, or "
            what = "negative sampling" if phase == "train" else f"sampled evaluation ({phase})"
            raise DataError(
                f"{what}: user(s) {some(tokens)} have used every item that a negative can be drawn "
                f"from; {other}{self._without()}"
            )

    def _without(self) -> str:
        """How such users are left out: RecBole filters nothing where the split is given."""
        if self._train.benchmark_filename_list is None:
            return "leave such users out with user_inter_num_interval"
        return "remove such users from the interactions' file(s)"

    def _limited(self) -> bool:
        """Whether the phase draws from the items of the training part alone."""
        own = self._pool is not None and self.phase == "train"
        return own or self.distribution == "popularity"

    def _uni_sampling(self, sample_num):
        if self._pool is None or self.phase != "train":  # evaluation's candidates are all items
            return np.random.randint(1, self.item_num, sample_num)
        return self._pool[np.random.randint(0, len(self._pool), sample_num)]

    def _build_alias_table(self):
        """Popularity to the power ``alpha``; of training, where RecBole counts all three parts."""
        count = np.bincount(self._train_items)
        items = np.flatnonzero(count)
        count = count[items]
        weight = (count / count.sum()) ** self.alpha
        self._popular = items, np.cumsum(weight) / weight.sum()

    def _pop_sampling(self, sample_num):
        items, cumulative = self._popular
        place = np.searchsorted(cumulative, np.random.random(sample_num), side="right")
        return items[np.minimum(place, len(items) - 1)]

    def get_used_ids(self) -> dict[str, UserItems]:
        """For each phase the items used in it or an earlier one.

        Raises:
            ValueError: a user has used every item.
        """
        result, keys = {}, np.empty(0, dtype=np.int64)
        for phase, dataset in zip(self.phases, self.datasets, strict=True):
            users, items = (dataset.inter_feat[f].numpy() for f in (self.uid_field, self.iid_field))
            keys = np.concatenate([keys, users.astype(np.int64) * self.item_num + items])
            result[phase] = UserItems(keys, self.user_num, self.item_num)
            keys = result[phase].keys
        if (result[self.phases[-1]].sizes + 1 == self.item_num).any():  # [PAD] is an item
            raise ValueError(
                f"some users have used all items, so that no negative can be drawn for them; "
                f"{self._without()}"
            )
        return result

    @property
    def used_keys(self) -> np.ndarray:
        """Sorted distinct ``user · n_items + item`` of the phase's used pairs, int64."""
        return self.used_ids.keys

    def sample_by_user_ids(
        self, user_ids: np.ndarray, item_ids: np.ndarray, num: int
    ) -> torch.Tensor:
        """``num`` unused items per user: int64 [len(user_ids) · num], users repeating fastest.

        Raises:
            ValueError: a user has used every candidate.
        """
        users = np.tile(np.asarray(user_ids), num)
        drawn = self.sampling(len(users))
        open_ = np.arange(len(users))
        for _ in range(_ROUNDS):
            open_ = open_[self.used_ids.contains(users[open_], drawn[open_])]
            if len(open_) == 0:
                return torch.from_numpy(drawn.astype(np.int64))
            drawn[open_] = self.sampling(len(open_))
        for row in open_:  # of users with hardly an item left
            drawn[row] = self._draw_unused(users[row])
        return torch.from_numpy(drawn.astype(np.int64))

    def _draw_unused(self, user: int) -> int:
        """One of the user's unused candidates, listed one by one."""
        weight = None
        if self.distribution == "popularity":
            items, cumulative = self._popular
            weight = np.diff(cumulative, prepend=0.0)
        elif self._pool is not None and self.phase == "train":
            items = self._pool
        else:
            items = np.arange(1, self.item_num)
        unused = ~self.used_ids.contains(np.full(len(items), user), items)
        if not unused.any():
            raise ValueError(f"no unused item can be drawn for user id {user}")
        if weight is not None:
            weight = weight[unused] / weight[unused].sum()
        return np.random.choice(items[unused], p=weight)
