"""Reading files of one record a line, plain or gzipped, skipping the few that are broken."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recbole_sigrec.display.progress import progress
from recbole_sigrec.errors import DataError

LIMIT = 0.01
"""The share of a file's records that may be skipped."""


class Unusable(ValueError):
    """A record that cannot be used; its message is the reason, the same for all of a kind."""


class Skipped:
    """Counts the records of a file, and those skipped, by reason.

    Attributes:
        reasons: reason → records.
    """

    def __init__(self, path: Path):
        self.path = path
        self.reasons: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._records = 0

    def count(self, line: int, reason: str | None = None) -> None:
        """One record, usable unless a reason is given."""
        self._records += 1
        if reason is not None:
            self.reasons[reason] += 1
            self._first.setdefault(reason, line)

    def check(self) -> None:
        """See that few were skipped.

        Raises:
            DataError: more than ``LIMIT`` of them were.
        """
        broken = sum(self.reasons.values())
        if broken > LIMIT * self._records:
            told = ", ".join(
                f"{n} {reason} (first: line {self._first[reason]})"
                for reason, n in self.reasons.items()
            )
            raise DataError(
                f"{self.path}: {broken} of {self._records} records cannot be used, more than "
                f"{LIMIT:.0%}: {told}. See whether it is the right file, and whole"
            )


def read_records(path: Path, parse: Callable[[bytes], Any], skipped: Skipped) -> Iterator[Any]:
    """What ``parse`` makes of each line that is not blank; ``.gz`` is unpacked.

    A line that ``parse`` finds :class:`Unusable` is counted. A bar shows the progress where there
    is a terminal.

    Raises:
        DataError: the file is missing, its compressed data is damaged or cut short, or, at the end,
            too many lines were unusable.
    """
    number = 0
    try:
        size = path.stat().st_size
        with (
            open(path, "rb") as raw,
            gzip.open(raw) if path.suffix == ".gz" else raw as lines,
            progress(path.name, unit="B", total=size) as bar,
        ):
            for number, line in enumerate(lines, 1):
                bar.update(raw.tell() - bar.n)
                if not line.strip():
                    continue
                try:
                    record = parse(line)
                except Unusable as error:
                    skipped.count(number, str(error))
                else:
                    skipped.count(number)
                    yield record
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is damaged or cut short after line {number} ({error}); fetch it again"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    skipped.check()


def json_object(line: bytes) -> dict[str, Any]:
    """A line that holds one JSON object.

    Raises:
        Unusable: it does not.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: no JSON, or no UTF-8
        record = None
    if not isinstance(record, dict):
        raise Unusable("not a JSON object")
    return record
