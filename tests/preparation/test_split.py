"""The k-core and the splits against plain ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.pairs import Pairs
from recbole_sigrec.preparation.split import k_core, read_ratios, split_pairs
from recbole_sigrec.tables.tokens import is_token

PLACES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40, unique=True)


def pairs_of(places, times=None) -> Pairs:
    names = [str(n) for n in range(7)]
    pairs = Pairs(names, names)
    users, items = ([str(place[n]) for place in places] for n in (0, 1))
    pairs.add(users, items, None if times is None else np.array(times[: len(places)], float))
    return pairs


def rows(batches) -> list[tuple]:
    """The rows of batches of columns."""
    return [row for batch in batches for row in zip(*(column.tolist() for column in batch))]


def labels_of(pairs: Pairs, places, how, ratios, seed) -> list[int]:
    """The label of each pair, which come with their users and items in order."""
    found = rows(split_pairs(pairs, how, ratios, seed))
    assert [row[:2] for row in found] == places
    return [row[2] for row in found]


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
    k_core(pairs, k)
    assert [row[:2] for row in rows(pairs.batches())] == left


def plain_sizes(n: int, ratios) -> list[int]:
    """[training, validation, test] of n pairs."""
    sizes = [0, *(n * ratio // sum(ratios) for ratio in ratios[1:])]
    sizes[0] = n - sum(sizes)
    for part in (2, 1):
        if sizes[part] == 0 and sizes[0] > 1 and ratios[part]:
            sizes[part], sizes[0] = 1, sizes[0] - 1
    return sizes


RATIOS = st.sampled_from(
    [(8, 1, 1), (7, 1, 2), (1, 1, 1), (1, 5, 5), (98, 1, 1), (1, 0, 0), (8, 2, 0), (8, 0, 2)]
)


@given(PLACES, RATIOS, st.integers(0, 5))
def test_random_split_cuts_each_user_in_a_drawn_order(places, ratios, seed):
    labels = labels_of(pairs_of(places), places, "random", ratios, seed)
    draws = np.random.default_rng(seed).random(len(places)).tolist()
    for user in range(7):
        own = sorted((draws[n], n) for n, place in enumerate(places) if place[0] == user)
        expected = np.repeat([0, 1, 2], plain_sizes(len(own), ratios)).tolist()
        assert [labels[n] for _, n in own] == expected


@given(PLACES, RATIOS, st.lists(st.integers(0, 9), min_size=40, max_size=40))
def test_temporal_splits_never_train_on_what_is_later(places, ratios, times):
    for how, groups in (
        ("temporal", [[n for n, place in enumerate(places) if place[0] == u] for u in range(7)]),
        ("temporal-global", [list(range(len(places)))]),
    ):
        labels = labels_of(pairs_of(places, times), places, how, ratios, 0)
        for group in groups:
            ordered = sorted(group, key=lambda n: times[n])  # ties stay in order
            expected = np.repeat([0, 1, 2], plain_sizes(len(group), ratios)).tolist()
            assert [labels[n] for n in ordered] == expected


@given(PLACES, st.none() | st.lists(st.integers(0, 9), min_size=40, max_size=40))
def test_leave_one_out(places, times):
    labels = labels_of(pairs_of(places, times), places, "leave-one-out", (8, 1, 1), 3)
    keys = np.random.default_rng(3).random(len(places)).tolist() if times is None else times
    for user in range(7):
        own = [n for n, place in enumerate(places) if place[0] == user]
        ordered = sorted(own, key=lambda n: keys[n])
        expected = [0] * (len(own) - 2) + [1, 2] if len(own) > 2 else [0, 2][: len(own)]
        assert [labels[n] for n in ordered] == expected


@pytest.mark.parametrize(
    "text, ratios",
    [
        *(("8:1:1", (8, 1, 1)), ("0.8:0.1:0.1", (8, 1, 1)), (".7:.15:.15", (14, 3, 3))),
        *((f"0.8:0.1:{1 - 0.8 - 0.1}", (8, 1, 1)), ("1e30:1:1", (10**6, 1, 1))),
        *(("1:0:0", (1, 0, 0)), ("0.8:.2:0", (4, 1, 0)), ("8:0:2", (4, 0, 1))),
        ("1e30:0:1", (10**6, 0, 1)),
    ],
)
def test_ratios(text, ratios):
    read = read_ratios(text)
    assert [Fraction(r, sum(read)) for r in read] == [Fraction(r, sum(ratios)) for r in ratios]
    assert sum(read) <= 2 * 10**6  # times the pairs of a data set no integer is too large


@pytest.mark.parametrize(
    "text", ["8:1", "8:1:1:1", "0:8:1", "0:0:0", "8:1:-1", "-8:1:1", "a:b:c", "8:1:nan", "1/0:1:1"]
)
def test_bad_ratios(text):
    with pytest.raises(DataError, match=r"three numbers, .* training needs a share"):
        read_ratios(text)


@given(st.lists(st.tuples(st.sampled_from("abé"), st.sampled_from("01é")), max_size=12))
def test_batches_make_the_pairs_of_the_whole(tokens):
    pairs = Pairs()
    for start in range(0, len(tokens), 5):
        batch = tokens[start : start + 5]
        pairs.add([user for user, _ in batch], [item for _, item in batch])
    assert named(pairs) == tokens
    pairs.drop_repetitions()
    assert named(pairs) == list(dict.fromkeys(tokens))
    assert pairs.counts() == {
        "users": len({user for user, _ in tokens}),
        "items": len({item for _, item in tokens}),
        "interactions": len(set(tokens)),
    }


def named(pairs: Pairs) -> list[tuple[str, str]]:
    users, items = pairs.user_tokens, pairs.item_tokens
    return [(users[user], items[item]) for user, item, _ in rows(pairs.batches())]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 3)), max_size=15))
def test_of_a_repeated_pair_the_earliest_is_kept(timed):
    pairs = pairs_of([place[:2] for place in timed], [time for *_, time in timed])
    first = {}
    for n, (user, item, time) in enumerate(timed):
        first[user, item] = min(first.get((user, item), (time, n)), (time, n))
    pairs.drop_repetitions()
    kept = sorted((n, pair) for pair, (_, n) in first.items())
    assert [row[:2] for row in rows(pairs.batches())] == [pair for _, pair in kept]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 2)), max_size=9))
def test_a_pair_in_two_parts_is_refused(labelled):
    pairs = Pairs("01", "01")
    users, items = ([str(row[n]) for row in labelled] for n in (0, 1))
    pairs.add(users, items, labels=np.array([label for *_, label in labelled], dtype=np.int8))
    if len(set(labelled)) == len({row[:2] for row in labelled}):
        pairs.drop_repetitions()
        assert rows(pairs.batches()) == list(dict.fromkeys(labelled))
    else:
        with pytest.raises(DataError, match="in two parts"):
            pairs.drop_repetitions()


def test_all_batches_have_times_or_none():
    pairs = Pairs()
    pairs.add(["u"], ["i"], labels=np.array([1]))
    with pytest.raises(ValueError, match="or none"):
        pairs.add(["u"], ["j"])
    pairs.draw_times(np.random.default_rng(0))
    with pytest.raises(DataError, match="needs a column of times"):
        split_pairs(pairs, "temporal", (8, 1, 1), 0)


def test_a_full_disk_names_the_folder_to_choose():
    pairs = Pairs()
    pairs._db.execute("PRAGMA max_page_count = 20")  # 80 KB
    with pytest.raises(DataError, match=r"full.*SQLITE_TMPDIR"):
        pairs.add(["u"] * 20_000, ["i"] * 20_000)


@pytest.mark.parametrize("token", ["007", "a b", '"', "日本", "x" * 500, "👍🏽", "a\u200db"])
def test_tokens(token):
    assert is_token(token)


@pytest.mark.parametrize(
    "value", ["", " a", "a ", "a\tb", "a\nb", "\r", "\0", "\u2028", "\ud800", 7]
)
def test_what_is_no_token(value):
    assert not is_token(value)
