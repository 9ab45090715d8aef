"""RecBole's loaders: the same batches, made from arrays, and divided among processes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.data.utils import get_dataloader

from recbole_sigrec.config import Config
from recbole_sigrec.data.seeds import fixed_draws, split_seed
from recbole_sigrec.data.user_items import ItemTensors, UserItems
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.parallel import distributed


def loader_class(config: Config, phase: str, sampler: object) -> type:
    """RecBole's choice of a loader for a phase, in our form."""
    base: Any = get_dataloader(config, phase)  # pyright: ignore[reportArgumentType]  (a name)
    if base is TrainDataLoader:
        return TrainLoader
    if base is FullSortEvalDataLoader and hasattr(sampler, "used_keys"):
        return FullSortLoader
    return base if phase == "train" else _in_shares(base)


def rows_of(interactions: Interaction, rows: np.ndarray) -> Interaction:
    """Some rows of a table; RecBole's own indexing goes through a Python list of them.

    Shapes: rows, int64 [b].
    """
    places = torch.from_numpy(rows)
    columns = interactions.interaction.items()
    return Interaction({name: select_rows(column, places) for name, column in columns})


def _batch_starts(loader: Any) -> range:
    return range(0, loader.sample_size, loader.step)


class TrainLoader(TrainDataLoader):
    """RecBole's training loader, an epoch's order as one array instead of a list of integers.

    The random numbers are drawn as torch's loader draws them, so that batches are RecBole's own.
    """

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
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

    def collate_fn(self, index: np.ndarray | list[int]) -> Interaction:
        """The pairs at these places, with negatives."""
        pairs = self._dataset.join(rows_of(self._dataset.inter_feat, np.asarray(index)))
        return self._neg_sampling(self.transform(self._dataset, pairs))

    def _order(self) -> np.ndarray:
        return torch.randperm(self.sample_size, generator=self.generator).numpy()


class _Shares(AbstractDataLoader):
    """Mixin over an evaluation loader.

    Of several processes each iterates over its share of the batches, whole ones, in order and
    without padding. The negatives of a user follow from the seed of the split, the phase and the
    user, so that all evaluations of a part rank the same items, and training goes on as if there
    had been none.
    """

    step: int
    sample_size: int
    collate_fn: Any

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        starts = _batch_starts(self)
        for start in starts[distributed.share(len(starts))]:
            yield self.collate_fn(np.arange(start, min(start + self.step, self.sample_size)))

    def __len__(self) -> int:
        return len(_batch_starts(self))

    def _neg_sampling(self, inter_feat: Interaction) -> Interaction:
        base: Any = super()
        sampler: Any = self._sampler
        if sampler is None:  # the data's own labels are evaluated
            return base._neg_sampling(inter_feat)
        users = inter_feat[self.uid_field].tolist()
        with fixed_draws(split_seed(self.config), sampler.phases.index(sampler.phase), *users):
            return base._neg_sampling(inter_feat)


class FullSortLoader(_Shares, FullSortEvalDataLoader):
    """RecBole's loader of full ranking, with positives and history as two sorted arrays.

    RecBole keeps a set and two tensors per user and joins them user by user for each batch. The
    processes' users, in the order of the ranks, are all users in order.

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

    @property
    def uid2history_item(self) -> ItemTensors:
        """For RecBole's case study: the items that are not ranked for a user."""
        return ItemTensors(self._history)

    @property
    def uid2positive_item(self) -> ItemTensors:
        """For RecBole's case study: a user's items in the part."""
        return ItemTensors(self._positive)

    def collate_fn(self, index: np.ndarray | list[int]) -> tuple[Any, ...]:
        """RecBole's tuple: users, (row, item) of their history, rows and items of positives."""
        index = np.asarray(index)
        users = self.uid_list.numpy()[index]
        return (
            rows_of(self.user_df, index),
            self._history.rows(users),
            *self._positive.rows(users),
        )


@functools.cache
def _in_shares(loader: type) -> type:
    return type(loader.__name__, (_Shares, loader), {})
