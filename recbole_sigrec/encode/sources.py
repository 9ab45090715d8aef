"""What is to be encoded: a list, columns of an item table, or a folder of images.

A source has ``len()``, ``ids()`` (an iterator of item tokens, or None), ``blocks(size, start)``
(the values from row ``start`` on, in lists of ``size``) and ``digest()`` (a hash of all of it).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_sigrec.errors import DataError, some
from recbole_sigrec.tables.delimited import FOUND_OUT, TextForm
from recbole_sigrec.tables.frames import frames, table_files
from recbole_sigrec.tables.records import Skipped
from recbole_sigrec.tables.tokens import LONGEST, is_token

CHUNK = 4096  # rows of a table that are read at a time
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

NO_TOKEN = (
    f"empty, no text or integer, longer than {LONGEST} characters, or has a line break, tab, other "
    f"control character, or a blank at an end"
)


class Values:
    """Values in memory, without ids."""

    def __init__(self, values: Sequence[str]):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def ids(self) -> None:
        return None

    def blocks(self, size: int, start: int = 0) -> Iterator[list]:
        for first in range(start, len(self), size):
            yield list(self.values[first : first + size])

    def digest(self) -> str:
        key = hashlib.blake2b(digest_size=16)
        for value in self.values:
            key.update(f"{len(value)} {value}".encode())
        return key.hexdigest()


class ItemTable:
    """Columns of a table with one row per item, read in chunks and so never whole in memory.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl``, each also with ``.gz``, or ``.parquet``; see
            :func:`recbole_sigrec.tables.frames.frames`.
        id_column: the column of the item tokens, kept as text.
        columns: the columns to encode.
        combine: a row's values in these columns, as text, "" where missing → what is encoded.
        form: of a table of text.

    Attributes:
        skipped: reason → broken lines of JSON that are left out.

    Raises:
        DataError: the file cannot be read, a column is missing, too many lines are broken, or a
            token occurs twice or is none (:func:`recbole_sigrec.tables.tokens.is_token`).

    Cost: one pass over the file; memory: a chunk, and 8 bytes per row.
    """

    def __init__(
        self,
        path: Path,
        id_column: str,
        columns: Sequence[str],
        combine: Callable[[list[str]], Any] = " ".join,
        form: TextForm = FOUND_OUT,
    ):
        self.path, self.id_column, self.columns = path, id_column, list(columns)
        self.combine, self.form = combine, form
        skipped = Skipped(path)
        self.skipped: Mapping[str, int] = skipped.reasons
        self._len = self._check_ids(skipped)

    def __len__(self) -> int:
        return self._len

    def ids(self) -> Iterator[str]:
        for frame in self._frames([self.id_column]):
            yield from frame[self.id_column]

    def blocks(self, size: int, start: int = 0) -> Iterator[list]:
        block = []
        skip = start
        for frame in self._frames(self.columns):
            rows = frame[self.columns].iloc[skip:]
            skip = max(0, skip - len(frame))
            for row in rows.itertuples(index=False, name=None):
                block.append(self.combine([_as_text(value) for value in row]))
                if len(block) == size:
                    yield block
                    block = []
        if block:
            yield block

    def digest(self) -> str:
        how = repr([self.id_column, self.columns, self.form])
        key = hashlib.blake2b(how.encode(), digest_size=16)
        for path in table_files(self.path):
            with open(path, "rb") as file:
                while chunk := file.read(2**20):
                    key.update(chunk)
        return key.hexdigest()

    def _frames(self, columns: list[str], skipped: Skipped | None = None):
        return frames(self.path, columns, skipped or Skipped(self.path), CHUNK, self.form)

    def _check_ids(self, skipped: Skipped) -> int:
        """The number of rows, their tokens and columns checked."""
        hashes = array("Q")
        for frame in self._frames(list(dict.fromkeys([self.id_column, *self.columns])), skipped):
            tokens = frame[self.id_column]
            wrong = len(hashes) + 1 + np.flatnonzero(~tokens.map(is_token).to_numpy(bool))
            if len(wrong):
                raise DataError(
                    f"{self.path}: column [{self.id_column}] is {NO_TOKEN} in row(s) {some(wrong)} "
                    f"(without the header)"
                )
            hashes.frombytes(pd.util.hash_array(tokens.to_numpy(object)).tobytes())
        if not hashes:
            raise DataError(f"{self.path} holds no items")
        values, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
        if (counts > 1).any():
            self._refuse_repeated(values[counts > 1])
        return len(hashes)

    def _refuse_repeated(self, hashes: np.ndarray) -> None:
        seen = Counter()
        for frame in self._frames([self.id_column]):
            tokens = frame[self.id_column].to_numpy(object)
            seen.update(tokens[np.isin(pd.util.hash_array(tokens), hashes)])
        twice = [token for token, count in seen.items() if count > 1]
        if twice:
            raise DataError(
                f"{self.path}: column [{self.id_column}] has item(s) {some(twice)} more than once; "
                f"keep one row of each"
            )


def _as_text(value) -> str:
    """A cell as text: lists joined, missing values empty; ``?`` for what is no UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list | np.ndarray):
        return " ".join(map(_as_text, value))
    return "" if value is None or value != value else str(value)


class ImageFolder:
    """The image files of a folder, in the order of their names; a name's stem is the item token.

    Raises:
        DataError: there is no such folder, it has no images, two images of one stem, or one whose
            stem is no token.
    """

    skipped: Mapping[str, int] = {}

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}")
        self.folder = folder
        self.paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.paths:
            raise DataError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
        wrong = [repr(path.name) for path in self.paths if not is_token(path.stem)]
        if wrong:
            raise DataError(
                f"{folder}: without its suffix the name of {some(wrong)} is {NO_TOKEN}, or is no "
                f"UTF-8, and so cannot be an item id; rename it"
            )
        twice = [stem for stem, n in Counter(path.stem for path in self.paths).items() if n > 1]
        if twice:
            raise DataError(
                f"{folder} has several images of item(s) {some(twice)}; keep one of each"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def ids(self) -> Iterator[str]:
        return (path.stem for path in self.paths)

    def blocks(self, size: int, start: int = 0) -> Iterator[list[Path]]:
        for first in range(start, len(self), size):
            yield self.paths[first : first + size]

    def digest(self) -> str:
        return str(self.folder)


def file_stamps(paths: Iterable[Path | None]) -> str:
    """A hash of the names, sizes and times of files; that of a missing one is its name's."""
    key = hashlib.blake2b(digest_size=16)
    for path in paths:
        about = [str(path)]
        if path is not None and isfile(path):  # Path.is_file raises for a name that is too long
            status = path.stat()
            about += [status.st_size, status.st_mtime_ns]
        key.update(repr(about).encode())
    return key.hexdigest()
