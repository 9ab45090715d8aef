"""Filtering and splitting interactions before they become a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from math import gcd, lcm

import numpy as np

from recbole_sigrec.errors import DataError, did_you_mean
from recbole_sigrec.preparation.pairs import Pairs

TRAIN, VALID, TEST = 0, 1, 2
MILLION = 10**6

Batches = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Users, items and labels (0 training, 1 validation, 2 test) of some pairs, integers [b] each."""


def k_core(pairs: Pairs, k: int) -> None:
    """Leave of pairs the largest set in which every user and every item has at least k.

    No pair may occur twice. Cost: linear in the pairs for each round; a few rounds are usual.
    """
    while pairs.drop_rare(k):
        pass


def read_ratios(text: str) -> tuple[int, int, int]:
    """``8:1:1`` or ``0.8:0.1:0.1`` as integers in that ratio.

    Exactly, or to a millionth of the whole where the integers would be longer: 0.09999999999999995
    is a tenth.

    Raises:
        DataError: there are not three numbers, the first positive and no other negative.
    """
    try:
        shares = [Fraction(part) for part in str(text).split(":")]
    except (ValueError, ZeroDivisionError):
        shares = []
    if len(shares) != 3 or shares[TRAIN] <= 0 or min(shares) < 0:
        raise DataError(
            f"ratios [{text}] must be three numbers, training:validation:test, as 8:1:1; training "
            f"needs a share, and 0 leaves a part out"
        )
    scale = lcm(*(share.denominator for share in shares))
    parts = [int(share * scale) for share in shares]
    if sum(parts) > MILLION:
        parts = [max(int(share > 0), round(MILLION * share / sum(shares))) for share in shares]
    common = gcd(*parts)
    train, valid, test = (part // common for part in parts)
    return train, valid, test


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


def split_pairs(pairs: Pairs, how: str, ratios: Sequence[int], seed: int) -> Batches:
    """The pairs in their order, with the part of each.

    Args:
        how: a name of ``SPLITS``.
        ratios: integers, training : validation : test.
        seed: of the random order.

    Raises:
        DataError: the source lacks what the split needs (times, or a split of its own).
    """
    return SPLITS[how](pairs, ratios, seed)


def expected_parts(how: str, ratios: Sequence[int], given: set[int]) -> set[int]:
    """The parts that a split of some data set must have; without another it is of use.

    Args:
        how, ratios: as in :func:`split_pairs`.
        given: the parts that the source puts pairs in.
    """
    if how == "given":
        return {TRAIN, *given}
    if how == "leave-one-out":
        return {TRAIN, VALID, TEST}
    return {part for part, ratio in enumerate(ratios) if ratio}


def _given(pairs: Pairs, ratios: Sequence[int], seed: int) -> Batches:
    if not pairs.labelled:
        raise DataError("split [given] needs a column with the parts; name it with --split_column")
    return pairs.batches()


def _random(pairs: Pairs, ratios: Sequence[int], seed: int) -> Batches:
    """Per user, in the order of one uniform number drawn for each pair in the pairs' order."""
    pairs.draw_times(np.random.default_rng(seed))
    return _cut(pairs, partial(_by_ratio, ratios=ratios))


def _temporal(pairs: Pairs, ratios: Sequence[int], seed: int) -> Batches:
    """Per user: the latest are the test, those before them validation."""
    _check_times(pairs, "temporal")
    return _cut(pairs, partial(_by_ratio, ratios=ratios))


def _temporal_global(pairs: Pairs, ratios: Sequence[int], seed: int) -> Batches:
    """The latest of all pairs are the test, those before them validation."""
    _check_times(pairs, "temporal-global")
    return _cut(pairs, partial(_by_ratio, ratios=ratios), per_user=False)


def _leave_one_out(pairs: Pairs, ratios: Sequence[int], seed: int) -> Batches:
    """A user's last pair (by time; drawn, where there is none) is test, the one before validation.

    A user with two has no validation, one with a single pair trains with it.
    """
    if not pairs.timed:
        pairs.draw_times(np.random.default_rng(seed))

    def labels(place: np.ndarray, size: np.ndarray) -> np.ndarray:
        found = np.full(len(place), TRAIN, dtype=np.int8)
        found[(place == size - 1) & (size >= 2)] = TEST
        found[(place == size - 2) & (size >= 3)] = VALID
        return found

    return _cut(pairs, labels)


def _cold_items(pairs: Pairs, ratios: Sequence[int], seed: int) -> Batches:
    """Each item with all its pairs is in one part: a share of the items is never trained on."""
    _, degrees = pairs.degrees()
    items = np.flatnonzero(degrees)
    place, size = np.arange(len(items)), np.full(len(items), len(items))
    part = np.full(len(degrees), TRAIN, dtype=np.int8)
    part[np.random.default_rng(seed).permutation(items)] = _by_ratio(place, size, ratios)
    for users, items, _ in pairs.batches():
        yield users, items, part[items]


SPLITS: dict[str, Callable[[Pairs, Sequence[int], int], Batches]] = {
    "random": _random,
    "leave-one-out": _leave_one_out,
    "temporal": _temporal,
    "temporal-global": _temporal_global,
    "cold-items": _cold_items,
    "given": _given,
}
"""Split → its function of the pairs, the ratios and the seed."""


def _check_times(pairs: Pairs, how: str) -> None:
    if not pairs.timed:
        raise DataError(f"split [{how}] needs a column of times; name it with --timestamp")


def _cut(
    pairs: Pairs, labels: Callable[[np.ndarray, np.ndarray], np.ndarray], per_user: bool = True
) -> Batches:
    """Each pair with its label, a function of its place by time and of how many there are.

    Args:
        labels: places [b] and sizes [b] of the groups they are in → labels int8 [b].
        per_user: whether each user is such a group, or all pairs are one.
    """
    degrees, _ = pairs.degrees()
    sizes = degrees if per_user else np.full_like(degrees, degrees.sum())
    for users, items, place in pairs.placed(per_user):
        yield users, items, labels(place, sizes[users])


def _by_ratio(place: np.ndarray, size: np.ndarray, ratios: Sequence[int]) -> np.ndarray:
    """Cut each group by the ratios.

    As in RecBole and the literature's preprocessing, validation and test get the whole part of
    their share, but at least one pair each, the test first, as long as training keeps one. A share
    of 0 gets none.
    """
    total = sum(ratios)
    test, valid = (size * ratios[part] // total for part in (TEST, VALID))
    if ratios[TEST]:
        test += (test == 0) & (size - test - valid > 1)
    if ratios[VALID]:
        valid += (valid == 0) & (size - test - valid > 1)
    labels = np.full(len(place), TRAIN, dtype=np.int8)
    labels[place >= size - test - valid] = VALID
    labels[place >= size - test] = TEST
    return labels
