"""User-item pairs on their way from a source to a data set, as integers and their tokens."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from recbole_sigrec.errors import DataError, some

_NO_TOKEN = re.compile(
    "^$|^\\s|\\s$|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)  # tabs and line ends separate, the reader strips, and a lone surrogate is no UTF-8


def is_token(value) -> bool:
    """Whether a value can be a user's or item's token in a data-set folder, kept as it is.

    It cannot if it is empty, is no text, holds a tab, line end or other control character, or
    begins or ends with a space.
    """
    return isinstance(value, str) and _NO_TOKEN.search(value) is None


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Interactions in the order of their source.

    Attributes:
        users, items: int32 [n], places in the token lists.
        user_tokens, item_tokens: what the source calls them; some may have no interaction.
        times: float64 [n], or None where the source has none.
        labels: int8 [n], the part that the source puts a pair in (0 training, 1 validation,
            2 test), or None where it has no split.
    """

    users: np.ndarray
    items: np.ndarray
    user_tokens: list[str]
    item_tokens: list[str]
    times: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    def counts(self) -> dict[str, int]:
        """Users and items with an interaction, and interactions."""
        return {
            "users": int(np.count_nonzero(np.bincount(self.users))),
            "items": int(np.count_nonzero(np.bincount(self.items))),
            "interactions": len(self),
        }

    def where(self, keep: np.ndarray) -> Pairs:
        """The pairs that ``keep``, bool [n], selects; the tokens stay."""
        chosen = {
            name: None if getattr(self, name) is None else getattr(self, name)[keep]
            for name in ("users", "items", "times", "labels")
        }
        return dataclasses.replace(self, **chosen)

    def compact(self) -> Pairs:
        """Without the tokens that have no interaction; the others keep their order."""
        users, user_tokens = _renumber(self.users, self.user_tokens)
        items, item_tokens = _renumber(self.items, self.item_tokens)
        return Pairs(users, items, user_tokens, item_tokens, self.times, self.labels)

    def without_repetitions(self) -> Pairs:
        """Each pair once: its earliest by ``times``, else its first.

        Raises:
            DataError: a pair is in two parts of the source's split, so that a model would see in
                training what it is tested on.
        """
        key = self.users.astype(np.int64) * len(self.item_tokens) + self.items
        by_time = self.times is not None
        order = np.lexsort((self.times, key)) if by_time else np.argsort(key, kind="stable")
        key = key[order]
        again = np.zeros(len(self), dtype=bool)
        again[order[1:]] = key[1:] == key[:-1]
        if self.labels is not None:
            changed = again[order[1:]] & (self.labels[order[1:]] != self.labels[order[:-1]])
            if changed.any():
                names = [
                    f"({self.user_tokens[self.users[n]]}, {self.item_tokens[self.items[n]]})"
                    for n in order[1:][changed]
                ]
                raise DataError(
                    f"the source's split puts the same pair of user and item in two parts: "
                    f"{some(names)}. Remove it from one of them, or split anew (--split random)"
                )
        return self.where(~again)


def _renumber(numbers: np.ndarray, tokens: list[str]) -> tuple[np.ndarray, list[str]]:
    used = np.bincount(numbers, minlength=len(tokens)) > 0
    new = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return new[numbers], [token for token, kept in zip(tokens, used, strict=True) if kept]


class PairsBuilder:
    """Collects pairs of tokens batch by batch; each token is held once."""

    def __init__(self):
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._batches: dict[str, list] = {"users": [], "items": [], "times": [], "labels": []}

    def add(
        self,
        users: Sequence[str],
        items: Sequence[str],
        times: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        """One batch: tokens [b], and where the source has them times and labels [b]."""
        self._batches["users"].append(_numbers(users, self._users))
        self._batches["items"].append(_numbers(items, self._items))
        self._batches["times"].append(times)
        self._batches["labels"].append(labels)

    def pairs(self) -> Pairs:
        """All that was added."""
        whole = {
            name: np.concatenate(parts) if parts and parts[0] is not None else None
            for name, parts in self._batches.items()
        }
        for name in ("users", "items"):
            whole[name] = np.zeros(0, np.int32) if whole[name] is None else whole[name]
        return Pairs(user_tokens=list(self._users), item_tokens=list(self._items), **whole)


def _numbers(tokens: Sequence[str], known: dict[str, int]) -> np.ndarray:
    """The number of each token; a new one gets the next."""
    return np.fromiter((known.setdefault(t, len(known)) for t in tokens), np.int32, len(tokens))
