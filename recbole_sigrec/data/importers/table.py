"""A table of interactions with named columns: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import dataclasses
import math
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_sigrec.data.build import Source
from recbole_sigrec.data.pairs import Pairs, is_token
from recbole_sigrec.data.records import Skipped, json_object, read_records
from recbole_sigrec.errors import DataError, SIGRecError, did_you_mean, some

ROWS = 2**13
"""Rows read at a time; all their columns are, so that few long rows are not too much."""

PARTS = {
    **dict.fromkeys(("0", "train", "training"), 0),
    **dict.fromkeys(("1", "valid", "val", "validation", "dev"), 1),
    **dict.fromkeys(("2", "test", "tst"), 2),
}
"""What a split column may say, in any case → the part."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of a table's columns, and what rows of them are kept.

    Attributes:
        user, item: the ids, kept as text.
        rating: numbers; with ``min_rating``, rows below it are left out.
        timestamp: numbers or ISO 8601 times, for temporal splits.
        split: words of ``PARTS``.
        min_rating: the lowest rating that counts as an interaction.
        rating_range: (lowest, highest) possible rating; another is refused.
    """

    user: str
    item: str
    rating: str | None = None
    timestamp: str | None = None
    split: str | None = None
    min_rating: float | None = None
    rating_range: tuple[float, float] | None = None

    def __post_init__(self):
        if self.rating is None and (self.min_rating, self.rating_range) != (None, None):
            raise DataError("min_rating and rating_range need a column; name it with --rating")

    def names(self) -> list[str]:
        """The columns to read."""
        every = (self.user, self.item, self.rating, self.timestamp, self.split)
        return list(dict.fromkeys(name for name in every if name is not None))


def read_table(path: str | Path, columns: Columns, separator: str | None = None) -> Source:
    """Read a table's interactions in batches of rows; of features it has none.

    The kind of file is told by its suffix: ``.csv`` (quoted as usual), ``.tsv`` (never quoted),
    ``.jsonl`` (broken lines are skipped, if they are few), each also with ``.gz``; ``.parquet``.

    Args:
        path: the file.
        columns: which columns hold what.
        separator: reads any other suffix as text without quotes, with this separator.

    Raises:
        DataError: a column is missing; or a value cannot be used: an id that is empty or holds
            control characters, a rating, time or part that is none. The row is named.

    Memory: a batch, and each token once.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; name the table of interactions")
    pairs, skipped, row, low = Pairs(), Skipped(path), 1, 0
    are_dates = None
    for frame in frames(path, columns.names(), skipped, ROWS, separator):
        frame.index = range(row, row + len(frame))
        row += len(frame)
        _check_ids(path, frame, columns)
        if columns.timestamp is not None and are_dates is None:  # one kind in the whole file
            are_dates = not np.isfinite(_numbers(frame[columns.timestamp])).any()
        if columns.rating is not None:
            keep = _rated(path, frame, columns)
            low += int((~keep).sum())
            frame = frame[keep]
        pairs.add(
            frame[columns.user].tolist(),
            frame[columns.item].tolist(),
            None if are_dates is None else _times(path, frame[columns.timestamp], are_dates),
            None if columns.split is None else _labels(path, frame, columns.split),
        )
    if low:
        skipped.reasons[f"rated below {columns.min_rating:g}"] = low
    about = {"format": "table", "columns": dataclasses.asdict(columns)}
    return Source(pairs, {}, [path], about, {path.name: skipped.reasons})


# ---- batches of rows -----------------------------------------------------------------------------


def frames(
    path: Path, names: list[str], skipped: Skipped, rows: int, separator: str | None = None
) -> Iterator[pd.DataFrame]:
    """The named columns of a table in batches, see :func:`read_table`.

    Text is str, a missing value is "". Of JSON lines integers are text too, and other values as
    they are; a column may be missing in some of the lines, and is then "" there.

    Args:
        skipped: counts the lines of JSON that are broken.
        rows: of a batch, at most.

    Raises:
        DataError: the file cannot be read, lacks a column, or has too many broken lines.
    """
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if separator is not None:
        return _text_frames(path, names, rows, separator, csv.QUOTE_NONE)
    if kind == ".csv":
        return _text_frames(path, names, rows, ",", csv.QUOTE_MINIMAL)
    if kind == ".tsv":
        return _text_frames(path, names, rows, "\t", csv.QUOTE_NONE)
    if kind in (".jsonl", ".ndjson"):
        return _json_frames(path, names, rows, skipped)
    if kind == ".parquet" and path.suffix != ".gz":
        return _parquet_frames(path, names, rows)
    raise DataError(
        f"{path} has the suffix [{path.suffix}]; a table is .csv, .tsv or .jsonl (also with .gz), "
        f"or .parquet"
    )


def _check_columns(path: Path, names: list[str], has: list[str]) -> None:
    for name in names:
        if name not in has:
            raise DataError(
                f"{path} has no column [{name}].{did_you_mean(name, has)} It has: {', '.join(has)}"
            )


def _text_frames(
    path: Path, names: list[str], rows: int, separator: str, quoting: int
) -> Iterator[pd.DataFrame]:
    how = {"sep": separator, "quoting": quoting, "dtype": str, "encoding": "utf-8-sig"}
    try:
        _check_columns(path, names, list(pd.read_csv(path, nrows=0, **how).columns))
        # All columns, since with some of them (usecols) pandas lets a line have too many values.
        with pd.read_csv(path, chunksize=rows, keep_default_na=False, **how) as batches:
            for frame in batches:
                if not isinstance(frame.index, pd.RangeIndex):
                    raise DataError(f"{path}: its first row has more values than its header")
                yield frame[names]
    except DataError:
        raise
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({error}); fetch it again") from None
    except (ValueError, OSError) as error:  # pandas' ParserError, UnicodeDecodeError, gzip's
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def _json_frames(
    path: Path, names: list[str], rows: int, skipped: Skipped
) -> Iterator[pd.DataFrame]:
    records = read_records(path, json_object, skipped)
    has: set[str] = set()
    while batch := list(islice(records, rows)):
        if not has.issuperset(names):
            has.update(*batch)
        if not has.issuperset(names):  # then one of the later lines must have it
            for record in read_records(path, json_object, Skipped(path)):
                has.update(record)
            _check_columns(path, names, sorted(has))
        columns = {name: [_plain(record.get(name)) for record in batch] for name in names}
        yield pd.DataFrame(columns, dtype=object)


def _plain(value):
    """A JSON value as its text, if it is text or a number that is written but one way."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return "" if value is None else value


def _parquet_frames(path: Path, names: list[str], rows: int) -> Iterator[pd.DataFrame]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise SIGRecError(
            f'{path}: Parquet needs pyarrow; pip install "recbole_sigrec[parquet]"'
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, names, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=rows, columns=names):
                columns = {}
                for name in names:
                    column = batch.column(name)
                    if arrow.types.is_dictionary(column.type):  # pandas' categories
                        column = column.dictionary_decode()
                    if arrow.types.is_integer(column.type):  # with a null, pandas makes it float
                        column = column.cast(arrow.string())
                    columns[name] = column.to_pandas().fillna("")
                yield pd.DataFrame(columns).astype(object)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None


# ---- values --------------------------------------------------------------------------------------


def _refuse(path: Path, values: pd.Series, bad: np.ndarray, must: str) -> None:
    """Raise for the rows where ``bad`` is true, naming the first."""
    if bad.any():
        rows = values.index[bad]
        raise DataError(
            f"{path}: column [{values.name}] is [{values[rows[0]]!r}] in row {rows[0]} (the first "
            f"after any header is 1); {must}. Such rows of this batch: {some(rows)}"
        )


def _check_ids(path: Path, frame: pd.DataFrame, columns: Columns) -> None:
    for name in (columns.user, columns.item):
        bad = ~np.fromiter(map(is_token, frame[name]), bool, len(frame))
        _refuse(
            path,
            frame[name],
            bad,
            "an id must be text or an integer, not empty, without tabs, line ends or other control "
            "characters, and without a space at either end",
        )


def _rated(path: Path, frame: pd.DataFrame, columns: Columns) -> np.ndarray:
    """Which rows' ratings reach ``min_rating``."""
    ratings = _numbers(frame[columns.rating])
    low, high = columns.rating_range or (-math.inf, math.inf)
    bad = ~np.isfinite(ratings) | (ratings < low) | (ratings > high)
    must = "it must be a number"
    if columns.rating_range is not None:
        must += f" from {low:g} to {high:g}"
    _refuse(path, frame[columns.rating], bad, must)
    return ratings >= (-math.inf if columns.min_rating is None else columns.min_rating)


def _numbers(values: pd.Series) -> np.ndarray:
    """The values as float64, NaN where one is no number."""
    return pd.to_numeric(values, errors="coerce").to_numpy(np.float64)


def _times(path: Path, values: pd.Series, are_dates: bool) -> np.ndarray:
    """Numbers as they are, ISO 8601 times as seconds since 1970."""
    times = _numbers(values)
    if are_dates:
        dates = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
        times = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy()
    must = "it must be a number or a time as 2014-07-23T10:00:00, in all rows alike"
    _refuse(path, values, ~np.isfinite(times), must)
    return times


def _labels(path: Path, frame: pd.DataFrame, name: str) -> np.ndarray:
    parts = frame[name].astype(str).str.lower().map(PARTS)
    must = f"a part must be one of {', '.join(PARTS)}"
    _refuse(path, frame[name], parts.isna().to_numpy(), must)
    return parts.to_numpy(np.int8)
