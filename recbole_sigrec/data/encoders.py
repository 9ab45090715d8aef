"""Built-in encoders: item columns to modality features, with nothing to download.

scikit-learn is imported where it is used: most runs use no encoder, and it is slow to import.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_sigrec.data.interactions import header
from recbole_sigrec.errors import DataError, did_you_mean

LEARNED_FROM = 10_000
"""Texts that :class:`Tfidf` learns from at the most."""

_LEARNED = 2**14  # characters of each of them, at the most


def digest(settings: str, columns: list) -> bytes:
    """SHA-256 of columns of texts and of the settings by which they are encoded."""
    found = hashlib.sha256(settings.encode())
    for column in columns:
        found.update(json.dumps([str(text) for text in column]).encode())
    return found.digest()


def read_item_columns(
    path: Path, item_field: str, columns: list[str], separator: str = "\t"
) -> tuple[np.ndarray, list[list[str]]]:
    """Columns of a RecBole ``.item`` file as text.

    Args:
        path: the file, with or without types in its header.
        item_field: the column of the item tokens.
        columns: the columns wanted.

    Returns:
        (item tokens [rows], for each column its values [rows], "" where missing).

    Raises:
        DataError: the file or a column is missing.
    """
    if not path.is_file():
        raise DataError(f"item_modalities names columns of {path}, which does not exist")
    names = header(path, separator)
    plain = [name.split(":")[0] for name in names]
    for column in (item_field, *columns):
        if column not in plain:
            raise DataError(
                f"{path} has no column [{column}].{did_you_mean(column, plain)} It has: "
                f"{', '.join(plain)}"
            )
    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            header=0,
            names=plain,
            usecols=[item_field, *columns],
            index_col=False,  # a line may have more values than the header has names
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
        ).drop_duplicates(item_field)
    except ValueError as error:  # pandas' ParserError and UnicodeDecodeError are such
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    return frame[item_field].to_numpy(), [frame[column].to_list() for column in columns]


class Tfidf:
    """TF-IDF reduced by truncated SVD, learned from texts or from a random part of many.

    Blank texts are not learned from. A word that is in none of the texts drawn is not known later.

    Args:
        texts: read once; at most ``LEARNED_FROM`` of them are held, each cut at 2¹⁴ characters.
        dimension: of the rows, at most; fewer where there are not as many words or texts.
        seed: of the part drawn, and of the SVD.

    Raises:
        DataError: the texts hold no word.

    Memory: for each of the texts held 3 KB where they have ten words, 10 KB where they have 300.
    """

    def __init__(self, texts: Iterable[str], dimension: int, seed: int = 0):
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = (text[:_LEARNED] for text in texts if text and not text.isspace())
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
        try:
            matrix = self._vectorizer.fit_transform(_sample(texts, LEARNED_FROM, seed))
        except ValueError as error:
            raise DataError(f"tfidf: {error}; name columns that hold text") from None
        width = min(dimension, matrix.shape[1] - 1, matrix.shape[0])
        self._svd = TruncatedSVD(width, random_state=seed).fit(matrix) if width >= 1 else None

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """Float32 [n, d]; a text without a word that was learned has a zero row."""
        matrix = self._vectorizer.transform(texts)
        rows = matrix.toarray() if self._svd is None else self._svd.transform(matrix)
        return rows.astype(np.float32)


def _sample(values: Iterable[str], size: int, seed: int) -> list[str]:
    """All values, or so many of them, drawn uniformly in one pass, in their order."""
    draw = random.Random(seed)
    kept: list[tuple[int, str]] = []
    for n, value in enumerate(values):
        if n < size:
            kept.append((n, value))
        elif (place := draw.randrange(n + 1)) < size:
            kept[place] = (n, value)
    return [value for _, value in sorted(kept)]


def tfidf(columns: list[list[str]], dimension: int, seed: int = 0) -> np.ndarray:
    """:class:`Tfidf` of the joined columns, learned from them.

    Returns:
        float32 [rows, dimension or fewer].

    Raises:
        DataError: the columns hold no word.
    """
    texts = [" ".join(parts) for parts in zip(*columns, strict=True)]
    return Tfidf(texts, dimension, seed).encode(texts)


def multi_hot(columns: list[list[str]], separator: str = " ") -> np.ndarray:
    """One column per distinct value of a multi-valued field, 1 where the item has it.

    Returns:
        float32 [rows, values].

    Raises:
        DataError: the columns hold no value.
    """
    from sklearn.preprocessing import MultiLabelBinarizer

    labels = [
        [f"{n}={value}" for n, part in enumerate(parts) for value in part.split(separator) if value]
        for parts in zip(*columns, strict=True)
    ]
    binarizer = MultiLabelBinarizer()
    encoded = binarizer.fit_transform(labels)
    if encoded.shape[1] == 0:
        raise DataError("multi_hot: the columns hold no value")
    return encoded.astype(np.float32)
