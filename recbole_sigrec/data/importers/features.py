"""Feature files as a source of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_sigrec.data.build import Features
from recbole_sigrec.data.features import read_features, read_ids, row_blocks, row_tokens
from recbole_sigrec.errors import DataError


def files_of(features: Features) -> list[Path]:
    """The files that features of :func:`open_features` are from: the rows', and the ids'."""
    return [Path(features.origin[key]) for key in ("file", "ids") if key in features.origin]


def open_features(path: Path, tokens: Sequence[str], ids: Path | None = None) -> Features:
    """A ``.npy``, ``.npz`` or ``.safetensors`` file, read in blocks of rows.

    Args:
        path: the file.
        tokens: all item tokens of the source.
        ids: names the item of each row; without it ``<modality>_ids.*`` beside the file, or else
            the rows are positions, and the tokens must be the integers 0 … n−1.

    Raises:
        DataError: a file cannot be read, or the two do not fit.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; name a feature file")
    array = read_features(path)
    if ids is None:
        rows, ids = row_tokens(path, len(array), np.array(tokens, dtype=object))
    else:
        rows = read_ids(ids)
        if len(rows) != len(array):
            raise DataError(
                f"{ids} names {len(rows)} items, but {path} has {len(array)} rows; it must name "
                f"the item of each row, in order"
            )

    def blocks(_: pd.Index) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for block in row_blocks(array):
            yield rows[block], array[block]

    return Features(blocks, {"file": str(path), **({"ids": str(ids)} if ids else {})})
