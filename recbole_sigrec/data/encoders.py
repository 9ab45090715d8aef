"""Built-in encoders: item columns to modality features, with nothing to download.

scikit-learn is imported where it is used: most runs use no encoder, and it is slow to import.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_sigrec.data.interactions import header
from recbole_sigrec.errors import DataError, did_you_mean


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


def tfidf(columns: list[list[str]], dimension: int, seed: int = 0) -> np.ndarray:
    """TF-IDF of the joined columns, reduced by truncated SVD; rows without a word are zero.

    Returns:
        float32 [rows, min(dimension, words − 1)].

    Raises:
        DataError: the columns hold no word.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [" ".join(parts) for parts in zip(*columns, strict=True)]
    try:
        matrix = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    except ValueError as error:
        raise DataError(f"tfidf: {error}; name columns that hold text") from None
    width = min(dimension, matrix.shape[1] - 1, matrix.shape[0])
    if width < 1:
        return matrix.toarray().astype(np.float32)
    reduced = TruncatedSVD(width, random_state=seed).fit_transform(matrix)
    reduced[matrix.getnnz(axis=1) == 0] = 0.0
    return reduced.astype(np.float32)


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
