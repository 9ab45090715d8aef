"""The Recommender against slow, obvious computations."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from helpers_bundles import (
    MODALITIES,
    N_ITEMS,
    N_USERS,
    D,
    dense,
    random_bundle,
    slow_scores,
    slow_top,
)
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec import Recommender
from recbole_sigrec.errors import DataError
from recbole_sigrec.serving.bundle import write_bundle

KINDS = ["vectors", "vectors and graph", "graph", "dense graph", "dense and offset"]


def items_of(table, user):
    return [int(token.split()[1]) for token in table.item[table.user == user]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ranking_is_the_slow_one(kind):
    bundle = random_bundle(kind)
    scores, seen = slow_scores(bundle), dense(bundle, "training") + dense(bundle, "validation")
    table = Recommender(bundle).recommend(bundle.users, k=8)
    assert list(table.columns) == ["user", "item", "rank", "score"]
    assert len(table) == 8 * N_USERS
    for user in range(N_USERS):
        best = slow_top(scores[user], set(np.flatnonzero(seen[user])), 8)
        assert items_of(table, f"user {user}") == best
        mine = table[table.user == f"user {user}"]
        assert mine["rank"].tolist() == list(range(1, 9))
        np.testing.assert_allclose(mine.score, scores[user][best], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_what_is_left_out_and_what_may_come(kind, data):
    bundle = random_bundle(kind)
    scores, recommender = slow_scores(bundle), Recommender(bundle)
    user = data.draw(st.integers(0, N_USERS - 1))
    excluded = data.draw(st.sets(st.integers(0, N_ITEMS - 1)))
    candidates = data.draw(st.none() | st.sets(st.integers(0, N_ITEMS - 1)))
    k = data.draw(st.integers(1, N_ITEMS))
    token = f"user {user}"
    table = recommender.recommend(
        token,
        k,
        exclude={token: [f"item {n}" for n in excluded]},
        candidates=None if candidates is None else [f"item {n}" for n in candidates],
    )
    allowed = set(range(N_ITEMS)) if candidates is None else candidates
    left_out = excluded | (set(range(N_ITEMS)) - allowed)
    expected = slow_top(scores[user], left_out, k)
    assert items_of(table, token) == expected  # fewer than k, where fewer may come


def test_where_and_none_excluded():
    bundle = random_bundle()
    recommender = Recommender(bundle)
    table = recommender.recommend("user 3", N_ITEMS, exclude="none", where={"kind": "book"})
    assert sorted(items_of(table, "user 3")) == [n for n in range(N_ITEMS) if n % 3 == 1]
    two = recommender.recommend("user 3", N_ITEMS, exclude="none", where={"kind": ["book", "toy"]})
    assert sorted(items_of(two, "user 3")) == [n for n in range(N_ITEMS) if n % 3 < 2]
    with pytest.raises(DataError, match=r"column \[knd\]. Did you mean 'kind'"):
        recommender.recommend("user 3", where={"knd": "book"})


def test_blocks_of_users_are_the_whole(monkeypatch):
    bundle = random_bundle()
    recommender = Recommender(bundle)
    whole = recommender.recommend(bundle.users, 5)
    monkeypatch.setattr("recbole_sigrec.serving.recommender._BATCH", 7)
    assert recommender.recommend(bundle.users, 5).equals(whole)
    parts = list(recommender.all_users(5))
    assert len(parts) == 5
    assert [row for part in parts for row in part.item] == whole.item.tolist()


def test_diversity_chooses_one_by_one():
    bundle = random_bundle("vectors")
    recommender, k, weight = Recommender(bundle), 4, 0.7
    scores = slow_scores(bundle)[2]
    vectors = bundle.arrays["items.vectors"].astype(float)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pool = slow_top(scores, set(), 10 * k)
    spread, chosen = scores[pool].std(), []
    while len(chosen) < k:

        def gain(item):
            near = max((unit[item] @ unit[other] for other in chosen), default=0)
            return scores[item] - weight * spread * max(near, 0)

        chosen.append(max((item for item in pool if item not in chosen), key=gain))
    found = recommender.recommend("user 2", k, exclude="none", diversity=weight)
    assert items_of(found, "user 2") == chosen
    assert chosen != slow_top(scores, set(), k)
    np.testing.assert_allclose(found.score, scores[chosen], rtol=1e-4)
    few = recommender.recommend("user 2", 9, exclude="none", candidates=["item 1"], diversity=0.5)
    assert few.item.tolist() == ["item 1"]


@pytest.mark.parametrize("kind", KINDS)
def test_addends_sum_to_the_score(kind):
    bundle = random_bundle(kind)
    recommender, scores = Recommender(bundle), slow_scores(bundle)
    for user in range(0, N_USERS, 3):
        table = recommender.explain(f"user {user}", bundle.items)
        sums = table.groupby("item").addend.sum()[bundle.items]
        np.testing.assert_allclose(sums, scores[user], rtol=1e-4, atol=1e-4)


def test_each_addend_is_what_it_is_called():
    bundle = random_bundle("vectors and graph")
    recommender, arrays = Recommender(bundle), bundle.arrays
    table = recommender.explain("user 5", ["item 7", "item 8"])
    table = table.set_index(["item", "part", "source"]).addend
    history = np.flatnonzero(dense(bundle, "training")[5])
    weight = {j: 1 / np.sqrt(len(history) * arrays["items.count"][j]) for j in history}
    semantics = arrays["parts.image"] + arrays["parts.text"]
    learned = arrays["users.vectors"][5] - sum(weight[j] * semantics[j] for j in history)
    graph = dense(bundle, "graph")
    s = graph[history].sum(axis=0)
    product = arrays["items.vectors"] @ arrays["users.vectors"][5]
    factor = 0.5 * product.std() / s.std()
    for item in (7, 8):
        for part in ("behavior", *MODALITIES):
            row = arrays[f"parts.{part}"][item]
            found = table[f"item {item}", part]
            np.testing.assert_allclose(found["learned"], learned @ row, rtol=1e-3, atol=1e-4)
            for j in history:
                expected = weight[j] * semantics[j] @ row
                np.testing.assert_allclose(found[f"item {j}"], expected, rtol=1e-3, atol=1e-5)
        for j in history:
            found = table[f"item {item}", "item graph", f"item {j}"]
            np.testing.assert_allclose(found, factor * graph[j, item], rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_user_is_explained_too(kind):
    recommender = Recommender(random_bundle(kind))
    history = ["item 3", "item 11", "item 12"]
    table = recommender.recommend(history=[history], k=N_ITEMS - 3)
    assert not set(table.item) & set(history) and table.user.tolist() == [0] * (N_ITEMS - 3)
    addends = recommender.explain(history=history, items=table.item)
    sums = addends.groupby("item").addend.sum()[table.item]
    np.testing.assert_allclose(sums, table.score, rtol=1e-4, atol=1e-4)
    assert set(addends.source) <= {*history, "learned"}


@pytest.mark.parametrize("kind", ["graph", "dense graph", "dense and offset"])
def test_a_history_that_was_trained_with_is_answered_as_its_user(kind):
    """A model of an item-item matrix knows a user by the history alone."""
    bundle = random_bundle(kind)
    recommender = Recommender(bundle)
    history = [bundle.items[j] for j in np.flatnonzero(dense(bundle, "training")[4])]
    known = recommender.recommend("user 4", 9, exclude={"user 4": history})
    new = recommender.recommend(history=[history], k=9)
    assert new.item.tolist() == known.item.tolist()
    np.testing.assert_array_equal(new.score, known.score)


def test_the_order_of_a_history_is_nothing():
    recommender = Recommender(random_bundle())
    tables = [
        recommender.recommend(history=[order])
        for order in (["item 1", "item 9"], ["item 9", "item 1", "item 1"])
    ]
    assert tables[0].equals(tables[1])


def test_unknown_users_get_what_is_popular():
    bundle = random_bundle()
    recommender = Recommender(bundle)
    popular = slow_top(bundle.arrays["items.count"], set(), 5)
    table = recommender.recommend(["user 1", "nobody"], 5, unknown="new")
    assert items_of(table, "nobody") == popular
    alone = recommender.recommend("user 1", 5)
    assert items_of(table, "user 1") == items_of(alone, "user 1")
    empty = recommender.recommend(history=[[], ["item 2", "no such item"]], k=5, unknown="new")
    assert items_of(empty, 0) == popular
    known = recommender.recommend(history=[["item 2"]], k=5)
    assert items_of(empty, 1) == items_of(known, 0)


@pytest.mark.parametrize("by", ["behavior", "content", "text"])
def test_similar_items(by):
    bundle = random_bundle()
    arrays = bundle.arrays

    def cosines(rows):
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = rows / np.where(norm > 0, norm, 1)
        return unit @ unit.T

    def of_modality(name):
        has = arrays[f"has.{name}"]
        return cosines((arrays[f"content.{name}"] - arrays[f"mean.{name}"]) * has[:, None])

    if by == "behavior":
        expected = cosines(arrays["items.vectors"])
    elif by == "content":
        expected = 0.5 * of_modality("image") + 0.5 * of_modality("text")
    else:
        expected = of_modality("text")
    np.fill_diagonal(expected, -np.inf)
    table = Recommender(bundle).similar(["item 6", "item 30"], 4, by)
    for item in (6, 30):
        mine = table[table.item == f"item {item}"]
        best = slow_top(expected[item], set(), 4)
        assert mine.similar.tolist() == [f"item {n}" for n in best]
        np.testing.assert_allclose(mine.score, expected[item][best], rtol=1e-4, atol=1e-6)


def test_similar_items_of_an_item_matrix():
    bundle = random_bundle("graph")
    table = Recommender(bundle).similar("item 6", 4)
    expected = dense(bundle, "graph")[6]
    assert table.similar.tolist() == [f"item {n}" for n in slow_top(expected, {6}, 4)]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda r: r.recommend(7.5), r"users = \[7.5\]: give a token, or a list of tokens"),
        (lambda r: r.recommend(history=5), r"history = \[5\]: give a list of item tokens"),
        (lambda r: r.recommend(history=[5.0]), r"items = \[5.0\]: give a token, or a list"),
        (lambda r: r.recommend("user 1", candidates={"item 1": 2}), r"items = \[.*give a token"),
        (lambda r: r.recommend("user 1", where=["kind"]), r"where = \[\['kind'\]\]: give"),
        (lambda r: r.recommend("user 1", diversity="a"), r"diversity = \[a\]"),
        (lambda r: r.add_items([], {}), "tokens is empty"),
        (lambda r: r.recommend("usr 1"), r"unknown user\(s\): usr 1. Did you mean 'user 1'"),
        (lambda r: r.recommend(["a", "b"]), r"unknown user\(s\): a, b"),
        (lambda r: r.recommend("x" * 10_000), r"unknown user\(s\): x{100}\."),
        (lambda r: r.recommend(), "give either users or a history"),
        (lambda r: r.recommend("user 1", history=[["item 1"]]), "either users or a history"),
        (lambda r: r.recommend("user 1", 0), r"k = \[0\]: give a whole number from 1 to 40"),
        (lambda r: r.recommend("user 1", 41), r"k = \[41\]"),
        (lambda r: r.recommend("user 1", 2.5), r"k = \[2.5\]"),
        (lambda r: r.recommend("user 1", True), r"k = \[True\]"),
        (lambda r: r.recommend(history=[[]]), r"history \[0\] is empty"),
        (lambda r: r.recommend(history=[["item 1"], ["item x"]]), r"unknown item\(s\): item x"),
        (lambda r: r.recommend(history=["item 1"]), r"history \[0\] is a text"),
        (lambda r: r.recommend("user 1", exclude="sen"), r"exclude = \[sen\]"),
        (lambda r: r.recommend("user 1", exclude={"user 2": []}), "names user .user 2., who is"),
        (lambda r: r.recommend("user 1", candidates=["item x"]), "unknown item"),
        (lambda r: r.recommend("user 1", diversity=1.0), r"diversity = \[1.0\]"),
        (lambda r: r.recommend("user 1", unknown="x"), r"unknown = \[x\]"),
        (lambda r: r.similar("item 1", by="audio"), r"by = \[audio\]: the bundle has behavior, co"),
        (lambda r: r.similar("item x"), "unknown item"),
        (lambda r: r.explain("nobody", ["item 1"]), "unknown user"),
    ],
)
def test_wrong_questions_are_answered_by_an_error(call, says):
    with pytest.raises(DataError, match=says):
        call(Recommender(random_bundle()))


class TestAddedItems:
    def new(self, n=2, seed=3):
        rng = np.random.default_rng(seed)
        return {name: rng.normal(size=(n, width)) for name, width in MODALITIES.items()}

    @pytest.mark.parametrize("kind", KINDS)
    def test_they_enter_the_rankings_and_change_no_other_score(self, kind):
        bundle = random_bundle(kind)
        recommender = Recommender(bundle)
        before = recommender.recommend(bundle.users, N_ITEMS, exclude="none")
        recommender.add_items(["new 1", "new 2"], self.new())
        after = recommender.recommend(bundle.users, N_ITEMS + 2, exclude="none")
        assert len(after) == len(before) + 2 * N_USERS
        old = after[~after.item.str.startswith("new")].set_index(["user", "item"]).score
        expected = before.set_index(["user", "item"]).score
        np.testing.assert_allclose(old[expected.index], expected, rtol=1e-5, atol=1e-6)
        addends = recommender.explain("user 1", ["new 1", "item 4"])
        mine = after[after.user == "user 1"].set_index("item").score[["new 1", "item 4"]]
        sums = addends.groupby("item").addend.sum()[mine.index]
        np.testing.assert_allclose(sums, mine, rtol=1e-4, atol=1e-4)
        table = recommender.recommend(history=[["new 1"]], k=5)
        assert len(table) == 5 and "new 1" not in set(table.item)
        assert recommender.columns["title"][-1] is None
        assert len(recommender.similar("new 2", 5, by="content")) == 5

    def test_a_modality_may_be_lacking(self):
        recommender = Recommender(random_bundle())
        recommender.add_items(["new"], {"text": self.new(1)["text"]})
        assert recommender.content.has["image"][-1] == False  # noqa: E712
        assert len(recommender.similar("new", 3, by="text")) == 3

    @pytest.mark.parametrize(
        ("tokens", "change", "says"),
        [
            (["item 3", "new"], {}, r"item \[item 3\] is there already"),
            (["new", "new"], {}, r"item \[new\] is there already"),
            (["a", "b"], {"text": np.ones((2, 9))}, r"\[text\] has the shape \(2, 9\); expected"),
            (
                ["a", "b"],
                {"text": [[1, 2, np.nan, 3]] * 2},
                r"\[text\] is not finite in row\(s\) 0",
            ),
            (["a", "b"], {"audio": np.ones((2, 3))}, r"no modality \[audio\]"),
            (["a", "b"], {"text": [["x"] * 4] * 2}, r"\[text\]: give rows of numbers"),
            (["a", "b"], {n: np.zeros((2, w)) for n, w in MODALITIES.items()}, "have no content"),
        ],
    )
    def test_what_cannot_be_added(self, tokens, change, says):
        recommender = Recommender(random_bundle())
        before = recommender.recommend("user 1", N_ITEMS, exclude="none")
        with pytest.raises(DataError, match=says):
            recommender.add_items(tokens, {**self.new(), **change})
        assert recommender.recommend("user 1", N_ITEMS, exclude="none").equals(before)


def test_without_histories():
    bundle = random_bundle("vectors")
    for name in ("training.indptr", "training.indices", "validation.indptr", "validation.indices"):
        del bundle.arrays[name]
    recommender = Recommender(bundle)
    with pytest.raises(DataError, match="without histories"):
        recommender.recommend("user 1")
    table = recommender.recommend("user 1", 5, exclude="none")
    assert items_of(table, "user 1") == slow_top(slow_scores_of(bundle)[1], set(), 5)
    assert set(recommender.explain("user 1", ["item 1"]).source) == {"learned"}


def slow_scores_of(bundle):
    return bundle.arrays["users.vectors"] @ bundle.arrays["items.vectors"].T


def test_neither_torch_nor_recbole_is_imported(tmp_path):
    write_bundle(random_bundle(), tmp_path / "shop.rec")
    code = f"""
import sys
from recbole_sigrec import Recommender
r = Recommender.load({str(tmp_path / "shop.rec")!r})
r.recommend("user 1")
r.recommend(history=[["item 1"]])
r.similar("item 1")
r.explain("user 1", ["item 1"])
r.add_items(["new"], {{"text": [[1.0, 2.0, 3.0, 4.0]]}})
heavy = {{"torch", "recbole", "sklearn", "plotly", "tensorboard"}} & set(sys.modules)
sys.exit(str(sorted(heavy)) if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_numbers_are_taken_as_their_texts():
    bundle = random_bundle("vectors")
    bundle.users = [str(n) for n in range(N_USERS)]
    recommender = Recommender(bundle)
    assert recommender.recommend(3).equals(recommender.recommend("3"))
    assert recommender.recommend(np.array([3, 4])).user.unique().tolist() == ["3", "4"]
    assert D == bundle.arrays["items.vectors"].shape[1]


def test_a_text_is_one_token():
    bundle = random_bundle("vectors")
    bundle.items = [str(n) for n in range(N_ITEMS)]
    recommender = Recommender(bundle)
    table = recommender.recommend("user 1", 3, candidates="32", exclude="none")
    assert table.item.tolist() == ["32"]
    left = recommender.recommend("user 1", N_ITEMS, exclude={"user 1": "32"})
    assert sorted(map(int, left.item)) == [n for n in range(N_ITEMS) if n != 32]
    recommender.add_items("xyz", {"text": [[1.0, 2.0, 3.0, 4.0]]})
    assert recommender.items.names[-1] == "xyz" and len(recommender.items) == N_ITEMS + 1


def test_where_compares_texts_and_looks_into_lists():
    bundle = random_bundle("vectors")
    bundle.columns["year"] = [str(1990 + n % 4) for n in range(N_ITEMS)]
    bundle.columns["kinds"] = [["a", "b"] if n % 5 else None for n in range(N_ITEMS)]
    recommender = Recommender(bundle)

    def found(**where):
        return sorted(
            items_of(recommender.recommend("user 1", 40, exclude="none", where=where), "user 1")
        )

    assert found(year=1991) == found(year="1991") == [n for n in range(N_ITEMS) if n % 4 == 1]
    assert found(year=range(1990, 1992)) == [n for n in range(N_ITEMS) if n % 4 < 2]
    assert found(kinds="b") == [n for n in range(N_ITEMS) if n % 5]


def test_an_item_named_twice_is_explained_once():
    recommender = Recommender(random_bundle())
    once, twice = (recommender.explain("user 1", ["item 1"] * n) for n in (1, 2))
    assert once.equals(twice)


def test_what_lacks_the_features_is_like_nothing():
    bundle = random_bundle()
    recommender = Recommender(bundle)
    lacking = [n for n in range(N_ITEMS) if not bundle.arrays["has.text"][n]]
    assert lacking and recommender.similar(f"item {lacking[0]}", 5, by="text").empty
    table = recommender.similar("item 1", N_ITEMS, by="text")
    expected = set(range(N_ITEMS)) - {1, *lacking}
    assert {int(token.split()[1]) for token in table.similar} == expected


def test_a_user_without_training_items_has_no_addends_of_an_item_matrix():
    bundle = random_bundle("graph")
    indptr = bundle.arrays["training.indptr"].copy()
    bundle.arrays["training.indices"] = bundle.arrays["training.indices"][indptr[1] :]
    bundle.arrays["training.indptr"] = np.maximum(indptr - indptr[1], 0)
    table = Recommender(bundle).explain("user 0", ["item 1"])
    assert table.empty and list(table.columns) == ["item", "part", "source", "addend"]


def test_all_users_takes_the_arguments_of_recommend():
    bundle = random_bundle()
    (table,) = Recommender(bundle).all_users(3, exclude="none", where={"kind": "toy"})
    assert set(table.item) <= {f"item {n}" for n in range(0, N_ITEMS, 3)}
