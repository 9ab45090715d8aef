"""Whether the numbers of the items give away which of them were held out."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

TELLING = 0.95  # share of held-out items at one end, from which the split is called out
ROOM = 0.1  # … if chance leaves at least that much


@dataclasses.dataclass(frozen=True)
class HeldOutOrder:
    """Where a user's held-out items stand among their training items, by the items' numbers.

    Attributes:
        pairs: held-out (user, item) pairs of users with a training item.
        above, below: the parts of them with a higher, or lower, number than all training items.
        expected: the part of either by chance, the mean of 1 / (n + 1) for n training items.
    """

    pairs: int
    above: float
    below: float
    expected: float

    @property
    def telling(self) -> str | None:
        """``highest`` or ``lowest`` where nearly all held-out items are at that end, else None."""
        if self.expected > TELLING - ROOM:
            return None
        if self.above >= TELLING:
            return "highest"
        return "lowest" if self.below >= TELLING else None


def held_out_order(
    interactions: sp.csr_matrix,
    numbers: np.ndarray,
    held_users: np.ndarray,
    held_items: np.ndarray,
) -> HeldOutOrder:
    """Compare the numbers of held-out items with those of the training items of their users.

    A split at random leaves a held-out item at either end of a history of n items with probability
    1 / (n + 1). Where it is always at one end, the split was cut from lists sorted by item number,
    or the numbers follow time: models that see the ids as numbers could read the answer from them,
    and the held-out items are of another popularity than the training items (our choice).

    Args:
        interactions: binary R [n_users, n_items] of the training interactions alone.
        numbers: the number of each item id, int64 [n_items].
        held_users, held_items: ids of the held-out interactions, int64 [n_held].
    """
    users, items = interactions.nonzero()
    n_users = len(interactions.indptr) - 1
    highest = np.full(n_users, np.iinfo(np.int64).min)
    lowest = np.full(n_users, np.iinfo(np.int64).max)
    np.maximum.at(highest, users, numbers[items])
    np.minimum.at(lowest, users, numbers[items])
    count = np.diff(interactions.indptr)[held_users]
    known = count > 0
    u, number = held_users[known], numbers[held_items[known]]
    if len(u) == 0:
        return HeldOutOrder(0, 0.0, 0.0, 0.0)
    return HeldOutOrder(
        len(u),
        float((number > highest[u]).mean()),
        float((number < lowest[u]).mean()),
        float((1.0 / (count[known] + 1)).mean()),
    )


def item_numbers(tokens: np.ndarray) -> np.ndarray | None:
    """The item tokens as numbers, int64 [n], or None where one is no plain decimal number."""
    texts = [str(token) for token in tokens]
    if not all(text.isascii() and text.isdecimal() and len(text) < 19 for text in texts):
        return None
    return np.array([int(text) for text in texts], dtype=np.int64)
