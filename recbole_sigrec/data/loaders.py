"""RecBole's evaluation loaders, divided among the processes that evaluate one model together."""

from __future__ import annotations

import functools

import torch
from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_sigrec import distributed


class _Shares:
    """Mixin over an evaluation loader: iterates over this process's share of the batches.

    Whole batches, in order and without padding: their scores are those of one process, and the
    processes' users, put together in the order of the ranks, are all users in order.
    """

    def __iter__(self):
        if distributed.place().world_size == 1:
            return super().__iter__()
        share = distributed.share(len(self))
        if isinstance(self, FullSortEvalDataLoader):
            users = range(share.start * self.step, min(share.stop * self.step, self.sample_size))
            options = {"num_workers": self.num_workers, "generator": self.generator}
            return iter(
                torch.utils.data.DataLoader(
                    users, batch_size=self.step, collate_fn=self.collate_fn, **options
                )
            )
        # Negatives are drawn for all users everywhere, so that they are those of one process.
        batches = enumerate(super().__iter__())
        return (batch for n, batch in batches if share.start <= n < share.stop)


@functools.cache
def in_shares(loader: type) -> type:
    """An evaluation loader's class whose objects iterate over this process's share."""
    return type(loader.__name__, (_Shares, loader), {})
