"""Columns of a table of items, in the order of a model's items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_sigrec.errors import DataError
from recbole_sigrec.tables.frames import ROWS, frames
from recbole_sigrec.tables.records import Skipped


def item_columns(
    path: Path, id_column: str, columns: Sequence[str], items: Sequence[str]
) -> dict[str, list[Any]]:
    """Columns of a table of items, in the order of ``items``; None where an item has no row.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl`` (also ``.gz``) or ``.parquet``.

    Raises:
        DataError: the table cannot be read, or has none of the items.
    """
    rows = {token: row for row, token in enumerate(items)}
    found: dict[str, list[Any]] = {column: [None] * len(items) for column in columns}
    n_found = 0
    for frame in frames(path, list(dict.fromkeys([id_column, *columns])), Skipped(path), ROWS):
        places = frame[id_column].map(rows)
        known = places.notna()
        n_found += int(known.sum())
        for column in columns:
            for place, value in zip(places[known].astype(int), frame.loc[known, column]):
                found[column][place] = value
    if not n_found:
        raise DataError(f"{path}: column [{id_column}] has none of the model's items")
    return found
