"""User-item pairs on their way from a source to a data set: rows of a temporary database."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from recbole_sigrec.errors import DataError, some

_NO_TOKEN = re.compile(
    "^$|^\\s|\\s$|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)  # tabs and line ends separate, the reader strips, and a lone surrogate is no UTF-8
_ROWS = 2**14  # rows that are in memory at a time
_CACHE_KB = 4096  # that SQLite may hold of the database, and of what it sorts


def is_token(value) -> bool:
    """Whether a value can be a user's or item's token in a data-set folder, kept as it is.

    It cannot if it is empty, is no text, holds a tab, line end or other control character, or
    begins or ends with a space.
    """
    return isinstance(value, str) and _NO_TOKEN.search(value) is None


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

    Every method raises DataError where the database cannot be written, as on a full disk.

    Cost: tens of µs for each pair, from adding it to reading it in its part.
    """

    def __init__(self, user_tokens: Iterable[str] = (), item_tokens: Iterable[str] = ()):
        self._users = {token: n for n, token in enumerate(user_tokens)}
        self._items = {token: n for n, token in enumerate(item_tokens)}
        self.timed = self.labelled = self._added = False
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
        columns = [_numbers(users, self._users), _numbers(items, self._items)]
        for values in (times, labels):
            columns.append([None] * len(users) if values is None else values.tolist())
        self._insert("pair (user, item, time, label)", zip(*columns, strict=True))

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The users, the items and the labels (-1: none) of the pairs in order, int64 [b] each."""
        yield from self._integers("SELECT user, item, ifnull(label, -1) FROM pair ORDER BY n")

    def degrees(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of each user and of each item, int64 [tokens]."""
        if self._degrees is None:
            counts = [np.zeros(len(known), dtype=np.int64) for known in (self._users, self._items)]
            for columns in self._integers("SELECT user, item FROM pair"):
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
        self._run("DROP TABLE IF EXISTS again")
        self._run(
            """CREATE TABLE again AS SELECT n, moved FROM (
                SELECT n, ROW_NUMBER() OVER same > 1 AS repeated,
                    label IS NOT LAG(label, 1, label) OVER same AS moved
                FROM pair WINDOW same AS (PARTITION BY user, item ORDER BY time, n)
            ) WHERE repeated ORDER BY n"""
        )
        users, items = self.user_tokens, self.item_tokens
        moved = "SELECT user, item FROM pair WHERE n IN (SELECT n FROM again WHERE moved)"
        if self.labelled and (found := self._run(moved).fetchall()):
            raise DataError(
                f"the source's split puts the same pair of user and item in two parts: "
                f"{some(f'({users[user]}, {items[item]})' for user, item in found)}. Remove it "
                f"from one of them, or split anew (--split random)"
            )
        self._run("CREATE UNIQUE INDEX repeated ON again (n)")
        self._run("DELETE FROM pair WHERE EXISTS (SELECT 1 FROM again WHERE again.n = pair.n)")
        self._run("DROP TABLE again")
        self._degrees = None

    def drop(self, users: np.ndarray, items: np.ndarray) -> None:
        """Leave out all pairs of some users and of some items, given by number."""
        for side, numbers in (("user", users), ("item", items)):
            self._run("CREATE TABLE gone (number INTEGER PRIMARY KEY)")
            self._insert("gone (number)", ((number,) for number in numbers.tolist()))
            self._run(f"DELETE FROM pair WHERE {side} IN (SELECT number FROM gone)")
            self._run("DROP TABLE gone")
        self._degrees = None

    def draw_times(self, generator: np.random.Generator) -> None:
        """Give each pair, in their order, a uniform number from [0, 1) in place of its time.

        From then on the pairs count as without times.
        """
        self._run("CREATE TABLE drawn AS SELECT * FROM pair WHERE FALSE")
        for rows in self._select("SELECT n, user, item, label FROM pair ORDER BY n"):
            times = generator.random(len(rows)).tolist()
            drawn = ((time, *row) for time, row in zip(times, rows, strict=True))
            self._insert("drawn (time, n, user, item, label)", drawn)
        self._run("DROP TABLE pair")
        self._run("ALTER TABLE drawn RENAME TO pair")
        self.timed = False

    def placed(self, per_user: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The users, the items and the places of the pairs in order, int64 [b] each.

        A pair's place is its rank, from 0, by time among its user's pairs or among all; of the same
        time the first added comes first.
        """
        among = "PARTITION BY user" if per_user else ""
        yield from self._integers(
            f"""SELECT user, item, place FROM (
                SELECT n, user, item, ROW_NUMBER() OVER ({among} ORDER BY time, n) - 1 AS place
                FROM pair
            ) ORDER BY n"""
        )

    def _insert(self, into: str, rows: Iterable[tuple]) -> None:
        values = ", ".join("?" * (into.count(",") + 1))
        with _told():
            self._db.execute("BEGIN")
            self._db.executemany(f"INSERT INTO {into} VALUES ({values})", rows)
            self._db.execute("COMMIT")

    def _run(self, statement: str) -> sqlite3.Cursor:
        with _told():
            return self._db.execute(statement)

    def _integers(self, query: str) -> Iterator[tuple[np.ndarray, ...]]:
        """The columns of a result of integers, some rows at a time, int64."""
        for rows in self._select(query):
            values = np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * len(rows[0]))
            yield tuple(values.reshape(len(rows), -1).T)

    def _select(self, query: str) -> Iterator[list[tuple]]:
        """The rows of a result, some at a time."""
        found = self._run(query)
        while True:
            with _told():
                rows = found.fetchmany(_ROWS)
            if not rows:
                return
            yield rows


@contextlib.contextmanager
def _told():
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


def _numbers(tokens: Sequence[str], known: dict[str, int]) -> list[int]:
    """The number of each token; a new one gets the next."""
    return [known.setdefault(token, len(known)) for token in tokens]
