"""Users who were not trained."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers_data import features, interactions, run_on, write_mmrec
from helpers_small_bundles import N_ITEMS, D, histories, normal, recommender, sparse_graph

from recbole_sigrec.serving.bundle import read_bundle
from recbole_sigrec.serving.new_users import aggregated, fitted_maps

TRAINING = histories()
COUNTS = np.asarray(TRAINING.sum(axis=0)).ravel().astype(np.int32)
ITEMS, USERS = normal(1, N_ITEMS, D), normal(2, TRAINING.shape[0], D)


def by_hand(history):
    """x of a list of items."""
    x = np.zeros(D)
    for j in history:
        x += ITEMS[j] / (np.sqrt(len(history)) * max(COUNTS[j], 1) ** 0.25)
    return x


def test_the_aggregate_is_the_sum_over_the_history():
    found = aggregated(TRAINING, ITEMS, COUNTS)
    expected = [by_hand(TRAINING[user].indices) for user in range(TRAINING.shape[0])]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_map_is_the_ridge_regression_of_the_trained_vectors():
    x = np.array([by_hand(TRAINING[user].indices) for user in range(TRAINING.shape[0])])
    ridge = 1e-3 * np.mean(np.diag(x.T @ x))
    rows = np.concatenate([x, np.sqrt(ridge) * np.eye(D)])
    targets = np.concatenate([USERS, np.zeros((D, D))])
    expected, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    found, *_ = fitted_maps(TRAINING, USERS, ITEMS, COUNTS)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_other_maps_fit_the_history_by_least_squares():
    """x W minimises ‖e Eᵀ‖² + ρ‖e‖² − 2 x · e."""
    _, *maps = fitted_maps(TRAINING, USERS, ITEMS, COUNTS)
    x = by_hand([1, 4, 6])
    for times, found in zip((1, 3, 10), maps, strict=True):
        rho = times * np.mean((ITEMS**2).sum(axis=0))
        e = x @ found
        gradient = 2 * ITEMS.T @ (ITEMS @ e) + 2 * rho * e - 2 * x
        np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_a_trained_users_history_gives_the_users_vector():
    """Where the users' vectors are linear in their histories; the ridge shortens them a little."""
    users = aggregated(TRAINING, ITEMS, COUNTS) @ normal(4, D, D)
    served = recommender(TRAINING, users, ITEMS)
    found = served.fold_in(TRAINING)
    assert np.linalg.norm(found - users) < 0.02 * np.linalg.norm(users)


def test_order_and_repetition_in_a_history_do_not_matter():
    served = recommender(TRAINING, USERS, ITEMS, sparse_graph())
    found = served.rank(k=8, history=[["i3", "i9", "i1"], ["i1", "i3", "i9", "i3"]])
    assert found.items[0].tolist() == found.items[1].tolist()
    assert found.scores[0].tolist() == found.scores[1].tolist()


def test_a_history_is_served_the_same_alone_and_among_others():
    served = recommender(TRAINING, USERS, ITEMS, sparse_graph())
    several = served.rank(k=8, history=[["i5"], ["i3", "i9", "i1"], ["i0", "i2"]])
    alone = served.rank(k=8, history=[["i3", "i9", "i1"]])
    assert several.items[1].tolist() == alone.items[0].tolist()
    np.testing.assert_allclose(several.scores[1], alone.scores[0], rtol=1e-5, atol=1e-6)


def test_what_a_history_holds_is_not_recommended_again():
    served = recommender(TRAINING, USERS, ITEMS)
    found = served.rank(k=N_ITEMS, history=[["i3", "i9"]])
    assert set(found.items[0]) == {f"i{n}" for n in range(N_ITEMS)} - {"i3", "i9"}


def test_an_empty_history_gets_the_most_popular_items():
    served = recommender(TRAINING, USERS, ITEMS, sparse_graph())
    found = served.rank(k=4, history=[[]], unknown="new")
    best = np.argsort(-COUNTS, kind="stable")[:4]
    assert found.items[0].tolist() == [f"i{n}" for n in best]
    assert found.scores[0].tolist() == COUNTS[best].tolist()


def test_the_addends_of_a_new_users_score_are_of_the_history_and_sum_to_it():
    served = recommender(TRAINING, USERS, ITEMS, sparse_graph())
    history = ["i3", "i9", "i1"]
    table = served.explain(items=["i0", "i7"], history=history)
    ranked = served.rank(k=N_ITEMS, history=[history], exclude="none")
    scores = dict(zip(ranked.items[0], ranked.scores[0]))
    assert set(table["source"]) == set(history)
    for item, rows in table.groupby("item"):
        assert rows["addend"].sum() == pytest.approx(scores[item], rel=1e-4, abs=1e-5)


def test_the_export_takes_the_map_that_finds_more_validation_items(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_mmrec(tmp_path, frame=interactions(75, 60), modalities={"text": features(60)})
    assert run_on(folder, "--bundle=toy.rec", "--item_score_weight=0", "--epochs=3") == 0
    bundle = read_bundle("toy.rec")
    taken, later = (
        [
            bundle.arrays[f"{part}.indices"][slice(*bundle.arrays[f"{part}.indptr"][user:][:2])]
            for user in range(len(bundle.users))
        ]
        for part in ("training", "validation")
    )
    vectors, items = (bundle.arrays[f"{kind}.vectors"] for kind in ("users", "items"))
    shape = len(bundle.users), len(bundle.items)
    training = sp.csr_matrix(
        (np.ones(sum(map(len, taken))), np.concatenate(taken), bundle.arrays["training.indptr"]),
        shape=shape,
    )
    recalls = []
    maps = fitted_maps(training, vectors, items, bundle.arrays["items.count"])
    for fold_in in maps:
        x = aggregated(training, items, bundle.arrays["items.count"])
        scores = x @ fold_in @ items.T
        scores[training.nonzero()] = -np.inf
        best = np.argsort(-scores, axis=1)[:, :20]
        recalls.append(np.mean([np.isin(w, b).mean() for w, b in zip(later, best)]))
    assert max(recalls) > min(recalls)
    chosen = maps[int(np.argmax(recalls))]
    np.testing.assert_allclose(bundle.arrays["fold_in.map"], chosen, rtol=1e-4, atol=1e-6)
