"""FREEDOM against NumPy: its frozen graph, the distribution of its pruning, its passes and loss."""

from __future__ import annotations

import contextlib
import itertools
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers_golden import RAW, TABLES, GoldenVectors, layers
from scipy.stats import chisquare

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import pruning
from recbole_sigrec.graph.pruning import sample_edges


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → the model."""

    def make(folder=planted.folder, **overrides):
        return prepare(make_config("FREEDOM", folder, **{"knn_k": 4, **overrides})).model

    return make


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    users, items, others = (torch.randint(1, n, (40,), generator=generator) for n in (40, 50, 50))
    return {"user_id": users, "item_id": items, "neg_item_id": others}


def dense(graph):
    with torch.no_grad():
        return array(graph(torch.eye(graph.shape[1])))


def symmetric(a):
    """D^{-1/2} A D^{-1/2} with D the row sums; nothing where they are zero."""
    degree = a.sum(axis=1)
    scale = np.array([d**-0.5 if d > 0 else 0.0 for d in degree])
    return scale[:, None] * a * scale[None, :]


def reference_knn(x, present, k):
    """1 where j is among the k items most like i, i itself among them."""
    graph = np.zeros((len(x), len(x)))
    for i in np.flatnonzero(present):
        cosine = x @ x[i] / np.linalg.norm(x[i]) / np.maximum(np.linalg.norm(x, axis=1), 1e-30)
        cosine[~present] = -np.inf
        graph[i, np.argsort(-cosine)[:k]] = 1.0
    return graph


def reference_forward(model, interactions, n_ui, n_ii):
    """h_u, h_i with the given interactions as the user-item graph."""
    n_users, n_items = interactions.shape
    a = np.zeros((n_users + n_items, n_users + n_items))
    a[:n_users, n_users:], a[n_users:, :n_users] = interactions, interactions.T
    a = symmetric(a)
    layers = [
        np.concatenate([array(model.user_embedding.weight), array(model.item_embedding.weight)])
    ]
    for _ in range(n_ui):
        layers.append(a @ layers[-1])
    mean = np.mean(layers, axis=0)
    h = layers[0][n_users:]
    for _ in range(n_ii):
        h = dense(model.item_graph) @ h
    return mean[:n_users], mean[n_users:] + h


def bpr(u, i, j):
    return np.log1p(np.exp((u * j).sum(axis=1) - (u * i).sum(axis=1))).mean()


@pytest.mark.parametrize(
    ("keys", "alpha"),
    [
        ({}, {"image": 0.1, "text": 0.9}),
        ({"modalities": ["text"]}, {"text": 1.0}),
        ({"modality_weights": {"image": 3, "text": 1}}, {"image": 0.75, "text": 0.25}),
    ],
)
def test_frozen_item_graph(build, keys, alpha):
    model = build(**keys)
    expected = sum(
        weight * symmetric(reference_knn(array(model.features[m]), model.mask[m].numpy(), 4))
        for m, weight in alpha.items()
    )
    np.testing.assert_allclose(dense(model.item_graph), expected, atol=1e-6, rtol=0)
    assert not expected[0].any()  # the padding item
    without = ~model.mask[next(iter(alpha))].numpy()
    assert without.sum() == (1 if "text" in keys.get("modalities", []) else 2)


def test_other_modalities_weigh_the_same(build, with_audio):
    model = build(with_audio)
    graphs = [
        symmetric(reference_knn(array(model.features[m]), model.mask[m].numpy(), 4))
        for m in ("audio", "image", "text")
    ]
    np.testing.assert_allclose(dense(model.item_graph), np.mean(graphs, axis=0), atol=1e-6, rtol=0)


def test_a_symmetric_item_graph(build):
    model = build(modalities=["text"], knn_symmetric=True)
    graph = reference_knn(array(model.features["text"]), model.mask["text"].numpy(), 4)
    expected = symmetric(np.maximum(graph, graph.T))
    np.testing.assert_allclose(dense(model.item_graph), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n_ui", "n_ii"), [(2, 1), (0, 2), (3, 0)])
@pytest.mark.parametrize("modalities", [["image", "text"], ["image"]])
def test_representations_and_losses(build, batch, n_ui, n_ii, modalities):
    model = build(n_ui_layers=n_ui, n_item_layers=n_ii, modalities=modalities, modal_weight=0.3)
    full = model.interactions.toarray()
    for got, expected in zip(model.representations(), reference_forward(model, full, n_ui, n_ii)):
        np.testing.assert_allclose(array(got), expected, atol=1e-6, rtol=0)

    np.random.seed(5)
    model.on_epoch_start(0)
    kept = (dense(model.pruned_graph)[: model.n_users, model.n_users :] > 0).astype(float)
    assert 0 < kept.sum() < full.sum() and (kept <= full).all()
    users, items = reference_forward(model, kept, n_ui, n_ii)
    u, i, j = (batch[key].numpy() for key in ("user_id", "item_id", "neg_item_id"))
    expected = [bpr(users[u], items[i], items[j]), 0.0]
    for m in modalities:
        x = array(model.raw[m]) @ array(model.project[m].weight).T + array(model.project[m].bias)
        has = model.mask[m].numpy()
        has = has[i] & has[j]
        assert has.all() == (m == "text")
        expected[1] += 0.3 * bpr(users[u[has]], x[i[has]], x[j[has]])
    got = [term.item() for term in model.calculate_loss(batch)]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    # Evaluation goes over the whole graph still.
    for got, expected in zip(model.representations(), reference_forward(model, full, n_ui, n_ii)):
        np.testing.assert_allclose(array(got), expected, atol=1e-6, rtol=0)


# ---- pruning -------------------------------------------------------------------------------------


def set_probabilities(weight, n):
    """The exact probability of each set of n, drawn one by one in proportion to their weights."""
    sets = {}
    for order in itertools.permutations(range(len(weight)), n):
        probability, left = 1.0, weight.sum()
        for e in order:
            probability *= weight[e] / left
            left -= weight[e]
        sets[tuple(sorted(order))] = sets.get(tuple(sorted(order)), 0.0) + probability
    return sets


@pytest.mark.parametrize("n", [1, 2, 3])
def test_pruning_is_weighted_sampling_without_replacement(n):
    degree_u, degree_i = np.array([3, 3, 3, 1, 1]), np.array([1, 2, 12, 2, 12])
    weight = (degree_u * degree_i) ** -0.5
    expected, draws = set_probabilities(weight, n), 6000
    assert sum(expected.values()) == pytest.approx(1.0)

    def p_value(sample):
        np.random.seed(1)
        count = dict.fromkeys(expected, 0)
        for _ in range(draws):
            count[tuple(sample())] += 1
        return chisquare(list(count.values()), draws * np.array(list(expected.values()))).pvalue

    assert p_value(lambda: sample_edges(weight, n)) > 0.05
    # The test would notice uniform sampling, and weights without the root.
    assert p_value(lambda: sample_edges(np.ones(5), n)) < 1e-9
    assert p_value(lambda: sample_edges(weight**2, n)) < 1e-9


def test_an_edges_weight_is_that_of_its_degrees(build):
    model = build()
    r = model.interactions.toarray()
    edges = model.pruning.edges
    assert edges.nnz == r.sum()
    for u, i, weight in zip(edges.row, edges.col, model.pruning.weight):
        assert weight == pytest.approx((r[u].sum() * r[:, i].sum()) ** -0.5, rel=1e-6)
    assert len(np.unique(model.pruning.weight.round(6))) > 3


@pytest.mark.parametrize("dropout", [0.8, 0.5, 0.9999])
def test_each_epoch_has_its_own_edges(build, dropout):
    model = build(edge_dropout=dropout)
    n = max(1, int(model.interactions.nnz * (1 - dropout)))
    np.random.seed(0)
    graphs = []
    for epoch in range(3):
        model.on_epoch_start(epoch)
        assert model.pruned_graph.nnz == 2 * n
        graphs.append(dense(model.pruned_graph))
        np.testing.assert_allclose(graphs[-1], symmetric((graphs[-1] > 0) * 1.0), atol=1e-6)
    assert not np.array_equal(graphs[0], graphs[1]) and not np.array_equal(graphs[1], graphs[2])
    np.random.seed(0)
    model.on_epoch_start(7)
    assert np.array_equal(dense(model.pruned_graph), graphs[0])


def test_without_pruning_nothing_is_drawn(build):
    model = build(edge_dropout=0)
    before = np.random.get_state()[1].copy()
    model.on_epoch_start(0)
    assert model.pruned_graph is model.graph
    assert np.array_equal(before, np.random.get_state()[1])


# ---- missing modalities and keys -----------------------------------------------------------------


def test_an_item_without_a_modality_takes_no_part_in_its_term(build, batch):
    model = build()
    zero = int((~model.mask["image"])[1:].nonzero()) + 1
    batch["item_id"][3] = batch["neg_item_id"][8] = zero
    loss = sum(model.calculate_loss(batch))
    image, text = torch.autograd.grad(loss, [model.raw["image"], model.raw["text"]])
    assert not image[zero].any() and image.any() and text[zero].any()
    zeros = torch.full((4,), zero)
    alone = build(modalities=["image"])
    terms = alone.calculate_loss(
        {"user_id": torch.arange(1, 5), "item_id": zeros, "neg_item_id": torch.arange(5, 9)}
    )
    assert terms[0] > 0 and terms[1] == 0
    sum(terms).backward()
    assert not dense(alone.item_graph)[zero].any() and not dense(alone.item_graph)[:, zero].any()


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, batch, trained):
    model = build(train_features=trained)
    sum(model.calculate_loss(batch)).backward()
    names = dict(model.named_parameters())
    assert any(name.startswith("raw.") for name in names) == trained
    for name, parameter in names.items():
        if name.startswith("project") and name.endswith("bias"):
            assert parameter.grad.abs().max() < 1e-6  # it cancels between i and j
        else:
            assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


@pytest.mark.parametrize(
    "bad",
    [
        {"edge_dropout": 1.0},
        {"edge_dropout": -0.1},
        {"knn_k": 0},
        {"modal_weight": -1},
        {"modality_weights": {"image": 1.0}},
        {"modality_weights": {"image": 1.0, "text": -0.5}},
        {"modality_weights": {"image": 0, "text": 0}},
        {"modality_weights": [1, 2]},
    ],
)
def test_bad_keys_are_refused(build, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}\]"):
        build(**bad)


# ---- golden vectors ------------------------------------------------------------------------------


class TestGolden(GoldenVectors):
    model = "FREEDOM"
    keys = {
        **{key: key for key in ("embedding_size", "n_ui_layers", "knn_k")},
        **{"n_item_layers": "n_mm_layers", "modal_weight": "reg_weight", "edge_dropout": "dropout"},
    }
    parameters = {**TABLES, **RAW, **layers("project.{name}", "project.{name}")}
    terms = [("bpr",), ("bpr.image", "bpr.text")]
    wrong = {"n_item_layers": 2, "knn_k": 4, "modality_weights": {"image": 0.2, "text": 0.8}}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        users, items = golden.users.numpy(), golden.items.numpy()
        drawn = users[golden.arrays["rand.kept_user"]], items[golden.arrays["rand.kept_item"]]
        edges = golden.model.pruning.edges
        places = {pair: place for place, pair in enumerate(zip(edges.row, edges.col))}

        def sample(weight, n):
            assert (len(weight), n) == (edges.nnz, len(drawn[0]))
            return np.sort([places[pair] for pair in zip(*drawn)])

        with patch.object(pruning, "sample_edges", sample):
            golden.model.on_epoch_start(0)
            yield

    def middle(self, golden):
        return {"item_graph": torch.from_numpy(dense(golden.model.item_graph))}


class TestGoldenPruned(TestGolden):
    variant = "pruned"
    keys = {**TestGolden.keys, "edge_dropout": "rate"}
    wrong = {"edge_dropout": 0.0, "n_ui_layers": 1}
