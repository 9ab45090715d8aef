"""A table of interactions with named columns: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_sigrec.errors import DataError, some
from recbole_sigrec.preparation.build import Source
from recbole_sigrec.preparation.pairs import Pairs
from recbole_sigrec.tables.delimited import TextForm
from recbole_sigrec.tables.frames import ROWS, frames, table_files
from recbole_sigrec.tables.records import Skipped
from recbole_sigrec.tables.tokens import LONGEST, is_token

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
        time_format: how other times are written, in the directives of ``strptime``, the year
            among them.
        split: words of ``PARTS``.
        min_rating: the lowest rating that counts as an interaction.
        rating_range: (lowest, highest) possible rating; another is refused.
        separator, encoding: of a table of text; see :class:`TextForm`.
    """

    user: str
    item: str
    rating: str | None = None
    timestamp: str | None = None
    split: str | None = None
    min_rating: float | None = None
    rating_range: tuple[float, float] | None = None
    time_format: str | None = None
    separator: str | None = None
    encoding: str | None = None

    def __post_init__(self):
        if self.rating is None and (self.min_rating, self.rating_range) != (None, None):
            raise DataError("min_rating and rating_range need a column; name it with --rating")
        if self.time_format is not None:
            if self.timestamp is None:
                raise DataError("time_format needs a column of times; name it with --timestamp")
            _check_format(self.time_format)

    def names(self) -> list[str]:
        """The columns to read."""
        every = (self.user, self.item, self.rating, self.timestamp, self.split)
        return list(dict.fromkeys(name for name in every if name is not None))


def read_table(path: str | Path, columns: Columns) -> Source:
    """Read a table's interactions in batches of rows; of features it has none.

    The kind of file is told by its suffix: ``.csv`` (quoted as usual), ``.tsv`` (never quoted),
    ``.jsonl`` (broken lines are skipped, if they are few), each also with ``.gz``; ``.parquet``,
    or a folder of such parts. With a separator any other suffix is text without quotes.

    Args:
        path: the file.
        columns: which columns hold what.

    Raises:
        DataError: a column is missing; or a value cannot be used: an id that is empty or holds
            control characters, a rating, time or part that is none. The row is named.

    Memory: a batch, and each token once.
    """
    path = Path(path)
    form, files = TextForm(columns.separator, columns.encoding), table_files(path)
    pairs, skipped, row, low = Pairs(), Skipped(path), 1, 0
    are_dates = True if columns.time_format else None
    for frame in frames(path, columns.names(), skipped, ROWS, form):
        frame.index = pd.RangeIndex(row, row + len(frame))
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
            None if are_dates is None else _times(path, frame, columns, are_dates),
            None if columns.split is None else _labels(path, frame, columns.split),
        )
    if row == 1:
        raise DataError(f"{path}: the training part would be empty (0 interactions in all)")
    if low:
        skipped.reasons[f"rated below {columns.min_rating:g}"] = low
    about = {"format": "table", "columns": dataclasses.asdict(columns)}
    return Source(pairs, {}, files, about, {path.name: skipped.reasons})


def _refuse(path: Path, values: pd.Series, bad: np.ndarray, must: str) -> None:
    """Raise for the rows where ``bad`` is true, naming the first."""
    if bad.any():
        rows = values.index[bad]
        raise DataError(
            f"{path}: column [{values.name}] is [{repr(values[rows[0]])[:80]}] in row {rows[0]} "
            f"(the first after any header is 1); {must}. Such rows of this batch: {some(rows)}"
        )


def _check_ids(path: Path, frame: pd.DataFrame, columns: Columns) -> None:
    for name in (columns.user, columns.item):
        bad = ~np.fromiter(map(is_token, frame[name]), bool, len(frame))
        _refuse(
            path,
            frame[name],
            bad,
            f"an id must be text or an integer, not empty, of up to {LONGEST} characters, without "
            f"tabs, line ends or other control characters, and without a space at either end",
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


_WITH_YEAR = set("YyGcx")  # the directives of strptime


def _check_format(text: str) -> None:
    """See that pandas takes a format of times, that it has a year, and that %p has an effect."""
    directives = set(re.findall("%(.)", text))
    try:
        pd.to_datetime(pd.Series(["x"]), format=text, errors="coerce")
        if "p" in directives and "I" not in directives:
            told = "%p counts only beside %I, the hour of 12"
        elif not directives & _WITH_YEAR:
            told = "it has no year, %Y or %y, without which times of two years are as of one"
        else:
            return
    except ValueError as error:
        told = str(error)
    raise DataError(
        f"time_format [{text}] cannot be used ({told}); write it as %d.%m.%Y %H:%M for 23.07.2014 "
        f"10:00"
    )


def _times(path: Path, frame: pd.DataFrame, columns: Columns, are_dates: bool) -> np.ndarray:
    """Numbers as they are, times as seconds since 1970."""
    values = frame[columns.timestamp]
    times = _numbers(values)
    if are_dates:
        how = columns.time_format or "ISO8601"
        dates = pd.to_datetime(values, errors="coerce", utc=True, format=how)
        times = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy()
    must = (
        f"it must be a time as {columns.time_format} says"
        if columns.time_format
        else "it must be a number or a time as 2014-07-23T10:00:00, in all rows alike; say with "
        "--time_format how other times are written, as --time_format='%d.%m.%Y %H:%M'"
    )
    _refuse(path, values, ~np.isfinite(times), must)
    return times


def _labels(path: Path, frame: pd.DataFrame, name: str) -> np.ndarray:
    parts = frame[name].astype(str).str.lower().map(PARTS)
    must = f"a part must be one of {', '.join(PARTS)}"
    _refuse(path, frame[name], parts.isna().to_numpy(), must)
    return parts.to_numpy(np.int8)
