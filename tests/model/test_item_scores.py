"""The scores of an item graph: against dense NumPy in double precision, with every model's."""

from __future__ import annotations

import helpers_models as ref
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from recbole.data.interaction import Interaction

from recbole_sigrec import load_data_and_model
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph.ridge import largest_into_each
from recbole_sigrec.model.item_scores import ItemScores, spread

MODELS = ["SIGRec", "MGCN", "SMORE"]
GIVEN = {"item_score_weight": 0.3, "item_score_k": 5, "item_score_reg": 3.0}


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(name, **overrides)`` → a prepared model that adds such scores."""

    def make(name, **overrides):
        return prepare(make_config(name, planted.folder, **{**GIVEN, **overrides}))

    return make


def full_scores(model, users=None):
    users = torch.arange(model.n_users) if users is None else users
    with torch.no_grad():
        scores = model.full_sort_predict(Interaction({"user_id": users}))
    return scores.view(len(users), -1)


def reference_scores(model):
    """s [n_users, n_items]: each item's own least squares, its k largest positive weights."""
    keys, n = model.keys, model.n_items
    r = model.interactions.toarray().astype(np.float64)
    given = getattr(keys, "modality_weights", None) or dict.fromkeys(model.modalities, 1.0)
    kernel = np.zeros((n, n))
    for name, weight in given.items():
        x, has = ref.array(model.features[name]), model.mask[name].numpy()
        x = (x - x[has].mean(axis=0)) * has[:, None]
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        kernel += weight / sum(given.values()) * x @ x.T
    gram = r.T @ r + keys.item_score_content * kernel
    b = np.zeros((n, n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        ridge = keys.item_score_reg * np.eye(n - 1)
        w = np.linalg.solve(gram[np.ix_(others, others)] + ridge, gram[others, j])
        kept = np.argsort(-w)[: keys.item_score_k]
        b[others[kept], j] = np.maximum(w[kept], 0.0)
    return r @ b


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "given", [{}, {"item_score_content": 0}, {"item_score_k": 1000, "item_score_weight": 2.0}]
)
def test_scores(build, name, given):
    model = ref.enlarged(build(name, **given)).model
    users, items = (ref.array(part) for part in model.eval().representations())
    learned, s = users @ items.T, reference_scores(model)
    deviation = s[:, 1:].std(axis=1)
    has = deviation > 0
    assert not has[0] and has[1:].sum() == len(has) - 2  # [PAD], and one without a history
    scale = np.divide(model.keys.item_score_weight, deviation, out=np.zeros(len(s)), where=has)
    expected = learned + learned[:, 1:].std(axis=1)[:, None] * scale[:, None] * s
    np.testing.assert_allclose(full_scores(model), expected, atol=1e-5, rtol=1e-5)
    assert np.abs(expected - learned).max() > 0.1


def test_the_modalities_weigh_as_in_the_fusion(build):
    weights = {"image": 0.9, "text": 0.1}
    one = build("SIGRec", fusion="mean", modality_weights=weights).model
    two = build("SIGRec", fusion="mean").model
    difference = one.item_scores.graph - two.item_scores.graph
    assert abs(difference).max() > 1e-3
    np.testing.assert_allclose(
        (one.interactions @ one.item_scores.graph).toarray(), reference_scores(one), atol=1e-5
    )


@pytest.mark.parametrize("name", MODELS)
def test_pairs_are_scored_as_in_full_ranking(build, name):
    model = ref.enlarged(build(name)).model.eval()
    full = full_scores(model)
    users, items = (
        x.ravel() for x in np.meshgrid(np.arange(model.n_users), np.arange(model.n_items))
    )
    pairs = {"user_id": torch.from_numpy(users), "item_id": torch.from_numpy(items)}
    with torch.no_grad():
        got = model.predict(Interaction(pairs))
    np.testing.assert_allclose(got, full[users, items], atol=1e-5, rtol=1e-5)
    some = torch.tensor([3, 0, 3, 17])  # in any order, repeated
    np.testing.assert_allclose(full_scores(model, some), full[some], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_training_does_not_see_them(build, name):
    def fit(weight):
        prepared = build(name, item_score_weight=weight, epochs=2, stopping_step=5)
        prepared.trainer.fit(prepared.train, prepared.valid, saved=False)
        return prepared

    without, given = fit(0.0), fit(0.5)
    assert without.model.item_scores is None and given.model.item_scores is not None
    for one, two in zip(without.model.parameters(), given.model.parameters()):
        assert torch.equal(one, two)
    losses = [[h["train_loss"] for h in x.trainer.history] for x in (without, given)]
    assert losses[0] == losses[1]
    assert not torch.equal(full_scores(without.model.eval()), full_scores(given.model.eval()))


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_has_them(build, name):
    prepared = build(name, epochs=1)
    prepared.trainer.fit(prepared.train, prepared.valid)
    before = full_scores(prepared.model.eval())
    model = load_data_and_model(prepared.trainer.saved_model_file)[1]
    assert model.item_scores is not None and torch.equal(full_scores(model.eval()), before)


def test_their_weight_does_not_depend_on_the_size_of_the_representations():
    rng = np.random.default_rng(4)
    users = torch.from_numpy(rng.normal(size=(6, 5)))
    items = torch.from_numpy(rng.normal(size=(9, 5)) + 3.0)
    expected = (users @ items[1:].T).std(dim=1, correction=0)
    torch.testing.assert_close(spread(users, items), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(spread(7 * users, items), 7 * expected, atol=1e-9, rtol=0)
    assert spread(users, items.clone().fill_(2.0)).abs().max() < 1e-6


def test_users_without_scores_have_none():
    r = sp.csr_matrix(np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=np.float32))
    b = np.zeros((4, 4), dtype=np.float32)
    b[1, 2], b[2, 3] = 0.5, 1.0
    scores = ItemScores(r, sp.csr_matrix(b), 2.0)
    deviation = np.std([0.0, 0.5, 1.0])
    expected = np.zeros((3, 4))
    expected[2, 2:] = 1 / deviation, 2 / deviation
    for weight in (None, 2.0, 1.0):  # asked again, a user's deviation is known
        own, factor = scores.of_users(torch.tensor([0, 2, 1]), weight)
        found = own * factor[:, None]
        np.testing.assert_allclose(found, expected * (weight or 2.0) / 2.0, rtol=1e-6)
    everything = sp.csr_matrix(np.ones((4, 4), dtype=np.float32) - np.eye(4)[[0]].T)
    equal = ItemScores(r, everything[:, [0, 1, 1, 1]] * np.float32(0.1), 2.0)
    assert not equal.of_users(torch.tensor([1]))[1].any()  # tells no item from another
    own, factor = scores.of_users(torch.tensor([0, 2]))
    assert own.shape == (2, 4) and not own.any() and not factor.any()


@pytest.mark.parametrize("name", MODELS)
def test_no_pairs_have_no_scores(build, name):
    model, none = build(name).model.eval(), torch.zeros(0, dtype=torch.int64)
    got = model.predict(Interaction({"user_id": none, "item_id": none}))
    assert got.shape == (0,) and got.dtype == torch.float32
    assert model.full_sort_predict(Interaction({"user_id": none})).shape == (0,)


@pytest.mark.parametrize("k", [1, 3, 20, 50])
def test_largest_into_each(monkeypatch, k):
    monkeypatch.setattr("recbole_sigrec.graph.ridge._BLOCK", 7)
    weights = np.random.default_rng(k).normal(size=(20, 20)).astype(np.float32)
    expected = np.zeros_like(weights)
    for j in range(20):
        for i in sorted(range(20), key=lambda i: -weights[i, j])[:k]:
            expected[i, j] = max(weights[i, j], 0.0)
    np.testing.assert_array_equal(largest_into_each(weights, k).toarray(), expected)


def test_the_graph_is_kept_under_all_that_it_is_made_of(build, tmp_path):
    folder = tmp_path / "graphs"

    def files(**overrides):
        build("SIGRec", graph_cache_dir=str(folder), **overrides)
        return {path.name for path in folder.glob("ridge-*.npz")}

    first = files()
    assert len(first) == 1 and files() == first
    for number, change in enumerate(
        [{"item_score_k": 4}, {"item_score_reg": 4.0}, {"item_score_content": 1}]
    ):
        assert len(files(**change)) == number + 2
    assert len(files(modality_weights={"image": 0.9, "text": 0.1})) == 5
    assert len(files(item_score_weight=0.7)) == 5  # only how much they count


@pytest.mark.parametrize("name", MODELS)
def test_a_run_with_many_items_has_the_figures_of_one_with_few(run_on, planted, name):
    """56 items, of which the inverse may be made or not."""
    equal = {"modality_weights": None} if name == "SIGRec" else {}
    given = {**GIVEN, **equal, "item_score_content": 10.0, "topk": [3, 5]}
    few, many = (
        run_on(planted.folder, name, item_score_max_items=most, **given) for most in (56, 55)
    )
    for part in ("best_valid_result", "test_result"):
        found = {metric: round(value, 4) for metric, value in many[part].items()}
        assert found == {metric: round(value, 4) for metric, value in few[part].items()}
        assert max(found.values()) > 0


@pytest.mark.parametrize(
    "given", [{"item_score_reg": 1e-50}, {"item_score_reg": 1e39}, {"item_score_content": 1e39}]
)
def test_what_float32_cannot_solve(build, given):
    (key, value), *_ = given.items()
    for most in (1, 56):  # solved in blocks, or by the inverse
        with pytest.raises(ConfigError, match=rf"\[{key}\] = \[{value}\]".replace("+", r"\+")):
            build("MGCN", item_score_max_items=most, **given)
