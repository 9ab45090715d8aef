"""Tokens and the rows that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recbole_sigrec.errors import DataError, did_you_mean, some

_SHOWN = 100  # characters of a token in a message


def several(given: Any, what: str) -> list[str]:
    """Tokens as a list of texts; a text or a number is one token.

    Raises:
        DataError: it is neither a token nor several.
    """
    if isinstance(given, str | int | np.integer):
        return [str(given)]
    if not isinstance(given, Iterable) or isinstance(given, Mapping | bytes):
        raise DataError(f"{what} = [{given}]: give a token, or a list of tokens")
    return [str(token) for token in given]


class UnknownTokens(DataError):
    """Tokens that nobody knows. A similar one is sought when the message is read: that takes long.

    Attributes:
        told: the message without it.
    """

    def __init__(self, kind: str, unknown: list[str], names: np.ndarray):
        self.told = f"unknown {kind}(s): {some(unknown)}"
        super().__init__(self.told)
        self._unknown, self._names = unknown, names

    def __str__(self) -> str:
        near = ""
        if len(self._unknown) == 1:
            near = did_you_mean(self._unknown[0], self._names[:10_000])
        return f"{self.told}.{near}"


class Tokens:
    """The tokens of users or items, in the order of their rows.

    Args:
        kind: ``user`` or ``item``, for messages.
        tokens: distinct.
    """

    def __init__(self, kind: str, tokens: Sequence[str]):
        self.kind = kind
        self.names = np.array([*tokens, None], dtype=object)[:-1]  # None: keeps it an array of str
        self.rows = {token: row for row, token in enumerate(tokens)}

    def __len__(self) -> int:
        return len(self.names)

    def find(self, tokens: Any) -> np.ndarray:
        """Rows int64 [n] of tokens; numbers are taken as their texts.

        Raises:
            UnknownTokens: some are unknown; they are named.
        """
        given = several(tokens, f"{self.kind}s")
        rows = np.fromiter((self.rows.get(token, -1) for token in given), np.int64, len(given))
        if len(rows) and rows.min() < 0:
            unknown = [given[place][:_SHOWN] for place in np.flatnonzero(rows < 0)]
            raise UnknownTokens(self.kind, unknown, self.names)
        return rows

    def known(self, tokens: Any) -> np.ndarray:
        """Rows int64 of those tokens that are known."""
        rows = (self.rows.get(token, -1) for token in several(tokens, f"{self.kind}s"))
        return np.array([row for row in rows if row >= 0], dtype=np.int64)
