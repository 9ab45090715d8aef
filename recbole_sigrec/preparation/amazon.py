"""The raw files of Amazon 2014 (McAuley et al., SIGIR 2015): reviews, metadata, image features."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_sigrec.display.progress import progress
from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.pairs import Pairs
from recbole_sigrec.tables.records import Skipped, Unusable, json_object, read_records
from recbole_sigrec.tables.tokens import is_token

IMAGE_DIMENSION = 4096
_BATCH = 2**14  # reviews held as text at a time
_IMAGES = 256  # image records read at a time: 4 MB


def read_reviews(path: Path) -> tuple[Pairs, Skipped]:
    """``reviews_X_5.json.gz``: one JSON object a line; who reviewed what.

    A record is skipped, and counted, if it is no JSON object, lacks ``reviewerID`` or ``asin`` as
    usable text, or has a rating (``overall``) that is not from 1 to 5.

    Raises:
        DataError: the file is missing, damaged or cut short, or too much was skipped.
    """
    pairs, skipped = Pairs(), Skipped(path)
    users, items = [], []
    for user, item in read_records(path, _review, skipped):
        users.append(user)
        items.append(item)
        if len(users) == _BATCH:
            pairs.add(users, items)
            users, items = [], []
    pairs.add(users, items)
    return pairs, skipped


def _review(line: bytes) -> tuple[str, str]:
    record = json_object(line)
    user, item, rating = (record.get(name) for name in ("reviewerID", "asin", "overall"))
    if not (is_token(user) and is_token(item)):
        raise Unusable("without a usable reviewerID and asin")
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not 1 <= rating <= 5:
        raise Unusable("with a rating that is not from 1 to 5")
    return str(user), str(item)


def read_texts(path: Path, items: pd.Index, skipped: Skipped) -> Iterator[tuple[str, str]]:
    """``meta_X.json.gz``: the token and text of those of the items that it has, in its order.

    A line is JSON or a Python literal (which is parsed, never evaluated). The text is title, brand,
    categories and description, joined by spaces; of an item that comes twice the first counts.

    Args:
        path: the file.
        items: the items wanted.
        skipped: counts the lines that are neither, and those without an ``asin``.

    Raises:
        DataError: the file is missing, damaged or cut short, or too much was skipped.
    """
    wanted = set(items)
    for asin, text in read_records(path, _text, skipped):
        if asin in wanted:
            wanted.remove(asin)
            yield asin, text


def _text(line: bytes) -> tuple[str, str]:
    try:
        record = json_object(line)
    except Unusable:
        record = _literal(line)
    if not isinstance(record.get("asin"), str):
        raise Unusable("without an asin")
    words = [record.get("title"), record.get("brand"), *_flat(record.get("categories"))]
    words.append(record.get("description"))
    text = " ".join(word for word in words if isinstance(word, str))
    return record["asin"], " ".join(text.split())


def _literal(line: bytes) -> dict[str, Any]:
    try:
        record = ast.literal_eval(line.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        # all of these come from literal_eval; TypeError: a dict's key is a list
        record = None
    if not isinstance(record, dict):
        raise Unusable("neither a JSON object nor a Python dict")
    return record


def _flat(value: object) -> Iterator[Any]:
    """The entries of a list of lists, or of a list, in order."""
    for part in value if isinstance(value, list) else ():
        yield from part if isinstance(part, list) else (part,)


def image_blocks(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """``image_features_X.b``: records of a 10-byte ASIN and 4096 little-endian float32.

    Yields:
        (tokens [b], rows float32 [b, 4096]), a few MB at a time.

    Raises:
        DataError: the file is missing, or does not hold whole records.
    """
    record = np.dtype([("asin", "S10"), ("row", "<f4", IMAGE_DIMENSION)])
    try:
        size = path.stat().st_size
        if size == 0 or size % record.itemsize:
            raise DataError(
                f"{path} has {size} bytes, not a multiple of {record.itemsize} (an ASIN of 10 "
                f"bytes and {IMAGE_DIMENSION} numbers of 4); it is cut short or another file: "
                f"fetch it again"
            )
        with (
            open(path, "rb") as file,
            progress(path.name, unit="B", total=size) as bar,
        ):
            for data in iter(partial(file.read, _IMAGES * record.itemsize), b""):
                records = np.frombuffer(data, record)
                yield np.char.decode(records["asin"], "latin-1"), records["row"]
                bar.update(len(data))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
