"""The items of each user, as one sorted array instead of a Python set per user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def sorted_distinct(values: np.ndarray) -> np.ndarray:
    """``np.unique`` of a 1-d array by sorting; NumPy's own way, by hashing, is slower on keys."""
    values = np.sort(values)
    return values[np.diff(values, prepend=values[:1] - 1) > 0]


class UserItems(Sequence[Any]):
    """The items of all users; reads as RecBole's array of sets does.

    ``items[user]`` is that user's set of item ids, ``items[users]`` an array of such sets, ``len``
    the number of users. Sets are made when asked for.

    Attributes:
        keys: int64 [n_pairs], the sorted distinct ``user · n_items + item``.
        sizes: int64 [n_users], distinct items of each user.

    Memory: 8 bytes per pair and per user; a set takes 200 to 2,000 bytes for 4 to 40 items.

    Args:
        keys: ``user · n_items + item`` of each pair, in any order, possibly repeated.
        n_users, n_items: numbers of ids, padding included.
    """

    def __init__(self, keys: np.ndarray, n_users: int, n_items: int):
        self.keys = sorted_distinct(keys)
        self.n_items = n_items
        self._start = np.searchsorted(self.keys, np.arange(n_users + 1) * n_items)
        self.sizes = np.diff(self._start)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, user: Any) -> Any:
        if user is None:  # asked for, and not used, by RecBole's FullSortEvalDataLoader
            return set()
        if isinstance(user, slice):
            user = range(len(self))[user]
        if np.ndim(user):
            sets = np.empty(len(user), dtype=object)
            sets[:] = [self[one] for one in user]
            return sets
        user = range(len(self))[user]  # an index of a sequence: negative ones, IndexError
        return set((self.keys[self._start[user] : self._start[user + 1]] % self.n_items).tolist())

    def contains(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Whether the user has the item: bool [n], for users and items int64 [n]."""
        wanted = users * self.n_items + items
        place = np.searchsorted(self.keys, wanted)
        found = np.zeros(len(wanted), dtype=bool)
        inside = place < len(self.keys)
        found[inside] = self.keys[place[inside]] == wanted[inside]
        return found

    def rows(self, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(place in ``users``, item) of every item of these users: int64 [n], int64 [n]."""
        count = self.sizes[users]
        row = np.repeat(np.arange(len(users)), count)
        offset = np.arange(len(row)) - np.repeat(count.cumsum() - count, count)
        items = self.keys[self._start[users][row] + offset] % self.n_items
        return torch.from_numpy(row), torch.from_numpy(items)


class ItemTensors:
    """RecBole's array of a tensor of items per user, made when asked for."""

    def __init__(self, items: UserItems):
        self._items = items

    def __getitem__(self, users: Any) -> np.ndarray | torch.Tensor:
        """The items of a user as int64 [n], or an array of such tensors for several users."""
        if np.ndim(users) == 0:
            return self._items.rows(np.array([int(users)]))[1]
        tensors = np.empty(len(users), dtype=object)
        tensors[:] = [self[user] for user in users]
        return tensors
