"""Filtering and splitting interactions before they become a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import lcm

import numpy as np

from recbole_sigrec.data.pairs import Pairs
from recbole_sigrec.errors import DataError, did_you_mean

TRAIN, VALID, TEST = 0, 1, 2


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """The largest set of pairs in which every user and every item has at least k.

    Args:
        users, items: integers ≥ 0, [n]; no pair occurs twice.

    Returns:
        bool [n], which pairs belong to it.

    Cost: linear in n for each round; a few rounds are usual.
    """
    keep = np.ones(len(users), dtype=bool)
    while True:
        enough = np.ones(int(keep.sum()), dtype=bool)
        for numbers in (users[keep], items[keep]):
            enough &= np.bincount(numbers)[numbers] >= k if len(numbers) else True
        if enough.all():
            return keep
        keep[keep] = enough


def read_ratios(text: str) -> tuple[int, int, int]:
    """``8:1:1`` or ``0.8:0.1:0.1`` as integers in that ratio, exactly.

    Raises:
        DataError: there are not three positive numbers.
    """
    try:
        shares = [Fraction(part) for part in str(text).split(":")]
    except (ValueError, ZeroDivisionError):
        shares = []
    if len(shares) != 3 or min(shares) <= 0:
        raise DataError(
            f"ratios [{text}] must be three positive numbers, training:validation:test, as 8:1:1"
        )
    scale = lcm(*(share.denominator for share in shares))
    return tuple(int(share * scale) for share in shares)


def check_settings(how: str, k: int, seed: int) -> None:
    """See that there is such a split, k-core and seed.

    Raises:
        DataError: there is not.
    """
    for key, value in (("k_core", k), ("seed", seed)):
        if value < 0:
            raise DataError(f"{key} [{value}] must be 0 or more")
    if how not in SPLITS:
        raise DataError(
            f"split [{how}] is unknown.{did_you_mean(how, SPLITS)} There are: {', '.join(SPLITS)}"
        )


def split_labels(pairs: Pairs, how: str, ratios: Sequence[int], seed: int) -> np.ndarray:
    """The part of each pair: int8 [n], 0 training, 1 validation, 2 test.

    Args:
        how: a name of ``SPLITS``.
        ratios: integers, training : validation : test.
        seed: of the random order.

    Raises:
        DataError: the source lacks what the split needs (times, or a split of its own).
    """
    return SPLITS[how](pairs, ratios, seed)


def _given(pairs: Pairs, ratios, seed) -> np.ndarray:
    if pairs.labels is None:
        raise DataError("split [given] needs a column with the parts; name it with --split_column")
    return pairs.labels


def _random(pairs: Pairs, ratios, seed) -> np.ndarray:
    """Per user, in the order of one uniform number drawn for each pair in the pairs' order."""
    return _by_ratio(pairs.users, np.random.default_rng(seed).random(len(pairs)), ratios)


def _temporal(pairs: Pairs, ratios, seed) -> np.ndarray:
    """Per user: the latest are the test, those before them validation."""
    return _by_ratio(pairs.users, _times(pairs, "temporal"), ratios)


def _temporal_global(pairs: Pairs, ratios, seed) -> np.ndarray:
    """The latest of all pairs are the test, those before them validation."""
    everyone = np.zeros(len(pairs), dtype=np.int32)
    return _by_ratio(everyone, _times(pairs, "temporal-global"), ratios)


def _leave_one_out(pairs: Pairs, ratios, seed) -> np.ndarray:
    """A user's last pair (by time; drawn, where there is none) is test, the one before validation.

    A user with two has no validation, one with a single pair trains with it.
    """
    drawn = pairs.times is None
    key = np.random.default_rng(seed).random(len(pairs)) if drawn else pairs.times
    place, size = _places(pairs.users, key)
    labels = np.full(len(pairs), TRAIN, dtype=np.int8)
    labels[(place == size - 1) & (size >= 2)] = TEST
    labels[(place == size - 2) & (size >= 3)] = VALID
    return labels


SPLITS: dict[str, Callable[[Pairs, Sequence[int], int], np.ndarray]] = {
    "random": _random,
    "leave-one-out": _leave_one_out,
    "temporal": _temporal,
    "temporal-global": _temporal_global,
    "given": _given,
}
"""Split → its function of the pairs, the ratios and the seed."""


def _times(pairs: Pairs, how: str) -> np.ndarray:
    if pairs.times is None:
        raise DataError(f"split [{how}] needs a column of times; name it with --timestamp")
    return pairs.times


def _by_ratio(groups: np.ndarray, key: np.ndarray, ratios: Sequence[int]) -> np.ndarray:
    """Cut each group, in the order of ``key``, by the ratios.

    As in RecBole and the literature's preprocessing, validation and test get the whole part of
    their share, but at least one pair each, the test first, as long as training keeps one.
    """
    place, size = _places(groups, key)
    total = sum(ratios)
    test, valid = (size * ratios[part] // total for part in (TEST, VALID))
    test += (test == 0) & (size - test - valid > 1)
    valid += (valid == 0) & (size - test - valid > 1)
    labels = np.full(len(groups), TRAIN, dtype=np.int8)
    labels[place >= size - test - valid] = VALID
    labels[place >= size - test] = TEST
    return labels


def _places(groups: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair: its place in its group by ``key`` (ties: in order), and the group's size."""
    order = np.lexsort((key, groups))
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - starts[groups[order]]
    return place, sizes[groups]
