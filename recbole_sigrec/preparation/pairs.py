"""User-item pairs on their way from a source to a data set: rows of a temporary database."""

from __future__ import annotations

import contextlib
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from recbole_sigrec.display.progress import working
from recbole_sigrec.errors import DataError, some

_ROWS = 2**14  # rows that are in memory at a time
_CACHE_KB = 4096  # that SQLite may hold of the database, and of what it sorts


class Pairs:
    """Interactions in the order in which they are added; each token has a number, by first use.

    They are rows of a temporary SQLite database on disk (in ``SQLITE_TMPDIR``, else ``TMPDIR``,
    else /var/tmp or /tmp; some 85 bytes for each at the most), which nobody else can open and which
    is gone when this is. Memory is needed for some thousand rows, for each token once, and for a
    count of each user and item; it does not grow with the interactions.

    Args:
        user_tokens, item_tokens: tokens that get the first numbers, with or without interactions.

    Attributes:
        timed: whether the pairs have times.
        labelled: whether the source puts them in parts (0 training, 1 validation, 2 test).
        labels: the parts that it puts some in.

    Every method raises DataError where the database cannot be written, as on a full disk.

    Cost: tens of µs for each pair, from adding it to reading it in its part.
    """

    def __init__(self, user_tokens: Iterable[str] = (), item_tokens: Iterable[str] = ()):
        self._users = {token: n for n, token in enumerate(user_tokens)}
        self._items = {token: n for n, token in enumerate(item_tokens)}
        self.timed = self.labelled = self._added = False
        self.labels: set[int] = set()
        self._degrees = None  # until they are asked for, and after each change
        self._db = sqlite3.connect("", isolation_level=None)
        weakref.finalize(self, self._db.close)
        self._run(f"PRAGMA cache_size = -{_CACHE_KB}")
        self._run("PRAGMA journal_mode = OFF")  # nobody goes on with it after a kill
        self._run("CREATE TABLE pair (n INTEGER PRIMARY KEY, user, item, time REAL, label)")

    @property
    def user_tokens(self) -> list[str]:
        """The token of each user's number."""
        return list(self._users)

    @property
    def item_tokens(self) -> list[str]:
        """The token of each item's number."""
        return list(self._items)

    def add(
        self,
        users: Sequence[str],
        items: Sequence[str],
        times: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        """One batch: tokens [b], and where the source has them times and parts [b]."""
        has = times is not None, labels is not None
        if self._added and has != (self.timed, self.labelled):
            raise ValueError("all batches must have times, or none, and likewise labels")
        self.timed, self.labelled = has
        self._added, self._degrees = True, None
        self.labels |= set() if labels is None else set(np.unique(labels).tolist())
        columns = [
            [self._users.setdefault(token, len(self._users)) for token in users],
            [self._items.setdefault(token, len(self._items)) for token in items],
            [None] * len(users) if times is None else times.tolist(),
            [-1] * len(users) if labels is None else labels.tolist(),
        ]
        with _told():
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO pair (user, item, time, label) VALUES (?, ?, ?, ?)",
                zip(*columns, strict=True),
            )
            self._db.execute("COMMIT")

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The users, the items and the labels (-1: none) of the pairs in order, int64 [b] each."""
        yield from self._select("SELECT user, item, label FROM pair ORDER BY n")

    def degrees(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of each user and of each item, int64 [tokens]."""
        if self._degrees is None:
            counts = [np.zeros(len(known), dtype=np.int64) for known in (self._users, self._items)]
            for columns in self._select("SELECT user, item FROM pair"):
                for count, numbers in zip(counts, columns, strict=True):
                    count += np.bincount(numbers, minlength=len(count))
            self._degrees = counts[0], counts[1]
        return self._degrees

    def counts(self) -> dict[str, int]:
        """Users and items with an interaction, and interactions."""
        users, items = self.degrees()
        return {
            "users": int(np.count_nonzero(users)),
            "items": int(np.count_nonzero(items)),
            "interactions": int(users.sum()),
        }

    def drop_repetitions(self) -> None:
        """Keep each pair once: its earliest by time, else its first.

        Raises:
            DataError: a pair is in two parts of the source's split, so that a model would see in
                training what it is tested on.
        """
        users, items = self.user_tokens, self.item_tokens
        moved = "SELECT user, item FROM pair GROUP BY 1, 2 HAVING MIN(label) < MAX(label)"
        if self.labelled and (found := self._run(moved).fetchall()):
            raise DataError(
                f"the source's split puts the same pair of user and item in two parts: "
                f"{some(f'({users[user]}, {items[item]})' for user, item in found)}. Remove it "
                f"from one of them, or split anew (--split random)"
            )
        self._delete(
            """n IN (SELECT n FROM (
                SELECT n, ROW_NUMBER() OVER (PARTITION BY user, item ORDER BY time, n) AS place
                FROM pair
            ) WHERE place > 1)"""
        )

    def drop_rare(self, k: int) -> bool:
        """Leave out the users, and then the items, with fewer than k pairs; whether any had."""
        rare = "{0} IN (SELECT {0} FROM pair GROUP BY {0} HAVING COUNT(*) < {1})"
        return sum(self._delete(rare.format(side, k)) for side in ("user", "item")) > 0

    def draw_times(self, generator: np.random.Generator) -> None:
        """Give each pair, in their order, a uniform number from [0, 1) in place of its time.

        From then on the pairs count as without times.
        """
        self._db.create_function("draw", 0, generator.random)
        self._run("UPDATE pair SET time = draw()")
        self.timed = False

    def placed(self, per_user: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The users, the items and the places of the pairs in order, int64 [b] each.

        A pair's place is its rank, from 0, by time among its user's pairs or among all; of the same
        time the first added comes first.
        """
        among = "PARTITION BY user" if per_user else ""
        yield from self._select(
            f"""SELECT user, item, place FROM (
                SELECT n, user, item, ROW_NUMBER() OVER ({among} ORDER BY time, n) - 1 AS place
                FROM pair
            ) ORDER BY n"""
        )

    def _run(self, statement: str) -> sqlite3.Cursor:
        with _told(), working("interactions in order"):
            return self._db.execute(statement)

    def _delete(self, condition: str) -> int:
        self._degrees = None
        return self._run(f"DELETE FROM pair WHERE {condition}").rowcount

    def _select(self, query: str) -> Iterator[Any]:
        """The columns of a result of integers, some rows at a time: a tuple of int64 [b]."""
        found = self._run(query)
        while True:
            with _told():
                rows = found.fetchmany(_ROWS)
            if not rows:
                return
            yield tuple(np.array(rows, dtype=np.int64).T)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What SQLite raises where it cannot write, as an error that names the remedy."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if not any(words in str(error) for words in ("is full", "I/O error", "unable to open")):
            raise
        raise DataError(
            f"interactions could not be kept in a temporary file, in SQLITE_TMPDIR, TMPDIR, "
            f"/var/tmp or /tmp: {error}. Make room there (some 100 bytes for each), or let the "
            f"environment variable SQLITE_TMPDIR name another folder"
        ) from None
