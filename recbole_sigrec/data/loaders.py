"""RecBole's loaders: the same batches, made from arrays, and divided among processes."""

from __future__ import annotations

import functools

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.data.utils import get_dataloader

from recbole_sigrec import distributed
from recbole_sigrec.rows import take
from recbole_sigrec.user_items import ItemTensors, UserItems


def loader_class(config, phase: str, sampler) -> type:
    """RecBole's choice of a loader for a phase, in our form."""
    base = get_dataloader(config, phase)
    if base is TrainDataLoader:
        return TrainLoader
    if base is FullSortEvalDataLoader and hasattr(sampler, "used_keys"):
        return FullSortLoader
    return base if phase == "train" else _in_shares(base)


def rows_of(interactions: Interaction, rows: np.ndarray) -> Interaction:
    """Some rows of a table; RecBole's own indexing goes through a Python list of them.

    Shapes: rows, int64 [b].
    """
    rows = torch.from_numpy(rows)
    columns = interactions.interaction.items()
    return Interaction({name: take(column, rows) for name, column in columns})


def _batch_starts(loader) -> range:
    return range(0, loader.sample_size, loader.step)


class TrainLoader(TrainDataLoader):
    """RecBole's training loader, an epoch's order as one array instead of a list of integers.

    The random numbers are drawn as torch's loader draws them, so that batches are RecBole's own.
    """

    def __iter__(self):
        if self.num_workers:
            yield from super().__iter__()
            return
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # seed of workers
        order = self._order() if self.shuffle else np.arange(self.sample_size)
        for start in _batch_starts(self):
            yield self.collate_fn(order[start : start + self.step])
        if self.shuffle:
            self._order()  # torch's sampler ends with an order that it does not use

    def __len__(self) -> int:
        return len(_batch_starts(self))

    def collate_fn(self, index):
        """The pairs at these places, with negatives."""
        pairs = self._dataset.join(rows_of(self._dataset.inter_feat, np.asarray(index)))
        return self._neg_sampling(self.transform(self._dataset, pairs))

    def _order(self) -> np.ndarray:
        return torch.randperm(self.sample_size, generator=self.generator).numpy()


class FullSortLoader(FullSortEvalDataLoader):
    """RecBole's loader of full ranking, with positives and history as two sorted arrays.

    RecBole keeps a set and two tensors per user and joins them user by user for each batch. Of
    several processes each iterates over its share of the batches, whole ones, in order and without
    padding: the processes' users, in the order of the ranks, are all users in order.

    Attributes:
        uid_list: int64 [n], the users of the part, ascending.
        uid2items_num: int64 [n_users], distinct items of each user in the part.

    Memory: 8 bytes per interaction of the part and of the phases before it.
    """

    def __init__(self, config, dataset, sampler, shuffle=False):
        self.uid_field, self.iid_field = dataset.uid_field, dataset.iid_field
        self.is_sequential = False
        dataset.sort(by=self.uid_field, ascending=True)  # as RecBole does
        users = dataset.inter_feat[self.uid_field].numpy()
        items = dataset.inter_feat[self.iid_field].numpy()
        n_items = dataset.item_num
        keys = users.astype(np.int64) * n_items + items
        self._positive = UserItems(keys, dataset.user_num, n_items)
        used = np.setdiff1d(sampler.used_keys, self._positive.keys, assume_unique=True)
        self._history = UserItems(used, dataset.user_num, n_items)
        self.uid2items_num = self._positive.sizes
        self.uid_list = torch.from_numpy(np.flatnonzero(self.uid2items_num))
        self.user_df = dataset.join(Interaction({self.uid_field: self.uid_list}))
        self.sample_size = len(self.user_df)
        AbstractDataLoader.__init__(self, config, dataset, sampler, shuffle=False)

    def __iter__(self):
        starts = _batch_starts(self)
        for start in starts[distributed.share(len(starts))]:
            yield self.collate_fn(np.arange(start, min(start + self.step, self.sample_size)))

    def __len__(self) -> int:
        return len(_batch_starts(self))

    @property
    def uid2history_item(self) -> ItemTensors:
        """For RecBole's case study: the items that are not ranked for a user."""
        return ItemTensors(self._history)

    @property
    def uid2positive_item(self) -> ItemTensors:
        """For RecBole's case study: a user's items in the part."""
        return ItemTensors(self._positive)

    def collate_fn(self, index):
        """RecBole's tuple: users, (row, item) of their history, rows and items of positives."""
        index = np.asarray(index)
        users = self.uid_list.numpy()[index]
        return (
            rows_of(self.user_df, index),
            self._history.rows(users),
            *self._positive.rows(users),
        )


class _Shares:
    """Mixin over an evaluation loader: iterates over this process's share of the batches.

    Negatives are drawn for all users everywhere, so that they are those of one process.
    """

    def __iter__(self):
        share = distributed.share(len(self))
        batches = enumerate(super().__iter__())
        return (batch for n, batch in batches if share.start <= n < share.stop)


@functools.cache
def _in_shares(loader: type) -> type:
    return type(loader.__name__, (_Shares, loader), {})
