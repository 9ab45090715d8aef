"""The k-core and the splits against plain ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec.data.pairs import Pairs, PairsBuilder, is_token
from recbole_sigrec.data.split import k_core, read_ratios, split_labels
from recbole_sigrec.errors import DataError

PLACES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40, unique=True)


def pairs_of(places, times=None) -> Pairs:
    users, items = (np.array([p[n] for p in places], dtype=np.int32) for n in (0, 1))
    names = [str(n) for n in range(7)]
    times = None if times is None else np.array(times[: len(places)], dtype=np.float64)
    return Pairs(users, items, names, names, times)


@given(PLACES, st.integers(1, 4))
def test_the_core_is_what_is_left_of_removing_one_by_one(places, k):
    left = list(places)
    while True:
        few = [
            place
            for place in left
            if any(sum(p[side] == place[side] for p in left) < k for side in (0, 1))
        ]
        if not few:
            break
        left.remove(few[0])
    pairs = pairs_of(places)
    keep = k_core(pairs.users, pairs.items, k)
    assert [place for place, kept in zip(places, keep) if kept] == left


def plain_sizes(n: int, ratios) -> list[int]:
    """[training, validation, test] of n pairs."""
    sizes = [0, *(n * ratio // sum(ratios) for ratio in ratios[1:])]
    sizes[0] = n - sum(sizes)
    for part in (2, 1):
        if sizes[part] == 0 and sizes[0] > 1:
            sizes[part], sizes[0] = 1, sizes[0] - 1
    return sizes


RATIOS = st.sampled_from([(8, 1, 1), (7, 1, 2), (1, 1, 1), (1, 5, 5), (98, 1, 1)])


@given(PLACES, RATIOS, st.integers(0, 5))
def test_random_split_cuts_each_user_in_a_drawn_order(places, ratios, seed):
    labels = split_labels(pairs_of(places), "random", ratios, seed)
    draws = np.random.default_rng(seed).random(len(places)).tolist()
    for user in range(7):
        own = sorted((draws[n], n) for n, place in enumerate(places) if place[0] == user)
        expected = np.repeat([0, 1, 2], plain_sizes(len(own), ratios)).tolist()
        assert [labels[n] for _, n in own] == expected


@given(PLACES, RATIOS, st.lists(st.integers(0, 9), min_size=40, max_size=40))
def test_temporal_splits_never_train_on_what_is_later(places, ratios, times):
    pairs = pairs_of(places, times)
    for how, groups in (
        ("temporal", [[n for n, place in enumerate(places) if place[0] == u] for u in range(7)]),
        ("temporal-global", [list(range(len(places)))]),
    ):
        labels = split_labels(pairs, how, ratios, 0)
        for group in groups:
            ordered = sorted(group, key=lambda n: times[n])  # ties stay in order
            expected = np.repeat([0, 1, 2], plain_sizes(len(group), ratios)).tolist()
            assert [labels[n] for n in ordered] == expected


@given(PLACES, st.none() | st.lists(st.integers(0, 9), min_size=40, max_size=40))
def test_leave_one_out(places, times):
    labels = split_labels(pairs_of(places, times), "leave-one-out", (8, 1, 1), 3)
    keys = np.random.default_rng(3).random(len(places)).tolist() if times is None else times
    for user in range(7):
        own = [n for n, place in enumerate(places) if place[0] == user]
        ordered = sorted(own, key=lambda n: keys[n])
        expected = [0] * (len(own) - 2) + [1, 2] if len(own) > 2 else [0, 2][: len(own)]
        assert [labels[n] for n in ordered] == expected


@pytest.mark.parametrize(
    "text, ratios",
    [("8:1:1", (8, 1, 1)), ("0.8:0.1:0.1", (8, 1, 1)), (".7:.15:.15", (14, 3, 3))],
)
def test_ratios(text, ratios):
    read = read_ratios(text)
    assert [Fraction(r, sum(read)) for r in read] == [Fraction(r, sum(ratios)) for r in ratios]


@pytest.mark.parametrize(
    "text", ["8:1", "8:1:1:1", "8:1:0", "8:1:-1", "a:b:c", "8:1:nan", "1/0:1:1"]
)
def test_bad_ratios(text):
    with pytest.raises(DataError, match="three positive numbers"):
        read_ratios(text)


@given(st.lists(st.tuples(st.sampled_from("abé"), st.sampled_from("01é")), max_size=12))
def test_batches_make_the_pairs_of_the_whole(tokens):
    builder = PairsBuilder()
    for start in range(0, len(tokens), 5):
        batch = tokens[start : start + 5]
        builder.add([user for user, _ in batch], [item for _, item in batch])
    pairs = builder.pairs()
    named = [
        (pairs.user_tokens[user], pairs.item_tokens[item])
        for user, item in zip(pairs.users, pairs.items)
    ]
    assert named == tokens
    once = pairs.without_repetitions().compact()
    named = [
        (once.user_tokens[user], once.item_tokens[item])
        for user, item in zip(once.users, once.items)
    ]
    assert named == list(dict.fromkeys(tokens))
    assert once.counts() == {
        "users": len({user for user, _ in tokens}),
        "items": len({item for _, item in tokens}),
        "interactions": len(set(tokens)),
    }
    assert len(once.user_tokens) == once.counts()["users"]


@pytest.mark.parametrize("token", ["007", "a b", '"', "日本", "x" * 500, "👍🏽", "a\u200db"])
def test_tokens(token):
    assert is_token(token)


@pytest.mark.parametrize(
    "value", ["", " a", "a ", "a\tb", "a\nb", "\r", "\0", "\u2028", "\ud800", 7]
)
def test_what_is_no_token(value):
    assert not is_token(value)
