"""Embedding tables that the processes of one model divide by columns.

Propagation, Adam's step and products by element act on each dimension of an embedding by itself.
During an epoch process r of N therefore holds the columns [d r/N, d (r+1)/N) of the tables, with
their gradients and the optimiser's moments, and propagates these columns: nothing is sent for it.
What needs all d dimensions, the rows of a batch, is put together by :func:`whole` or, where only
products are needed, added up by :func:`total`. Between epochs, and so in evaluation and in a
checkpoint, every process has whole tables.

The loss is the sum of the processes' shares, and each function here sends back the sum of what the
processes ask for. So the gradient is that of one process, up to the order of its sums. In a single
process every function returns what it is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from recbole_sigrec.parallel import distributed

_divided = False


def own(d: int) -> slice:
    """The columns, of ``d``, that this process holds now: all of them outside of an epoch."""
    return distributed.share(d) if _divided else slice(0, d)


def whole(part: torch.Tensor, d: int) -> torch.Tensor:
    """Rows of a divided table with all their columns.

    Shapes: this process's columns [..., c] → [..., d].

    Cost: each process sends its part to each other one, and so for the gradient.
    """
    return _Whole.apply(part, d) if _divided else part


def total(part: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over the processes, such as of products over their columns."""
    return _Total.apply(part) if _divided else part


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, d: int) -> torch.Tensor:
        ctx.d = d
        return distributed.join_columns(part, d)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        return distributed.sum_own_columns(gradient), None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor) -> torch.Tensor:
        return distributed.sum_tensor(part.clone())

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> torch.Tensor:
        return distributed.sum_tensor(gradient.clone())


def divisible(tables: Sequence[torch.Tensor]) -> bool:
    """Whether there are several processes, and a column of each table [n, d] for each of them."""
    return 1 < distributed.place().world_size <= min((x.shape[1] for x in tables), default=0)


@contextlib.contextmanager
def divided(tables: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Within the block, each process holds its own columns of the tables [n, d] alone.

    Their gradients are dropped before and after it: they have another shape.

    Args:
        tables: :func:`divisible`, or none.
    """
    global _divided
    if not tables:
        yield
        return
    widths = [table.shape[1] for table in tables]
    _divided = True
    try:
        for table, d in zip(tables, widths):
            table.grad, table.data = None, table.data[:, own(d)].contiguous()
        yield
    finally:
        _divided = False
    for table, d in zip(tables, widths):
        table.grad, table.data = None, distributed.join_columns(table.data, d)
