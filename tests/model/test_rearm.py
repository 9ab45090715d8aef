"""REARM against golden vectors, and its parts: graphs, attention, low-rank maps, overlap."""

from __future__ import annotations

import contextlib

import helpers_models as ref
import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from helpers_golden import RAW, TABLES, GoldenVectors, dense, layer, layers

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import SparseGraph
from recbole_sigrec.model import homogeneous
from recbole_sigrec.model.dimension_attention import DimensionAttention, Refinement
from recbole_sigrec.model.homogeneous import filled_cooccurrence, interests
from recbole_sigrec.model.layers import LowRankMap
from recbole_sigrec.model.losses import overlap


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared REARM whose terms are all large enough to matter."""

    def make(folder=planted.folder, **overrides):
        keys = {"knn_k": 5, "user_knn_k": 7, "cl_weight": 0.5, "orthogonal_weight": 0.5}
        return prepare(make_config("REARM", folder, **{**keys, **overrides}))

    return make


def attend(layer, x, y, kept=None):
    """Attention of width 1 with all weights at once."""
    (a, b, c), (s, t, u) = layer.inner.weight[:, 0], layer.inner.bias
    w = ((a * x + s)[:, :, None] * (b * y + t)[:, None, :]).softmax(dim=2)
    if kept is not None:
        w = w * kept / layer.share
    return layer.outer.weight[0] * (w @ (c * y + u)[..., None]).squeeze(2) + layer.outer.bias


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_attention_and_its_gradient(monkeypatch, dropout):
    attention = DimensionAttention(dropout).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    x, y = torch.randn(2, 1100, 16, dtype=torch.float64).unbind()  # two blocks
    tables = [x.requires_grad_(), y.requires_grad_(), *attention.parameters()]
    kept = attention.kept(1100, 16, x.device)
    monkeypatch.setattr(attention, "kept", lambda *_: kept)
    results = attention(x, y), attend(attention, x, y, kept)
    torch.testing.assert_close(*results)
    weight = torch.randn_like(results[0])
    gradients = [torch.autograd.grad((weight * result).sum(), tables) for result in results]
    torch.testing.assert_close(*gradients)
    assert torch.equal(attention.eval()(x, y), attention(x, y))
    torch.testing.assert_close(attention(x, y), attend(attention, x, y))


def test_attention_of_large_scores():
    attention = DimensionAttention(0.0)
    x = 200 * torch.randn(5, 9)
    torch.testing.assert_close(attention(x, x), attend(attention, x, x))


def test_kept_weights_are_independent_draws():
    kept = DimensionAttention(0.7).kept(400, 32, torch.device("cpu")).double()
    assert kept.mean().item() == pytest.approx(0.3, abs=4 * (0.21 / kept.numel()) ** 0.5)
    for axis in range(3):
        ahead, behind = kept.narrow(axis, 1, 31), kept.narrow(axis, 0, 31)
        both = (ahead * behind).mean().item()
        assert both == pytest.approx(0.09, abs=4 * (0.09 / ahead.numel()) ** 0.5)
    assert DimensionAttention(0.0).kept(4, 4, torch.device("cpu")) is None
    off = DimensionAttention(1.0)
    assert not off.kept(4, 4, torch.device("cpu")).any()
    out = off(torch.randn(3, 4), torch.randn(3, 4))
    assert torch.equal(out, torch.zeros(3, 4))  # the bias


def test_refinement_of_three_modalities():
    refine = Refinement(["a", "b", "c"], 4, 0.0, 0.0)
    table = torch.randn(6, 12)

    def finish(x):
        return refine.activation(refine.norm(x))

    own = [finish(y + attend(refine.within[n], y, y)) for n, y in zip("abc", table.chunk(3, 1))]
    asked = refine.across["b"]
    found = (attend(asked["a"], own[0], own[1]) + attend(asked["c"], own[2], own[1])) / 2
    torch.testing.assert_close(refine(table)[:, 4:8], finish(own[1] + found))
    alone = Refinement(["a"], 4, 0.0, 0.0)
    y = table[:, :4]
    expected = alone.activation(alone.norm(y + attend(alone.within["a"], y, y)))
    torch.testing.assert_close(alone(y), expected)


def test_low_rank_maps():
    personal, x, features = LowRankMap(6, 4, 2), torch.randn(5, 4), torch.randn(5, 6)
    kappa = personal.meta(features)
    left, right = (F.normalize(f(kappa), dim=1) for f in (personal.left, personal.right))
    expected = []
    for row in range(5):
        a, b = ((m[row] + m[1:].mean(dim=0)).view(n, -1) for m, n in ((left, 4), (right, 2)))
        expected.append(x[row] @ a.softmax(dim=0) @ b.softmax(dim=0))
    got = personal(x, features)
    torch.testing.assert_close(got, torch.stack(expected))
    rows = torch.tensor([1, 3])
    torch.testing.assert_close(personal(x[rows], features, rows), got[rows])
    got.sum().backward()
    assert personal.meta.weight.grad is None and personal.left[0].weight.grad.any()


def test_overlap():
    one, two = torch.randn(2, 50, 4).unbind()
    f, g = (x - x.mean(dim=0) for x in (one, two))
    f, g = (x / (x.norm(dim=1, keepdim=True) + 1e-6) for x in (f, g))
    torch.testing.assert_close(overlap(one, two), ((f.T @ g) ** 2).mean())
    assert overlap(torch.ones(9, 3), two[:9, :3]) == 0


def test_co_occurrence_is_filled_up():
    r = np.zeros((6, 9), np.float32)  # row 0: [PAD]; 1-3 share columns, 4 and 5 share none
    r[1, 1:6], r[2, 1:4], r[3, 4:6], r[4, 6:8] = 1, 1, 1, 1
    graphs = [filled_cooccurrence(sp.csr_matrix(r), 4, seed).toarray() for seed in range(400)]
    graph = graphs[0]
    assert np.array_equal(graph, filled_cooccurrence(sp.csr_matrix(r), 4, 0).toarray())
    np.testing.assert_allclose(graph[1:].sum(axis=1), 1, rtol=1e-6)
    assert not graph[0].any() and not graph[:, 0].any()
    weight = np.exp(np.array([5, 3, 2, 2]) / 12)  # the most active: rows 1 to 4
    for row in (4, 5):
        np.testing.assert_allclose(graph[row, 1:5], weight / weight.sum(), rtol=1e-6)
    assert graph[2, 1] == graph[3, 1] == 1  # one member, four times
    # Row 1 has 2, with three columns, and 3, with two; two more are drawn of these.
    odds = np.array([g[1, 2] / g[1, 3] for g in graphs]) / np.e
    found, times = np.unique(odds.round(4), return_counts=True)
    np.testing.assert_allclose(found, [1 / 3, 1, 3], atol=1e-4)
    np.testing.assert_allclose(times / 400, [0.25, 0.5, 0.25], atol=0.08)


def test_interests_leave_out_items_without_the_modality():
    r = sp.csr_matrix(np.array([[0, 0, 0], [0, 1, 1], [0, 0, 1]], np.float32))
    x, mask = torch.tensor([[0.0], [2.0], [50.0]]), torch.tensor([False, True, False])
    means, having = interests(r, {"image": x}, {"image": mask})
    assert means["image"].tolist() == [[0.0], [2.0], [0.0]]
    assert having["image"].tolist() == [False, True, False]


def test_an_item_without_a_modality(build, planted):
    prepared = build(cooccurrence_weight=0.0, modality_weights={"image": 1, "text": 0})
    model = prepared.model
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    graph = ref.dense(model.items.graph)
    assert not graph[item].any() and not graph[:, item].any()
    ref.check_row_is_not_read(build().model.eval(), item)


def test_three_modalities(build, with_audio):
    model = build(with_audio).model
    terms = ref.losses(model, ref.batch_with_repetitions())
    assert (terms > 1e-4).all()
    assert model.representations()[0].shape == (model.n_users, 4 * 16)
    with torch.no_grad():
        table = model.eval()()
        d, users = model.user_embedding.embedding_dim, model.n_users
        expected = []
        for start, part in ((0, table[:users]), (users, table[users:])):
            batch = ref.ids(ref.batch_with_repetitions())
            rows = batch[0] if start == 0 else np.concatenate(batch[1:])
            f = ref.array(part[np.unique(rows), d:])
            blocks = [f[:, n * d : (n + 1) * d] for n in range(3)]
            for one, two in ((0, 1), (0, 2), (1, 2)):
                expected.append(ref.info_nce(blocks[one], blocks[two][None], 0.6))
        got = model.calculate_loss(ref.batch_with_repetitions())[1]
    assert got.item() == pytest.approx(0.5 * sum(expected) / 3, rel=1e-5)


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, trained):
    model = build(train_features=trained).model
    for personal in (model.user_map, model.item_map):  # these stay as they start
        for parameter in personal.meta.parameters():
            assert not parameter.requires_grad
        del personal._modules["meta"]
        personal.meta = lambda features: features[:, :16]
    ref.check_gradients(model, raw=trained)


def test_initialisation(build):
    model = build(embedding_size=64).model
    for table in (model.user_embedding.weight, model.item_embedding.weight):
        assert table.std().item() == pytest.approx(0.1, rel=0.05)
    assert model.refine.activation.weight.item() == 0.25
    image = model.items.project["image"].weight
    assert image.std().item() == pytest.approx((2 / (64 + 12)) ** 0.5, rel=0.15)


def test_weights_are_published_ones_for_image_and_text(build, with_audio):
    one, two = (
        ref.dense(build(modality_weights=given).model.items.graph)
        for given in (None, {"image": 0.0, "text": 1.0})
    )
    assert np.array_equal(one, two)
    model = build(with_audio, cooccurrence_weight=0.0, knn_k=1).model
    diagonal = ref.dense(model.items.graph).diagonal()[1:]
    np.testing.assert_allclose(np.unique(diagonal.round(5)), [2 / 3, 1], atol=1e-4)


def test_a_bad_weight_is_named_by_its_key(build):
    with pytest.raises(ConfigError, match=r"key \[user_modality_weights\] = "):
        build(user_modality_weights={"image": -1.0, "text": 1.0})


def set_exactly(graph, matrix):
    """Give a graph's entries, which are float32's, the digits that a matrix in float64 has."""
    for name, exact in (("forward", matrix), ("backward", matrix.T)):
        if hasattr(graph, f"{name}_val"):
            crow, col = (getattr(graph, f"{name}_{part}") for part in ("crow", "col"))
            rows = torch.arange(len(crow) - 1).repeat_interleave(crow.diff())
            setattr(graph, f"{name}_val", exact[rows, col])


class TestGolden(GoldenVectors):
    model = "REARM"
    keys = {
        **{"embedding_size": "embedding_dim", "n_ui_layers": "n_layers", "rank": "rank"},
        **{"n_item_layers": "n_ii_layers", "n_user_layers": "n_uu_layers"},
        **{"self_dropout": "s_drop", "cross_dropout": "m_drop", "temperature": "cl_tmp"},
        **{"cl_weight": "cl_loss_weight", "orthogonal_weight": "diff_loss_weight"},
        **{"knn_k": "item_knn_k", "user_knn_k": "user_knn_k"},
        **{"cooccurrence_weight": "ii_co_weight", "user_cooccurrence_weight": "uu_co_weight"},
    }
    fixed = {
        "modality_weights": {"image": 0.1, "text": 0.9},
        "user_modality_weights": {"image": 0.2, "text": 0.8},
    }
    attentions = {
        "self.image": "within.image",
        "self.text": "within.text",
        "cross.text_to_image": "across.image.text",
        "cross.image_to_text": "across.text.image",
    }
    parameters = {
        **TABLES,
        **RAW,
        **layers("project.item.{name}", "items.project.{name}"),
        **layers("project.user.{name}", "users.project.{name}"),
        **layer("layer_norm", "refine.norm"),
        **{"prelu": "refine.activation.weight"},
        **{
            place: name
            for golden, ours in attentions.items()
            for their, our in (("in", "inner"), ("out", "outer"))
            for place, name in layer(f"attention.{golden}.{their}", f"refine.{ours}.{our}").items()
        },
        **layer("meta.user", "user_map.meta"),
        **layer("meta.item", "item_map.meta"),
        **{
            place: name
            for side in ("user", "item")
            for factor in ("left", "right")
            for golden, ours in (("0", "0"), ("1", "2"))
            for place, name in layer(
                f"factor.{side}.{factor}.{golden}", f"{side}_map.{factor}.{ours}"
            ).items()
        },
        **{
            f"factor.{side}.{factor}.prelu": f"{side}_map.{factor}.1.weight"
            for side in ("user", "item")
            for factor in ("left", "right")
        },
    }
    terms = [("bpr",), ("infonce_item", "infonce_user"), ("orthogonal_item", "orthogonal_user")]
    wrong = {"n_user_layers": 1, "knn_k": 4, "temperature": 0.61}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        # The gradient of the PReLU's slope is a sum that nearly cancels: float32's rounding of the
        # graphs is 1e-5 of it. Scores and intermediate results are tested with the graphs as made.
        self.inject_graphs(golden)
        model = golden.model
        bipartite = ref.bipartite(model.interactions.toarray().astype(np.float64))
        set_exactly(model.graph, torch.from_numpy(bipartite))
        for name, side in (("user", model.users), ("item", model.items)):
            set_exactly(side.graph, golden.ours(f"mid.graph.{name}"))
        for name, place in self.attentions.items():
            kept = golden.ours(f"rand.keep.{name}", axes=(0,))
            attention = golden.model.get_submodule(f"refine.{place}")
            attention.kept = lambda *_, kept=kept: kept
        yield

    def inject_graphs(self, golden):
        """G of users and of items from the golden lists of co-occurring ones."""
        model, given = golden.model, {}
        for name, n in (("user", model.n_users), ("item", model.n_items)):
            graph = golden.ours(f"rand.graph.{name}_cooccurrence")
            given[n] = sp.csr_matrix(graph.numpy())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(homogeneous, "filled_cooccurrence", lambda r, *_: given[r.shape[0]])
            users, items = model.graphs(golden.prepared.config)
        model.users.graph, model.items.graph = SparseGraph(users), SparseGraph(items)

    def middle(self, golden):
        self.inject_graphs(golden)
        model = golden.model
        return dense({"graph.user": model.users.graph, "graph.item": model.items.graph})

    def test_golden_scores(self, build):
        golden = build()
        self.inject_graphs(golden)
        golden.check("scores", golden.scores())

    def test_golden_weights_of_co_occurrence(self, build):
        """Which of equally frequent ones are taken is open, their weights are not."""
        golden = build()
        r = golden.model.interactions
        for name, matrix, k in (("user", r, 12), ("item", sp.csr_matrix(r.T), 5)):
            got = golden.theirs(torch.from_numpy(filled_cooccurrence(matrix, k, 0).toarray()))
            expected = golden.arrays[f"rand.graph.{name}_cooccurrence"]
            np.testing.assert_allclose(np.sort(got), np.sort(expected), atol=2e-7)
