"""LATTICE against NumPy: its learned graph, its gradients, and when the graph is built."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_golden import RAW, TABLES, GoldenVectors, dense, layers

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import kept_cosines


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → the model; the modalities' weights are unequal."""

    def make(folder=planted.folder, **overrides):
        model = prepare(make_config("LATTICE", folder, **{"knn_k": 4, **overrides})).model
        with torch.no_grad():
            model.modal_logit += torch.arange(len(model.modalities)) * 0.7
        return model

    return make


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    users, items, others = (torch.randint(1, n, (40,), generator=generator) for n in (40, 50, 50))
    return Batch(user_id=users, item_id=items, neg_item_id=others)


class Batch(dict):
    def __len__(self):
        return len(self["user_id"])


def symmetric(a):
    """D^{-1/2} A D^{-1/2} with D the row sums; nothing where they are zero."""
    degree = a.sum(axis=1)
    scale = np.array([d**-0.5 if d > 0 else 0.0 for d in degree])
    return scale[:, None] * a * scale[None, :]


def reference_cosines(x, present, k, include_self=True):
    """cos(x_i, x_j) where j is among the k items most like i and it is positive, else 0."""
    graph = np.zeros((len(x), len(x)))
    norm = np.linalg.norm(x, axis=1)
    for i in np.flatnonzero(present):
        cosine = x @ x[i] / np.maximum(norm * norm[i], 1e-30)
        cosine[~present] = -np.inf
        if not include_self:
            cosine[i] = -np.inf
        near = np.argsort(-cosine)[:k]
        graph[i, near] = np.maximum(cosine[near], 0.0)
    return graph


def reference_item_graph(model):
    """A of step 3, dense."""
    keys = model.keys
    logit = np.exp(array(model.modal_logit))
    alpha = dict(zip(model.modalities, logit / logit.sum()))
    initial = learned = 0.0
    for name in model.modalities:
        rest = model.mask[name].numpy(), keys.knn_k, keys.knn_self
        x = array(model.raw[name]) @ array(model.project[name].weight).T
        x += array(model.project[name].bias)
        raw = array(model.features[name])
        initial = initial + alpha[name] * symmetric(reference_cosines(raw, *rest))
        learned = learned + alpha[name] * reference_cosines(x, *rest)
    return keys.initial_weight * initial + (1 - keys.initial_weight) * symmetric(learned)


def reference_forward(model, item_graph):
    r = model.interactions.toarray()
    n_users, n_items = r.shape
    a = np.zeros((n_users + n_items, n_users + n_items))
    a[:n_users, n_users:], a[n_users:, :n_users] = r, r.T
    if model.keys.ui_graph == "authors":
        a += np.eye(len(a))
        a /= a.sum(axis=1, keepdims=True)
    else:
        a = symmetric(a)
    ids = array(model.item_embedding.weight)
    layers = [np.concatenate([array(model.user_embedding.weight), ids])]
    for _ in range(model.keys.n_ui_layers):
        layers.append(a @ layers[-1])
    mean = np.mean(layers, axis=0)
    h = np.linalg.matrix_power(item_graph, model.keys.n_item_layers) @ ids
    h /= np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-12)
    return mean[:n_users], mean[n_users:] + h


def reference_losses(model, item_graph, batch):
    """(BPR, L2), for a ``reg_weight`` of 0.1."""
    users, items = reference_forward(model, item_graph)
    u, i, j = (batch[key].numpy() for key in ("user_id", "item_id", "neg_item_id"))
    u, i, j = users[u], items[i], items[j]
    bpr = np.log1p(np.exp((u * j).sum(axis=1) - (u * i).sum(axis=1))).mean()
    return bpr, 0.1 * 0.5 * sum((rows**2).sum() for rows in (u, i, j)) / len(u)


KEYS = [
    {},
    {"modalities": ["image"], "n_item_layers": 2, "initial_weight": 0.3},
    {"knn_self": False, "initial_weight": 0.0, "n_ui_layers": 1},
    {"ui_graph": "authors"},
]


@pytest.mark.parametrize("keys", KEYS)
def test_representations_and_losses(build, batch, keys):
    model = build(**keys, reg_weight=0.1)
    graph = reference_item_graph(model)
    zero = int((~model.mask["image"])[1:].nonzero()) + 1
    assert (graph > 0).any() and graph[zero].any() == ("modalities" not in keys)
    with torch.no_grad():
        for got, expected in zip(model.representations(), reference_forward(model, graph)):
            np.testing.assert_allclose(array(got), expected, atol=1e-5, rtol=0)
    for _ in range(2):  # the epoch's first batch, and one with the constant graph
        got = [term.item() for term in model.calculate_loss(batch)]
        expected = reference_losses(model, graph, batch)
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_losses_in_float64(build, batch):
    model = build(reg_weight=0.1).double()
    expected = reference_losses(model, reference_item_graph(model), batch)
    for _ in range(2):
        terms = model.calculate_loss(batch)
        assert all(term.dtype == torch.float64 for term in terms)
        got = [term.item() for term in terms]
        np.testing.assert_allclose(got, expected, rtol=1e-8)  # constant graphs are in float32
        sum(terms).backward()
    assert all(p.grad.dtype == torch.float64 and p.grad.any() for p in model.parameters())


def test_three_modalities(build, with_audio):
    model = build(with_audio)
    assert model.modalities == ["audio", "image", "text"]
    expected = reference_forward(model, reference_item_graph(model))
    for got, wanted in zip(model.representations(), expected):
        np.testing.assert_allclose(array(got), wanted, atol=1e-5, rtol=0)


def test_the_gradient_to_the_graph_is_the_dense_ones(build, batch):
    """Through n × n matrices in torch, the k largest of each row kept, as the published code."""
    model = build(initial_weight=0.4, reg_weight=0.0)
    alpha = model.modal_logit.softmax(dim=0)
    learned = initial = 0.0
    for a, name, s in zip(alpha, model.modalities, model._initial):
        unit = torch.nn.functional.normalize(model.project[name](model.raw[name]), dim=1)
        both = model.mask[name][:, None] & model.mask[name][None, :]
        cosine = (unit @ unit.T).masked_fill(~both, -2.0)
        value, near = cosine.topk(4, dim=1)
        learned = learned + a * torch.zeros_like(cosine).scatter(1, near, value.clamp_min(0.0))
        initial = initial + a * torch.from_numpy(s.toarray())
    degree = learned.sum(dim=1)
    scale = torch.where(degree > 0, degree, torch.inf) ** -0.5
    dense = 0.4 * initial + 0.6 * scale[:, None] * learned * scale[None, :]
    users, items = model.forward(lambda h: dense @ h)
    u, i, j = (batch[key] for key in ("user_id", "item_id", "neg_item_id"))
    expected = torch.nn.functional.softplus((users[u] * (items[j] - items[i])).sum(dim=1)).mean()
    names, parameters = zip(*model.named_parameters())
    wanted = torch.autograd.grad(expected, parameters)
    got = torch.autograd.grad(model.calculate_loss(batch)[0], parameters)
    for name, one, two in zip(names, got, wanted):
        assert one.any(), name
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-3, msg=name)


def test_kept_cosines_gradient():
    torch.manual_seed(1)
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True] * 7 + [False] * 2)
    columns, values = kept_cosines(x, mask, 3, False)
    assert columns.shape == values.shape == (9, 3)
    assert not values[7:].any() and (values[:7] == 0).any()  # negative ones are dropped

    def cosines(x):
        return kept_cosines(x, mask, 3, False)[1]

    assert torch.autograd.gradcheck(cosines, (x,))


def test_the_graph_is_built_at_an_epochs_first_batch(build, batch):
    model = build()
    projections = list(model.project.parameters())
    model.on_epoch_start(0)
    sum(model.calculate_loss(batch)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in projections)
    constant = model._epoch_graph
    with torch.no_grad():
        np.testing.assert_allclose(
            array(constant(torch.eye(model.n_items))), reference_item_graph(model), atol=1e-6
        )
        for parameter in projections:
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    model.zero_grad()
    sum(model.calculate_loss(batch)).backward()
    assert model._epoch_graph is constant
    assert all(p.grad is None for p in [*projections, model.modal_logit])
    assert model.item_embedding.weight.grad.any()
    # Evaluation has a graph of its own, of the parameters as they are; a new epoch too.
    model.eval()
    with torch.no_grad():
        expected = reference_forward(model, reference_item_graph(model))
        np.testing.assert_allclose(array(model.representations()[1]), expected[1], atol=1e-5)
    assert model._epoch_graph is constant
    model.train()
    model.on_epoch_start(1)
    sum(model.calculate_loss(batch)).backward()
    assert model._epoch_graph is not constant and model.modal_logit.grad.any()


@pytest.mark.parametrize("trained", [True, False])
def test_an_item_without_a_modality_has_no_edge_in_its_graph(build, batch, trained):
    model = build(train_features=trained)
    zero = int((~model.mask["image"])[1:].nonzero()) + 1
    batch["item_id"][:3] = zero
    sum(model.calculate_loss(batch)).backward()
    names = dict(model.named_parameters())
    assert any(name.startswith("raw.") for name in names) == trained
    if trained:
        assert not model.raw["image"].grad[zero].any() and model.raw["text"].grad[zero].any()
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in names.values())
    _, columns, values = model.item_graph()
    assert not values[zero, :4].any() and values[zero, 4:].any()
    image = values[:, :4][columns[:, :4] == zero]
    assert not image.any()


@pytest.mark.parametrize(
    "bad",
    [
        {"initial_weight": 1.5},
        {"n_item_layers": 0},
        {"feature_size": 0},
        {"knn_k": "all"},
        {"ui_graph": "other"},
    ],
)
def test_bad_keys_are_refused(build, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}\]"):
        build(**bad)


class TestGolden(GoldenVectors):
    model = "LATTICE"
    keys = {
        **{key: key for key in ("embedding_size", "feature_size", "n_ui_layers", "knn_k")},
        **{"n_item_layers": "n_layers", "initial_weight": "lambda_coeff"},
        "reg_weight": "reg_weight",
    }
    fixed = {"ui_graph": "authors"}
    parameters = {
        **TABLES,
        **RAW,
        **layers("project.{name}", "project.{name}"),
        "modal_logit": "modal_logit",
    }
    terms = [("bpr",), ("reg",)]
    wrong = {"ui_graph": "symmetric", "knn_k": 4, "initial_weight": 0.71}

    def middle(self, golden):
        model = golden.model
        eye = torch.eye(model.n_items, dtype=torch.float64)
        names = [f"graph_{name}" for name in model.modalities]
        graphs = dense(dict(zip(names, model.initial_graphs, strict=True)))
        return {**graphs, "item_graph": model._product(model.item_graph(), eye)}

    def test_golden_later_batches(self, build):
        golden = build()
        golden.check_terms(self.terms)
        golden.check_terms(self.terms).backward()
        for name in ("user_id", "item_id"):
            golden.check(f"grad.{name}", golden.gradient(name))
        tables = set(TABLES.values())
        grads = {name: p.grad for name, p in golden.model.named_parameters() if name not in tables}
        assert all(grad is None for grad in grads.values())


class TestGoldenSymmetric(TestGolden):
    variant = "symmetric"
    fixed = {"ui_graph": "symmetric"}
    wrong = {"ui_graph": "authors", "n_ui_layers": 1}
