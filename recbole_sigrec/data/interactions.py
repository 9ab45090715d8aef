"""Interactions in MMRec's layout: an ``.inter`` file with untyped columns and its own split."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from recbole_sigrec.errors import DataError, did_you_mean, some

USER_COLUMNS = ("userID", "user_id", "user", "uid")
ITEM_COLUMNS = ("itemID", "item_id", "item", "iid")
SPLITS = {0: "training", 1: "validation", 2: "test"}


def header(path: Path, separator: str = "\t") -> list[str]:
    """The column names of an atomic or MMRec file.

    Raises:
        DataError: the file is empty, or not plain UTF-8.
    """
    try:
        with open(path, encoding="utf-8") as file:
            line = file.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from None
    if line.startswith("\ufeff"):
        raise DataError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
    if not line:
        raise DataError(f"{path} is empty; its first line must name the columns")
    return line.split(separator)


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
        DataError: a column is missing or has an empty value, a label is not 0, 1 or 2, a pair
            occurs twice (in one part or in two), or a part is empty.
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
    for (label, name), size in zip(SPLITS.items(), sizes, strict=True):
        if size == 0:
            raise DataError(f"{path}: no interaction has {split_column} {label}, the {name} part")
    frame = frame.sort_values("split", kind="stable", ignore_index=True)
    return frame[["user", "item"]], sizes


def pick_column(path: Path, columns: list[str], names: tuple[str, ...], what: str) -> str:
    """The first of ``names`` that is among a file's columns; ``what`` is user or item.

    Raises:
        DataError: none is.
    """
    for name in names:
        if name in columns:
            return name
    raise DataError(
        f"{path} has no {what} column: it has {', '.join(columns)}; expected one of "
        f"{', '.join(dict.fromkeys(names))}, or name it with {what.upper()}_ID_FIELD"
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
