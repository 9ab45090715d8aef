"""PGL: its golden vectors, its two subgraphs, its views and missing modalities."""

from __future__ import annotations

import contextlib

import helpers_models as ref
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers_golden import RAW, GoldenVectors, dense, layers

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import SparseGraph, spectral_subgraph
from recbole_sigrec.model.pgl import F


class TestGolden(GoldenVectors):
    model = "PGL"
    keys = {
        **{key: key for key in ("embedding_size", "n_ui_layers", "knn_k", "mode", "dropout")},
        **{"n_item_layers": "n_mm_layers", "cl_weight": "reg_weight"},
    }
    parameters = {
        **{f"user.{name}": f"preference.{name}" for name in ("image", "text")},
        **RAW,
        **layers("project.{name}", "project.{name}"),
    }
    terms = [("bpr",), ("infonce_user", "infonce_item")]
    wrong = {"temperature": 0.21, "n_ui_layers": 3, "modality_weights": {"image": 0.2, "text": 0.8}}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        kept = (golden.tensor(f"rand.kept_{side}") for side in ("user", "item"))
        pairs = (rows[place] for rows, place in zip((golden.users, golden.items), kept))
        golden.model.principal_graph = golden.model.pruning.of_pairs(
            *(rows.numpy() for rows in pairs)
        )
        masks = [
            golden.tensor(f"rand.keep_{side}_view{n}") for side in ("user", "item") for n in (1, 2)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(F, "dropout", lambda h, p: h * masks.pop(0) / (1 - p))
            yield

    def middle(self, golden):
        graphs = {"item_graph": golden.model.item_graph}
        graphs["global_subgraph"] = SparseGraph(spectral_subgraph(golden.model.interactions, 16))
        return dense(graphs)

    def test_golden_draw_has_as_many_edges(self, build):
        golden = build()
        golden.model.on_epoch_start(0)
        assert golden.model.principal_graph.nnz == 2 * len(golden.arrays["rand.kept_user"])

    def test_golden_subgraph_of_mode_global(self, build):
        golden = build(mode="global")
        subgraph = golden.model.principal_graph
        golden.check("mid.global_subgraph", dense({"": subgraph})[""])
        golden.model.on_epoch_start(0)
        assert golden.model.principal_graph is subgraph
        golden.check("scores", golden.scores())


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → the model."""

    def make(folder=planted.folder, **overrides):
        return prepare(make_config("PGL", folder, **{"knn_k": 4, **overrides})).model

    return make


def reference(model, interactions):
    """h_u and h_i with dense float64 matrices, for image and text at their published weights."""
    x, s = [], 0.0
    for name, weight in {"image": 0.1, "text": 0.9}.items():
        mask = model.mask[name].numpy()
        y = ref.affine(model.project[name], ref.array(model.raw[name]))
        x.append(mask[:, None] * y / np.linalg.norm(y, axis=1, keepdims=True))
        s = s + weight * ref.by_row_sums(ref.knn(model.features[name].numpy(), mask, model.keys))
    p = np.concatenate([ref.array(model.preference[name]) for name in ("image", "text")], axis=1)
    x = np.concatenate(x, axis=1)
    h = ref.lightgcn(interactions, np.concatenate([p, x]), model.keys.n_ui_layers)
    users, items = np.split(h, [model.n_users])
    return users, items + np.linalg.matrix_power(s, model.keys.n_item_layers) @ x


def test_training_is_on_the_subgraph_and_evaluation_on_the_whole(build):
    model, batch = build(cl_weight=0.0, n_item_layers=2), ref.batch_with_repetitions()
    whole = model.interactions.toarray().astype(np.float64)
    model.on_epoch_start(0)
    kept = ref.dense(model.principal_graph)[: model.n_users, model.n_users :] > 0
    assert kept.sum() == int(0.3 * whole.sum()) and (kept <= whole).all()
    users, items = reference(model, kept.astype(np.float64))
    u, i, j = ref.ids(batch)
    expected = ref.bpr(users[u], items[i], items[j]), 0.0
    np.testing.assert_allclose(ref.losses(model, batch), expected, atol=1e-5, rtol=0)
    for got, part in zip(model.representations(), reference(model, whole)):
        np.testing.assert_allclose(ref.array(got), part, atol=1e-6, rtol=0)


def test_each_epoch_has_its_own_edges(build):
    model = build(edge_dropout=0.4)
    np.random.seed(0)
    graphs = []
    for epoch in range(2):
        model.on_epoch_start(epoch)
        graphs.append(model.principal_graph)
        assert graphs[-1].nnz == 2 * int(0.6 * model.interactions.nnz)
    assert not torch.equal(graphs[0].entries()[1], graphs[1].entries()[1])
    np.random.seed(0)
    model.on_epoch_start(0)
    assert torch.equal(model.principal_graph.entries()[1], graphs[0].entries()[1])


@pytest.mark.parametrize("keys", [{"edge_dropout": 0.0}, {"mode": "global"}])
def test_other_subgraphs_are_not_drawn(build, keys):
    model = build(**keys)
    before, graph = np.random.get_state()[1].copy(), model.principal_graph
    model.on_epoch_start(0)
    assert model.principal_graph is graph
    assert (graph is model.graph) == ("mode" not in keys)
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("rank", [8, 16, 24])
def test_the_spectral_subgraph_is_that_of_a_dense_svd(build, rank):
    """More users than a block has, and a row and a column without an entry."""
    rng = np.random.default_rng(1)
    r = (rng.random((300, 25)) < 0.2 * rng.random(25)).astype(np.float64)
    r[0], r[:, 0] = 0.0, 0.0
    u, s, vt = np.linalg.svd(ref.bipartite(r))
    q = rank // 4 // 2 * 2
    weights = s[:q] * s[rank - q : rank]
    expected = (u[:, :q] * weights) @ vt[:q]
    small = np.abs(expected) < 1e-3
    assert 0.05 < small[:300, 300:].mean() < 0.95
    got = spectral_subgraph(sp.csr_matrix(r), rank)
    np.testing.assert_allclose(got.toarray(), np.where(small, 0.0, expected), atol=1e-6, rtol=0)
    assert got.dtype == np.float32 and SparseGraph(got).symmetric


def test_a_spectral_subgraph_of_few_nodes():
    got = spectral_subgraph(sp.csr_matrix(np.array([[1.0, 1.0], [0.0, 1.0]])), 64).toarray()
    assert got.shape == (4, 4) and got.any() and np.isfinite(got).all()


def test_views_are_of_independent_masks(build, monkeypatch):
    """Each row has a mask of its own; the rest is scaled, so that the mean stays."""
    model = build(dropout=0.3)
    views = []
    monkeypatch.setattr("recbole_sigrec.model.pgl.info_nce", lambda *x, **_: views.append(x[:2]))
    torch.manual_seed(0)
    model.between_views(torch.ones(2000, 8))
    one, two = views[0]
    for view in (one, two):
        torch.testing.assert_close(view.unique(), torch.tensor([0.0, 1 / 0.7]))
        assert view.mean().item() == pytest.approx(1.0, abs=0.02)
    assert ((one > 0) & (two > 0)).float().mean().item() == pytest.approx(0.49, abs=0.02)
    assert ((one[0] > 0) != (one[1] > 0)).any()


def test_start(build):
    model = build(embedding_size=64)
    bound = (6 / (model.n_users + 64)) ** 0.5  # Xavier-uniform
    for table in model.preference.values():
        assert 0.95 * bound < table.abs().max() <= bound
    for name, layer in model.project.items():
        bound = model.features[name].shape[1] ** -0.5  # torch's default
        assert 0.95 * bound < layer.weight.abs().max() <= bound


def test_three_modalities(build, with_audio):
    model = build(with_audio)
    assert model.modalities == ["audio", "image", "text"]
    users, items = model.representations()
    assert users.shape[1] == items.shape[1] == 3 * 16
    parts = [
        ref.knn(x.numpy(), model.mask[m].numpy(), model.keys) for m, x in model.features.items()
    ]
    expected = np.mean([ref.by_row_sums(part) for part in parts], axis=0)
    np.testing.assert_allclose(ref.dense(model.item_graph), expected, atol=1e-6, rtol=0)


def test_an_item_without_a_modality_has_zeros_in_its_part(build):
    model = build()
    zero = int((~model.mask["image"])[1:].nonzero()) + 1
    x = model.items().detach()
    assert not x[0].any() and not x[zero, :16].any()
    torch.testing.assert_close(x[zero, 16:].norm(), torch.tensor(1.0))
    ref.check_row_is_not_read(model, zero)
    alone = ref.dense(build(modalities=["image"]).item_graph)
    assert not alone[zero].any() and not alone[:, zero].any()


def test_cl_weight_zero_switches_its_term_off(build):
    on, off = (ref.losses(build(cl_weight=w), ref.batch_with_repetitions()) for w in (0.7, 0.0))
    assert off[1] == 0 < on[1] and on[0] == off[0]


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, trained):
    ref.check_gradients(build(train_features=trained), raw=trained)


@pytest.mark.parametrize("bad", [{"mode": "both"}, {"edge_dropout": 1.0}, {"dropout": -0.1}])
def test_bad_keys_are_refused(build, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}\]"):
        build(**bad)
