"""Rows of a table by their numbers, with a gradient, for all of the plugin."""

from __future__ import annotations

import torch


def select_rows(table: torch.Tensor, rows: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """``table[rows]``, or ``table[:, rows]`` with ``dim`` 1.

    On a CPU whole rows are copied, several times as fast as torch indexes, and the gradients of a
    row that is taken more than once are added in the order of ``rows``, whatever the number of
    threads. On other devices the table is indexed: there it is indexing that adds in a fixed order,
    and copying that would not give the same result twice.

    Shapes: table [n, …], rows int64 [r], not negative → [r, …].
    """
    if table.device.type == "cpu":
        return table.index_select(dim, rows)
    return table[(slice(None),) * dim + (rows,)]
