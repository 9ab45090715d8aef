"""Interactions in MMRec's layout: an ``.inter`` file with untyped columns and its own split."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd

from recbole_sigrec.errors import DataError, did_you_mean, some
from recbole_sigrec.tables.delimited import MOST_HEADER, check_columns

USER_COLUMNS = ("userID", "user_id", "user", "uid")
ITEM_COLUMNS = ("itemID", "item_id", "item", "iid")
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "spaces"}
SPLITS = {0: "training", 1: "validation", 2: "test"}


def header(path: Path, separator: str = "\t") -> list[str]:
    """The column names of an atomic or MMRec file.

    Raises:
        DataError: the file cannot be read, is empty, not plain UTF-8, or its header is longer than
            ``MOST_HEADER`` characters.
    """
    try:
        with open(path, encoding="utf-8") as file:
            line = file.readline(MOST_HEADER + 1).rstrip("\r\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from None
    if line.startswith("\ufeff"):
        raise DataError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
    if "\0" in line:
        raise DataError(f"{path} has NUL bytes, and so is no text in UTF-8; save it as such")
    if len(line) > MOST_HEADER:
        raise DataError(
            f"{path} has more than {MOST_HEADER:,} characters in its first line, the limit of a "
            f"header; its first line must name the columns"
        )
    if not line:
        raise DataError(f"{path} is empty; its first line must name the columns")
    return line.split(separator)


def separator_hint(columns: list[str]) -> str:
    """What to say of a header that is one column, because something else separates it."""
    other = next((sign for sign in _SEPARATORS if sign in columns[0]), None)
    if len(columns) > 1 or other is None:
        return ""
    return (
        f". {_SEPARATORS[other].capitalize()} separate it: set field_separator: "
        f"{json.dumps(other)}, for all files of the data set"
    )


def is_typed(columns: list[str]) -> bool:
    """Whether a header is RecBole's (``user_id:token``) rather than MMRec's (``userID``)."""
    return any(":" in column for column in columns)


def read_split_interactions(
    path: Path, user_column: str, item_column: str, split_column: str, separator: str = "\t"
) -> tuple[pd.DataFrame, list[int]]:
    """Read interactions whose split is a column of 0 (training), 1 (validation), 2 (test).

    Args:
        path: the ``.inter`` file.
        user_column, item_column: preferred names; ``userID``, ``user_id``, ``user``, ``uid`` (and
            likewise for items) are tried after them.
        split_column: name of the split's column, ``x_label`` in MMRec.

    Returns:
        A frame with the string columns ``user`` and ``item``, ordered training, validation, test,
        and the three sizes.

    Raises:
        DataError: a column is missing, is there twice or has an empty value, a label is not 0,
            1 or 2, a pair occurs twice (in one part or in two), or the training part is empty.
    """
    columns = header(path, separator)
    user = pick_column(path, columns, (user_column, *USER_COLUMNS), "user")
    item = pick_column(path, columns, (item_column, *ITEM_COLUMNS), "item")
    if split_column not in columns:
        raise DataError(
            f"{path} has no column [{split_column}] (it has: {', '.join(columns)})."
            f"{did_you_mean(split_column, columns)} Add it (0 training, 1 validation, 2 test), "
            f"name it with split_field, or type the header for RecBole (user_id:token …) to have "
            f"the interactions split by eval_args"
        )
    check_columns(path, [split_column], columns)
    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            usecols=[user, item, split_column],
            dtype=str,
            keep_default_na=False,
            encoding="utf-8",
            quoting=csv.QUOTE_NONE,  # a quote that begins two tokens would swallow what is between
        )
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"{path}: its first row has more values than its header; mend the header")
    if frame.empty:
        raise DataError(f"{path} holds no interactions, only a header")
    frame = frame.rename(columns={user: "user", item: "item", split_column: "split"})
    for column, name in (("user", user), ("item", item)):
        blank = frame.index[frame[column].str.strip() == ""]
        if len(blank):
            raise DataError(f"{path}: column [{name}] is empty on line(s) {some(blank + 2)}")
    labels = pd.to_numeric(frame["split"], errors="coerce")
    wrong = frame.index[~labels.isin(list(SPLITS))]
    if len(wrong):
        raise DataError(
            f"{path}: column [{split_column}] must be 0, 1 or 2; it is "
            f"[{frame['split'][wrong[0]]}] on line {wrong[0] + 2} ({len(wrong)} such line(s))"
        )
    frame["split"] = labels.astype(int)
    _refuse_duplicates(path, frame)
    sizes = [int((frame["split"] == label).sum()) for label in SPLITS]
    if not sizes[0]:
        raise DataError(f"{path}: no interaction has {split_column} 0, the training part")
    frame = frame.sort_values("split", kind="stable", ignore_index=True)
    return frame[["user", "item"]], sizes


def pick_column(path: Path, columns: list[str], names: tuple[str, ...], what: str) -> str:
    """The first of ``names`` that is among a file's columns; ``what`` is user or item.

    Raises:
        DataError: none is, or it is there twice.
    """
    for name in names:
        if name in columns:
            check_columns(path, [name], columns)
            return name
    raise DataError(
        f"{path} has no {what} column: it has {', '.join(columns)}; expected one of "
        f"{', '.join(dict.fromkeys(names))}, or name it with {what.upper()}_ID_FIELD"
        f"{separator_hint(columns)}"
    )


def _refuse_duplicates(path: Path, frame: pd.DataFrame) -> None:
    repeated = frame[frame.duplicated(["user", "item"], keep=False)]
    if repeated.empty:
        return
    first = repeated.iloc[0]
    same = repeated[(repeated["user"] == first["user"]) & (repeated["item"] == first["item"])]
    parts = " and ".join(dict.fromkeys(SPLITS[label] for label in same["split"]))
    n = len(repeated) - len(repeated.drop_duplicates(["user", "item"]))
    raise DataError(
        f"{path}: user {first['user']} and item {first['item']} occur {len(same)} times, in "
        f"{parts} (lines {some(same.index + 2)}); {n} line(s) repeat a pair. Remove them: a pair "
        f"in two parts lets the model see what it is tested on"
    )
