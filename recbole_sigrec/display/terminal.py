"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from texttable import Texttable


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Lines of a table: the first row is its head, the first column is aligned to the left."""
    columns = len(rows[0])
    table = Texttable(max_width=0)
    table.set_deco(Texttable.HEADER)
    table.set_cols_dtype(["t"] * columns)
    table.set_cols_align(["l", *["r"] * (columns - 1)])
    table.add_rows(rows)
    return table.draw() or ""
