"""Built-in encoders: item columns to modality features, with nothing to download.

scikit-learn is imported where it is used: most runs use no encoder, and it is slow to import.
Nothing here imports torch.
"""

from __future__ import annotations

import abc
import csv
import dataclasses
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from typing_extensions import Self

from recbole_sigrec.data.encoder_files import (
    SavedEncoder,
    damage_told,
    read_encoder,
    write_encoder,
)
from recbole_sigrec.data.interactions import header, separator_hint
from recbole_sigrec.errors import DataError, did_you_mean

LEARNED_FROM = 10_000
"""Texts that :class:`Tfidf` learns from at the most."""

_LEARNED = 2**14  # characters of each of them, at the most

_READING = {"lowercase": True, "token_pattern": r"(?u)\b\w\w+\b"}  # how words are found in a text


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
                f"{', '.join(plain)}{separator_hint(names)}"
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


class ItemEncoder(abc.ABC):
    """An encoder that has learned from item columns, and encodes others alike."""

    kind: ClassVar[str]

    @abc.abstractmethod
    def encode(self, columns: Sequence[Iterable[str]]) -> np.ndarray:
        """Features of rows: float32 [n, d].

        Args:
            columns: as those learned from; for each column its values [n], "" where missing.
        """

    @abc.abstractmethod
    def saved(self) -> SavedEncoder:
        """What its file holds."""

    @classmethod
    @abc.abstractmethod
    def restored(cls, saved: SavedEncoder) -> Self:
        """The encoder of a file; what does not fit together raises some error."""

    def save(self, path: str | Path) -> None:
        """Write it to a ``.safetensors`` file, whole.

        Raises:
            DataError: the file exists, with another content; or the words or values exceed 99 MB.
        """
        write_encoder(Path(path), self.saved().to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read it from a file.

        Raises:
            DataError: the file is not there, is damaged or foreign, or is of another kind.
        """
        path = Path(path)
        saved = read_encoder(path, cls.kind)
        with damage_told(path):
            return cls.restored(saved)


@dataclasses.dataclass(frozen=True, eq=False)
class Tfidf(ItemEncoder):
    """TF-IDF of the joined columns, reduced by truncated SVD.

    A word that it has not learned is ignored; a text without a word that it has learned has a zero
    row.

    Attributes:
        words: those it knows, one for each weight.
        idf: their weights, float32 [words].
        components: of the SVD, float32 [d, words]; None where there is one word, and no SVD.
        learned: how it has learned, for the record.
    """

    words: list[str]
    idf: np.ndarray
    components: np.ndarray | None
    learned: dict[str, Any]

    kind = "tfidf"

    @classmethod
    def learn(cls, columns: Sequence[Iterable[str]], dimension: int, seed: int = 0) -> Self:
        """Learn from columns, or from a random part of many rows; blank texts do not count.

        Args:
            columns: read once; at most ``LEARNED_FROM`` joined texts are held, each cut at 2¹⁴
                characters.
            dimension: of the rows, at most; fewer where there are not as many words or texts.
            seed: of the part drawn, and of the SVD.

        Raises:
            DataError: the columns hold no word.

        Memory: for each text held 3 KB where it has ten words, 10 KB where it has 300.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = (text[:_LEARNED] for text in _joined(columns) if text and not text.isspace())
        kind: Any = TfidfVectorizer  # its stated types know float64 alone
        vectorizer = kind(**_READING, sublinear_tf=True, dtype=np.float32)
        try:
            matrix = vectorizer.fit_transform(_sample(texts, LEARNED_FROM, seed))
        except ValueError as error:
            raise DataError(f"tfidf: {error}; name columns that hold text") from None
        width = min(dimension, matrix.shape[1] - 1, matrix.shape[0])
        svd = TruncatedSVD(width, random_state=seed).fit(matrix) if width >= 1 else None
        return cls(
            vectorizer.get_feature_names_out().tolist(),
            vectorizer.idf_.astype(np.float32),
            None if svd is None else np.ascontiguousarray(svd.components_, np.float32),
            {"dimension": dimension, "seed": seed, "scikit-learn": version("scikit-learn")},
        )

    def encode(self, columns: Sequence[Iterable[str]]) -> np.ndarray:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.preprocessing import normalize

        kind: Any = CountVectorizer  # its stated types know int64 alone
        counter = kind(vocabulary=self.words, dtype=np.float32, **_READING)
        counts = counter.transform(_joined(columns))
        counts.data = (np.log(counts.data) + 1) * self.idf[counts.indices]
        weights: Any = normalize(counts, copy=False)
        return weights.toarray() if self.components is None else weights @ self.components.T

    def saved(self) -> SavedEncoder:
        tensors = {"idf": self.idf}
        if self.components is not None:
            tensors["components"] = self.components
        settings = {"reading": _READING, "learned": self.learned, "words": self.words}
        return SavedEncoder(self.kind, settings, tensors)

    @classmethod
    def restored(cls, saved: SavedEncoder) -> Self:
        words, reading = saved.settings["words"], saved.settings["reading"]
        if reading != _READING:
            raise ValueError(f"words are found by {reading}, here by {_READING}")
        _check_names(words)
        idf, components = saved.tensors["idf"], saved.tensors.get("components")
        for tensor, dimensions in ((idf, 1), (components, 2)):
            if tensor is not None and not (
                tensor.dtype == np.float32
                and tensor.ndim == dimensions
                and tensor.shape[-1] == len(words)
                and np.isfinite(tensor).all()
            ):
                raise ValueError(f"a tensor does not fit {len(words)} words")
        return cls(words, idf, components, dict(saved.settings["learned"]))


@dataclasses.dataclass(frozen=True, eq=False)
class MultiHot(ItemEncoder):
    """One dimension per distinct value of multi-valued columns, 1 where the row has it.

    A value that it has not learned is ignored.

    Attributes:
        labels: number of a column, ``=``, and a value of it; sorted.
        separator: between the values of a cell.
        n_columns: number of columns.
    """

    labels: list[str]
    separator: str
    n_columns: int

    kind = "multi_hot"

    @classmethod
    def learn(cls, columns: Sequence[Iterable[str]], separator: str = " ") -> Self:
        """Collect the values of columns.

        Raises:
            DataError: the columns hold no value.
        """
        labels = sorted(set().union(*_labels(columns, separator)))
        if not labels:
            raise DataError("multi_hot: the columns hold no value")
        return cls(labels, separator, len(columns))

    def encode(self, columns: Sequence[Iterable[str]]) -> np.ndarray:
        if len(columns) != self.n_columns:
            raise DataError(f"multi_hot: {len(columns)} column(s) given, {self.n_columns} learned")
        places = {label: place for place, label in enumerate(self.labels)}
        cells = [
            [places[label] for label in labels if label in places]
            for labels in _labels(columns, self.separator)
        ]
        rows = np.zeros((len(cells), len(places)), dtype=np.float32)
        for row, ones in zip(rows, cells, strict=True):
            row[ones] = 1
        return rows

    def saved(self) -> SavedEncoder:
        return SavedEncoder(self.kind, dataclasses.asdict(self))

    @classmethod
    def restored(cls, saved: SavedEncoder) -> Self:
        made = cls(**saved.settings)
        _check_names(made.labels)
        if not (isinstance(made.separator, str) and isinstance(made.n_columns, int)):
            raise TypeError("separator or n_columns")
        return made


BUILT_IN: dict[str, type[Tfidf] | type[MultiHot]] = {"tfidf": Tfidf, "multi_hot": MultiHot}


def load_encoder(path: str | Path) -> Tfidf | MultiHot:
    """Read a built-in encoder, of either kind; see :meth:`ItemEncoder.load`."""
    return BUILT_IN[read_encoder(Path(path), *BUILT_IN).kind].load(path)


def _check_names(names: Any) -> None:
    """See that words or labels from a file are distinct texts."""
    texts = isinstance(names, list) and {type(name) for name in names} == {str}
    if not texts or len(set(names)) != len(names):
        raise ValueError("the words or values are no distinct texts")


def _joined(columns: Sequence[Iterable[str]]) -> Iterator[str]:
    """The text of each row."""
    return (" ".join(parts) for parts in zip(*columns, strict=True))


def _labels(columns: Sequence[Iterable[str]], separator: str) -> Iterator[list[str]]:
    """The labels of each row, see :class:`MultiHot`."""
    return (
        [f"{n}={value}" for n, part in enumerate(parts) for value in part.split(separator) if value]
        for parts in zip(*columns, strict=True)
    )


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
