"""Items that nobody has taken."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers_small_bundles import N_ITEMS, N_USERS, D, histories, normal, recommender, sparse_graph

from recbole_sigrec.serving.new_items import NEIGHBOURS, added_rows, with_added

TRAINING = histories()
ITEMS, USERS = normal(1, N_ITEMS, D), normal(2, N_USERS, D)
CONTENT = {"image": normal(5, N_ITEMS, 6), "text": normal(6, N_ITEMS, 4)}
NEW = {"image": normal(7, 3, 6), "text": normal(8, 3, 4)}
TOKENS = ["new0", "new1", "new2"]


def served(**given):
    """With vectors and an item graph, unless given."""
    values = {"users": USERS, "items": ITEMS, "graph": sparse_graph(), "content": CONTENT, **given}
    return recommender(TRAINING, **values)


def weights_by_hand(trained, k=NEIGHBOURS):
    """w of the new items."""
    centred = {}
    for name, rows in CONTENT.items():
        mean = rows.mean(axis=0)
        for kind, x in (("old", rows - mean), ("new", NEW[name] - mean)):
            centred[kind, name] = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = np.zeros((3, N_ITEMS))
    for i in range(3):
        cosines = {}
        for j in np.flatnonzero(trained):
            both = (centred["new", name][i] @ centred["old", name][j] for name in CONTENT)
            cosines[j] = sum(both) / 2
        for j in sorted(cosines, key=lambda j: -cosines[j])[:k]:
            found[i, j] = max(cosines[j], 0) ** 3
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [1e19, 1e-19, 1e29, 1e-29])
def test_the_weights_do_not_depend_on_the_scale_of_the_features(scale):
    old, new = (
        {name: rows * np.float32(scale) for name, rows in given.items()} for given in (CONTENT, NEW)
    )
    made, trained = served(content=old), np.ones(N_ITEMS, dtype=bool)
    found = added_rows(made.content, made.content.read_new(TOKENS, new), trained).toarray()
    np.testing.assert_allclose(found, weights_by_hand(trained), rtol=1e-4, atol=1e-6)


def columns_by_hand(graph, weights):
    """The new items' columns of a dense item graph."""
    found = np.zeros((N_ITEMS, len(weights)))
    for i, row in enumerate(weights):
        length = 0.0
        for n, weight in enumerate(row):
            column = graph[:, n].copy()
            length += weight * np.linalg.norm(column)
            column[n] += 10 * max(column.max(), 0)
            found[:, i] += weight * column
        found[:, i] *= length / np.linalg.norm(found[:, i])
    return found


@pytest.mark.parametrize("k", [2, NEIGHBOURS, 100])
def test_the_weights_are_those_of_the_most_similar_trained_items(k):
    made, trained = served(), np.arange(N_ITEMS) % 5 > 0
    added = made.content.read_new(TOKENS, NEW)
    found = added_rows(made.content, added, trained, k).toarray()
    np.testing.assert_allclose(found, weights_by_hand(trained, k), rtol=1e-4, atol=1e-6)


def test_a_vector_is_the_mean_of_the_neighbours_and_as_long_as_they():
    made = served()
    made.add_items(TOKENS, NEW)
    counts = np.asarray(TRAINING.sum(axis=0)).ravel()
    for i, row in enumerate(weights_by_hand(counts > 0)):
        mean = sum(weight * vector for weight, vector in zip(row, ITEMS))
        length = sum(weight * np.linalg.norm(vector) for weight, vector in zip(row, ITEMS))
        expected = mean / np.linalg.norm(mean) * length
        vectors = made.scorer.item_vectors
        np.testing.assert_allclose(vectors[N_ITEMS + i], expected, rtol=1e-4, atol=1e-5)


def test_the_parts_of_a_new_vector_add_up_to_it():
    first = normal(9, N_ITEMS, D)
    made = served(parts__behavior=first, parts__image=ITEMS - first)
    made.add_items(TOKENS, NEW)
    np.testing.assert_allclose(
        made.scorer.parts["behavior"] + made.scorer.parts["image"],
        made.scorer.item_vectors,
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_columns_and_rows_of_the_item_graph():
    graph, weights = sparse_graph(), weights_by_hand(np.ones(N_ITEMS, dtype=bool))
    sparse_weights = sp.csr_matrix(weights.astype(np.float32))
    found = with_added(graph, sparse_weights)
    dense = with_added(graph.toarray(), sparse_weights)
    np.testing.assert_allclose(found.toarray(), dense, rtol=1e-5, atol=1e-7)
    columns = columns_by_hand(graph.toarray(), weights)
    rows = columns_by_hand(graph.toarray().T, weights).T
    corner = weights @ columns
    np.fill_diagonal(corner, 0)
    expected = np.block([[graph.toarray(), columns], [rows, corner]])
    np.testing.assert_allclose(dense, expected, rtol=1e-4, atol=1e-6)
    assert dense.dtype == found.dtype == np.float32


GRAPHS = {"none": None, "sparse": sparse_graph(), "dense": normal(3, N_ITEMS, N_ITEMS)}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("vectors", [{}, {"users": None, "items": None}])
def test_the_scores_of_the_other_items_stay_as_they_are(graph, vectors):
    made = served(graph=GRAPHS[graph], items__offset=normal(11, N_ITEMS), **vectors)
    queries = made.known_users(np.arange(N_USERS))
    before = made.scorer.scores(queries)
    made.add_items(TOKENS, NEW)
    after = made.scorer.scores(made.known_users(np.arange(N_USERS)))
    assert after.shape == (N_USERS, N_ITEMS + 3)
    np.testing.assert_allclose(after[:, :N_ITEMS], before, rtol=1e-6, atol=1e-6)
    assert np.isfinite(after).all()


def test_an_untrained_item_is_no_neighbour():
    """So that items added one by one have the vectors that they have when added together."""
    together, apart = served(), served()
    together.add_items(TOKENS, NEW)
    for i, token in enumerate(TOKENS):
        apart.add_items([token], {name: rows[i : i + 1] for name, rows in NEW.items()})
    np.testing.assert_allclose(
        apart.scorer.item_vectors, together.scorer.item_vectors, rtol=1e-5, atol=1e-6
    )


def planted(seed=0, n_groups=4, n_in_group=12):
    """Groups of items that are alike in content and in who took them."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), n_in_group)
    centres, tastes = rng.normal(size=(n_groups, 8)), np.eye(n_groups, 8)
    features = centres[group] + 0.1 * rng.normal(size=(len(group), 8))
    items = tastes[group] + 0.05 * rng.normal(size=(len(group), 8))
    taken = np.zeros((40, len(group)), dtype=np.float32)
    for user in range(40):
        own = np.flatnonzero(group == user % n_groups)
        taken[user, rng.choice(own, 4, replace=False)] = 1
    return group, features.astype("f4"), items.astype("f4"), tastes, sp.csr_matrix(taken)


def test_an_item_with_the_content_of_another_ranks_near_it():
    group, features, items, tastes, taken = planted()
    users = tastes[np.arange(40) % 4].astype(np.float32)
    graph = sp.csr_matrix((group[:, None] == group) * (1 - np.eye(len(group))), dtype=np.float32)
    made = recommender(taken, users, items, graph, {"text": features})
    for j in (0, 12, 30):
        made.add_items([f"like{j}"], {"text": features[j : j + 1]})
        alike = made.similar(f"like{j}", k=8)["similar"]
        assert {group[int(item[1:])] for item in alike} == {group[j]}
    ranked = made.rank([f"u{user}" for user in range(4)], 51 - 4, exclude="seen")
    for user, found in enumerate(ranked.items):
        own = {f"i{n}" for n in np.flatnonzero(group == user)} | {
            f"like{j}" for j in (0, 12, 30) if group[j] == user
        }
        own -= {f"i{n}" for n in taken[user].indices}
        assert set(found[: len(own)]) == own  # before all items of other groups


def test_an_item_like_no_trained_one_scores_zero():
    made = served()
    added = made.content.read_new(TOKENS[:1], {name: rows[:1] for name, rows in NEW.items()})
    unlike = (added.joined @ made.content.joined.T)[0] < 0
    weights = added_rows(made.content, added, unlike)
    assert unlike.any() and weights.nnz == 0
    scorer = made.scorer.extended(weights)
    assert not scorer.item_vectors[-1].any()
    assert not scorer.graph.toarray()[-1].any() and not scorer.graph.toarray()[:, -1].any()
