"""DA-MRS against golden vectors and slow rewritings of its steps; missing modalities."""

from __future__ import annotations

import helpers_models as ref
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers_golden import TABLES, GoldenVectors, dense

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import SparseGraph
from recbole_sigrec.model import pseudo_neighbors
from recbole_sigrec.model.batch import Batch
from recbole_sigrec.model.pseudo_neighbors import pseudo_neighbor_loss

BEHAVIOR = "mid.graph_behavior"


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared DA-MRS whose terms are all large enough to matter."""

    def make(folder=planted.folder, **overrides):
        keys = {"neighbor_weight": 0.1, "knn_k": 4, **overrides}
        return ref.enlarged(prepare(make_config("DAMRS", folder, **keys)))

    return make


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def reference_neighbors(u, anchors, k, temperature):
    """L_nb, anchor by anchor; u [V, n, d] in float64, with a gradient."""
    probability = torch.stack([(x[anchors] @ x.T).softmax(dim=1) for x in u]).detach()
    total = 0.0
    for view, own in zip(u, probability):
        for row, i in enumerate(anchors.tolist()):
            e = ((view @ view[i]) / temperature).exp()
            votes = probability[:, row].sum(dim=0) + own[row]
            first = votes.argsort(descending=True)[:k]
            left = own[row].clone()
            left[first] = 0.0
            second = left.argsort(descending=True)[:k]
            near, rest = e[first].sum(), e.sum() - e[first].sum()
            total = total - (near / e.sum() + 1e-9).log() - (e[second].sum() / rest + 1e-9).log()
    return total


@pytest.mark.parametrize(("n", "k"), [(40, 10), (40, 3), (7, 10)])
@pytest.mark.parametrize("entries", [1, 3 * 40, 2**20])
def test_pseudo_neighbors(monkeypatch, n, k, entries):
    monkeypatch.setattr(pseudo_neighbors, "_ENTRIES", entries)
    torch.manual_seed(n + k)
    x = torch.randn(3, n, 6, dtype=torch.float64, requires_grad=True)
    anchors = torch.tensor([0, 2, 3, 6])
    u = torch.nn.functional.normalize(x, dim=2)
    got = pseudo_neighbor_loss(u, anchors, k, 0.3)
    expected = reference_neighbors(u, anchors, min(k, n // 2), 0.3)
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)
    one, two = (torch.autograd.grad(3 * loss, x, retain_graph=True)[0] for loss in (got, expected))
    torch.testing.assert_close(one, two, atol=1e-12, rtol=1e-9)


def reference(model):
    """U, I⁰, and h^v [V, n_items, d], with dense float64 matrices."""
    r, keys = model.interactions.toarray().astype(np.float64), model.keys
    ids = ref.array(model.item_embedding.weight)
    ego = np.concatenate([ref.array(model.user_embedding.weight), ids])
    final = ref.lightgcn(r, ego, keys.n_ui_layers)
    views = []
    for graph in (*model.item_graph.values(), model.behavior_graph):
        s = ref.by_row_sums((ref.dense(graph) > 0).astype(np.float64))
        h = ids
        for _ in range(keys.n_layers):
            h = s @ h
        views.append(h)
    return final[: len(r)], final[len(r) :], np.stack(views)


@pytest.mark.parametrize("keys", [{}, {"n_layers": 2}, {"modalities": ["text"]}])
def test_representations_and_losses(build, keys):
    check(build(**keys).model)


def test_three_modalities(build, with_audio):
    model = build(with_audio).model
    assert model.modalities == ["audio", "image", "text"] and len(model.views()) == 4
    check(model)


def check(model):
    users, items, views = reference(model)
    final = items + views.mean(axis=0)
    for got, expected in zip(model.representations(), (users, final)):
        np.testing.assert_allclose(ref.array(got), expected, atol=1e-6, rtol=0)

    batch = ref.batch_with_repetitions()
    u, i, j = ref.ids(batch)
    near = unit(np.where(views == 0, 1e-30, views))
    p, negative = (ref.sigmoid((users[u] * near[:, x]).sum(axis=2)) for x in (i, j))
    noise, mean = negative.mean(), p.mean(axis=0)
    sure = np.clip(mean * np.exp(-2 * p.var(axis=0, ddof=1)), 0, 1)
    unsure = np.where(mean < noise, np.clip(p.max(axis=0) - noise, 0, 1), 0)
    assert 0.1 < (unsure > 0).mean() < 0.9
    delta = (users[u] * (final[i] - final[j])).sum(axis=1)
    rec = (sure * np.log1p(np.exp(-delta)) + unsure * np.log1p(np.exp(delta))).mean()

    anchors = np.unique([i, j])
    candidates, rows = torch.from_numpy(near[:, 1:]), torch.from_numpy(anchors - 1)
    neighbor = reference_neighbors(candidates, rows, 10, 0.2).item() / len(anchors) / len(views)
    of = users[np.unique(u)]
    a, c = (ref.sigmoid(of @ unit(x[anchors]).T) for x in (items, views.mean(axis=0)))
    kl = (a - c) * (np.log(a / c) - np.log((1 - a) / (1 - c)))
    terms = [rec, 0.1 * neighbor, kl.mean()]
    assert min(terms) > 1e-3
    np.testing.assert_allclose(ref.losses(model, batch), terms, atol=1e-6, rtol=1e-5)


def test_behavior_graph(build):
    model = build().model
    r = model.interactions.toarray()
    shared, graph = r.T @ r, ref.dense(model.behavior_graph) > 0
    for item in range(1, model.n_items):
        others = np.delete(shared[item], item)
        best = np.sort(others)[::-1][:2]
        chosen = np.delete(graph[item], item)
        assert graph[item, item] and sorted(others[chosen]) == sorted(best[best >= 2])
    assert not graph[0].any() and not graph[:, 0].any()
    assert (graph.sum(axis=1) == 1).sum() >= 2  # cold items, and those that share one user at most


def test_an_item_without_a_modality_has_its_loop_alone(build, planted):
    prepared = build()
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    image, text = (ref.dense(prepared.model.item_graph[name]) for name in ("image", "text"))
    alone = np.eye(len(image))[item]
    np.testing.assert_array_equal(image[item], alone)
    np.testing.assert_array_equal(image[:, item], alone)
    assert (text[item] > 0).sum() > 1 and text[item, item] > 0
    assert not image[0].any() and not text[:, 0].any()
    view = prepared.model.views()[0]
    assert torch.equal(view[item], prepared.model.item_embedding.weight[item])


@pytest.mark.parametrize(("key", "term"), [("neighbor_weight", 1), ("kl_weight", 2)])
def test_a_weight_of_zero_switches_its_term_off(build, key, term):
    ref.check_switch(build, key, 0.7, term)


def test_gradient_reaches_every_parameter(build):
    ref.check_gradients(build().model)


def test_padding_is_no_candidate(build):
    model, batch = build().model, ref.batch_with_repetitions()
    before = ref.losses(model, batch)
    with torch.no_grad():
        model.user_embedding.weight[0] = model.item_embedding.weight[0] = 50.0
    assert torch.equal(ref.losses(model, batch), before)


@pytest.mark.parametrize(
    "key", [{"knn_k": 0}, {"kl_weight": -1}, {"temperature": 0}, {"collab_knn_k": 0}]
)
def test_bad_keys_are_refused(planted, make_config, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        make_config("DAMRS", planted.folder, **key)


class TestGolden(GoldenVectors):
    model = "DAMRS"
    keys = {
        **{key: key for key in ("embedding_size", "n_ui_layers", "knn_k")},
        **{key: key for key in ("neighbor_weight", "kl_weight")},
        **{"n_layers": "n_mm_layers", "collab_knn_k": "behavior_graph_topk"},
        **{"collab_min_users": "behavior_graph_min_users"},
    }
    parameters = TABLES
    terms = [("weighted_bpr",), ("neighbour",), ("kl",)]
    wrong = {"n_layers": 2, "knn_k": 4, "n_neighbors": 9, "temperature": 0.21}

    def arrange(self, golden):
        """Some items have ties in the behaviour graph, which the vectors break in another way."""
        golden.made = golden.model.behavior_graph
        golden.model.behavior_graph = SparseGraph(sp.csr_matrix(golden.ours(BEHAVIOR).numpy()))

    def test_golden_behavior_graph_but_for_ties(self, build):
        golden = build()
        r = golden.model.interactions.toarray()
        shared = golden.theirs(torch.from_numpy(r.T @ r))
        made, given = golden.theirs(dense({"": golden.made})[""]), golden.arrays[BEHAVIOR]
        for counts, ours, theirs in zip(shared, made, given):
            assert sorted(counts[ours > 0]) == sorted(counts[theirs > 0])
        np.testing.assert_allclose(made.diagonal(), given.diagonal(), rtol=1e-6)

    def middle(self, golden):
        model, batch = golden.model, Batch.from_interaction(golden.model, golden.batch())
        users, _ = model.behavior(batch).split([len(batch.users), len(batch.items)])
        near = torch.nn.functional.normalize(model.views()[:, batch.items], dim=2)
        names = "positive_weight", "negative_weight"
        graphs = {f"graph_{name}": graph for name, graph in model.item_graph.items()}
        return {**dense(graphs), **dict(zip(names, model.weights(batch, users, near)))}


def test_a_low_temperature_does_not_overflow():
    views = torch.nn.functional.normalize(torch.randn(3, 40, 8), dim=2).requires_grad_()
    loss = pseudo_neighbor_loss(views, torch.arange(5), 10, 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(views.grad).all()
