"""ContentKNN and ContentEASE against dense NumPy in double precision; gaps; limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import content_vectors, ridge_weights
from recbole_sigrec.graph.ridge import largest_into_each, weights_of_gram


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(name, **overrides)`` → the model."""

    def make(name, folder=planted.folder, **overrides):
        return prepare(make_config(name, folder, **overrides)).model

    return make


@pytest.fixture
def three(planted, with_audio):
    """The planted data with a third modality, and a fourth of its items without text."""
    text = planted.features["text"].copy()
    text[::4] = 0.0
    np.save(with_audio / "text_feat.npy", text)
    return with_audio


def reference_kernel(model, alpha, center):
    """Σ_m α_m cos over the modalities that both items have, pair by pair."""
    n = model.n_items
    kernel = np.zeros((n, n))
    for name, weight in alpha.items():
        x = model.features[name].numpy().astype(np.float64)
        has = np.flatnonzero(model.mask[name])
        if center:
            x = x - x[has].mean(axis=0)
        for i in has:
            for j in has:
                kernel[i, j] += weight * (x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))
    return kernel


def all_scores(model):
    users = Interaction({"user_id": torch.arange(model.n_users)})
    return model.full_sort_predict(users).detach().view(model.n_users, -1).numpy()


ALPHA = {"audio": 0.5, "image": 0.3, "text": 0.2}


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("given", [None, ALPHA])
def test_content_vectors(build, three, center, given):
    model = build("ContentKNN", three, center=center, modality_weights=given)
    assert (~model.mask["text"]).sum() > 10
    alpha = given or dict.fromkeys(("audio", "image", "text"), 1 / 3)
    z = content_vectors(model.features, model.mask, alpha, center).numpy().astype(np.float64)
    assert z.shape == (model.n_items, 5 + 12 + 8) and not z[0].any()
    np.testing.assert_allclose(z @ z.T, reference_kernel(model, alpha, center), atol=1e-6, rtol=0)


@pytest.mark.parametrize("k", [1, 5, 1000])
@pytest.mark.parametrize("case", ["three", "one", "uneven"])
def test_content_knn(build, planted, three, k, case):
    keys = {"three": {}, "one": {"modalities": ["image"]}, "uneven": {"modality_weights": ALPHA}}
    model = build("ContentKNN", three, knn_k=k, **keys[case])
    alpha = ALPHA if case == "uneven" else dict.fromkeys(model.modalities, 1.0)
    kernel = reference_kernel(model, alpha, center=True)
    norm = np.sqrt(np.diag(kernel))
    expected = np.zeros_like(kernel)  # row i: its neighbours
    for i in np.flatnonzero(norm > 0):
        cosine = np.where(norm > 0, kernel[i] / (norm[i] * np.maximum(norm, 1e-30)), -np.inf)
        cosine[i] = -np.inf
        near = np.argsort(-cosine)[:k]
        expected[i, near] = np.maximum(cosine[near], 0.0)
    scores = model.interactions.toarray().astype(np.float64) @ expected.T
    np.testing.assert_allclose(all_scores(model), scores, atol=1e-5, rtol=0)
    assert scores.any() and (np.count_nonzero(expected, axis=1) <= k).all()
    if case == "one":
        zero = int((~model.mask["image"])[1:].nonzero()) + 1
        assert not all_scores(model)[:, zero].any() and model.interactions[:, zero].nnz


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"modalities": ["text"], "reg_weight": 3.0, "content_weight": 7.0},
        {"modality_weights": ALPHA, "center": False, "content_weight": 50.0},
        {"content_weight": 0.0, "reg_weight": 5.0},
    ],
)
def test_content_ease(build, three, keys):
    model = build("ContentEASE", three, **keys)
    alpha = keys.get("modality_weights") or dict.fromkeys(
        model.modalities, 1 / len(model.modalities)
    )
    r = model.interactions.toarray().astype(np.float64)
    gram = r.T @ r + model.keys.content_weight * reference_kernel(model, alpha, model.keys.center)
    # Each column of B by itself: the least squares over all items but j.
    n = model.n_items
    expected = np.zeros((n, n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        a = gram[np.ix_(others, others)] + model.keys.reg_weight * np.eye(n - 1)
        expected[others, j] = np.linalg.solve(a, gram[others, j])
    np.testing.assert_allclose(model.similarity, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(all_scores(model), r @ expected, atol=1e-5, rtol=0)
    # Cold items: scored through their content alone.
    cold = np.flatnonzero(r.sum(axis=0) == 0)[1:]
    assert len(cold) == 4
    assert all_scores(model)[:, cold].any() == (model.keys.content_weight > 0)


BY_COSINES = {
    "ContentKNN": {},
    "ContentEASE": {},
    "SIGRec": {"semantic_init": "id", "item_score_weight": 0.3},
}
"""The models, with keys, that know items by their cosines alone."""


@pytest.mark.parametrize("missing", ["mean", "neighbor"])
@pytest.mark.parametrize("name", BY_COSINES)
@pytest.mark.parametrize("scale", [1e19, 1e-19, 1e29, 1e-29])
def test_scores_do_not_depend_on_the_scale_of_the_features(
    build, planted, copied, name, scale, missing
):
    for modality, rows in planted.features.items():
        np.save(copied / f"{modality}_feat.npy", (rows.astype(np.float64) * scale).astype("f4"))
    keys = {**BY_COSINES[name], "missing_modality": missing}
    expected = all_scores(build(name, **keys))
    found = all_scores(build(name, copied, **keys))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.ptp(expected))


def test_weights_of_gram_over_several_blocks(monkeypatch):
    monkeypatch.setattr("recbole_sigrec.graph.ridge._BLOCK", 7)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 23))
    gram = x.T @ x + 3 * np.eye(23)
    inverse = np.linalg.inv(gram)
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    given = gram.astype(np.float32)
    found = weights_of_gram(given)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert found.flags.c_contiguous and np.shares_memory(found, given)  # no second matrix


def test_a_gram_matrix_that_is_not_positive_definite():
    with pytest.raises(ValueError, match="raise the ridge"):
        weights_of_gram(np.array([[1.0, 2.0], [2.0, 1.0]], dtype=np.float32))


@pytest.mark.parametrize("max_items", [1, 56])
def test_a_ridge_that_is_too_small_is_named(build, max_items):
    with pytest.raises(ConfigError, match=r"\[reg_weight\] = \[1e-50\].*raise the ridge"):
        build("ContentEASE", reg_weight=1e-50, max_items=max_items)


@pytest.mark.parametrize("k", [4, 1000])
def test_many_items_keep_the_largest_positive_weights(build, three, k):
    exact = build("ContentEASE", three, max_items=56).similarity
    model = build("ContentEASE", three, max_items=55, largest_k=k)
    found = model.similarity.toarray()
    np.testing.assert_allclose(found[found > 0], exact[found > 0], atol=1e-5, rtol=0)
    kept = np.minimum((exact > 0).sum(axis=0), k)
    np.testing.assert_array_equal((found > 0).sum(axis=0), kept)
    dropped = np.where(found > 0, 0.0, exact)
    least = np.where(found > 0, found, np.inf).min(axis=0)
    assert (dropped <= np.minimum(least, np.inf if k < 57 else 0.0) + 1e-5).all()
    scores = model.interactions.toarray() @ found
    np.testing.assert_allclose(all_scores(model), scores, atol=1e-6, rtol=0)


def test_a_run_with_many_items_has_the_figures_of_one_with_few(run_on, planted, monkeypatch):
    def positive(*args, **weights):
        return largest_into_each(ridge_weights(*args, **weights), 20).toarray()

    many = run_on(planted.folder, "ContentEASE", max_items=55, largest_k=20)
    monkeypatch.setattr("recbole_sigrec.model.content_ease.ridge_weights", positive)
    few = run_on(planted.folder, "ContentEASE", max_items=56)
    assert many["test_result"] == few["test_result"] and max(few["test_result"].values()) > 0


@pytest.mark.parametrize("name", ["ContentKNN", "ContentEASE"])
def test_pairs_are_scored_as_in_full_ranking(build, name):
    model = build(name)
    full = all_scores(model)
    users, items = np.meshgrid(np.arange(model.n_users), np.arange(model.n_items))
    pairs = Interaction(
        {"user_id": torch.from_numpy(users.ravel()), "item_id": torch.from_numpy(items.ravel())}
    )
    got = model.predict(pairs).view(users.shape).T
    np.testing.assert_allclose(got, full, atol=1e-6, rtol=0)
    assert full[0].any() == 0 and full[1:].any(axis=1).sum() == 60  # [PAD], and one without history


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("ContentKNN", {"knn_k": 0}),
        ("ContentKNN", {"modality_weights": {"image": 1.0}}),
        ("ContentKNN", {"center": "perhaps"}),
        ("ContentEASE", {"reg_weight": 0}),
        ("ContentEASE", {"content_weight": -1}),
        ("ContentEASE", {"modality_weights": {"image": -1.0, "text": 2.0}}),
    ],
)
def test_bad_keys_are_refused(build, name, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}\]"):
        build(name, **bad)
