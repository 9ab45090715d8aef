"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from texttable import Texttable


def text_table(rows: Sequence[Sequence[str]], align: str = "r") -> str:
    """Lines of a table.

    Args:
        rows: the first is the head.
        align: side of all columns but the first, which is on the left: ``r`` or ``l``.
    """
    columns = len(rows[0])
    table = Texttable(max_width=0)
    table.set_deco(Texttable.HEADER)
    table.set_cols_dtype(["t"] * columns)
    table.set_header_align(["l", *[align] * (columns - 1)])
    table.set_cols_align(["l", *[align] * (columns - 1)])
    table.add_rows(rows)
    return "\n".join(line.rstrip() for line in (table.draw() or "").splitlines())
