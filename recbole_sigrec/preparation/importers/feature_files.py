"""Feature files as a source of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_sigrec.data.encoder_files import encoder_file
from recbole_sigrec.data.features import read_ids, row_tokens
from recbole_sigrec.data.matrix_files import read_features, row_blocks
from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.build import Features


def files_of(features: Features) -> list[Path]:
    """The files of :func:`open_features`: the rows', and if there, the ids' and the encoder's."""
    return [Path(path) for path in features.origin.values()]


def open_features(path: Path, tokens: Sequence[str], ids: Path | None = None) -> Features:
    """A ``.npy``, ``.npz`` or ``.safetensors`` file, read in blocks of rows.

    The saved encoder beside it, if there is one, is that of the features.

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

    made_by = encoder_file(path)
    files = {"file": path, "ids": ids, "encoder_file": made_by}
    origin = {key: str(file) for key, file in files.items() if file is not None}
    return Features(blocks, origin, lambda: made_by and made_by.read_bytes(), rows)
