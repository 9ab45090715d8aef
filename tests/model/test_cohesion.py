"""COHESION against a slow NumPy rewriting of its equations; its switches and missing modalities."""

from __future__ import annotations

import helpers_models as ref
import numpy as np
import pytest
import torch

from recbole_sigrec.errors import ConfigError

VARIANTS = {
    "defaults": {"collab_knn_k": 6},
    "deep, others' graphs": {
        "n_ui_layers": 3,
        "n_user_layers": 2,
        "n_item_layers": 3,
        "knn_k": 3,
        "knn_self": False,
        "knn_weight": "binary",
        "knn_symmetric": True,
        "collab_knn_k": 4,
    },
    "one modality": {"modalities": ["text"], "n_ui_layers": 0},
}


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared COHESION whose terms are all large enough to matter."""

    def make(folder=planted.folder, **overrides):
        keys = {"adaptive_weight": 0.4, "reg_weight": 0.2, **overrides}
        prepared = ref.enlarged(prepare(make_config("COHESION", folder, **keys)))
        with torch.no_grad():
            for m, table in enumerate(prepared.model.preference.values()):
                table.weight.mul_(20 * m + 10)  # the channels differ in what they reach
        return prepared

    return make


def user_graph(r, keys):
    """The k users with most items in common, weighted by their number, rows of sum 1."""
    together = r @ r.T
    allowed = (together > 0) & ~np.eye(len(together), dtype=bool)
    graph = np.where(ref.best(together, keys.collab_knn_k, allowed), together, 0.0)
    graph = np.maximum(graph, graph.T) if keys.knn_symmetric else graph
    return ref.inverse(graph.sum(axis=1), 1.0)[:, None] * graph


def reference(model, dataset):
    """Users and items, channels side by side, with dense float64 matrices."""
    keys, r = model.keys, ref.training_matrix(dataset)
    own, n = ref.array(model.item_embedding.weight), model.n_users
    channels = [
        ref.lightgcn(
            r, np.concatenate([ref.array(model.user_embedding.weight), own]), keys.n_ui_layers
        )
    ]
    graph, had = 0.0, 0.0
    for name, features in dataset.modality_features.items():
        mask = dataset.modality_mask[name].numpy()
        purifier = model.purify[name]
        x = ref.affine(purifier.gate, ref.affine(purifier.project, ref.array(model.raw[name])))
        start = np.concatenate(
            [ref.array(model.preference[name].weight), own * ref.sigmoid(x) * mask[:, None]]
        )
        channels.append(ref.lightgcn(r, start, keys.n_ui_layers))
        graph, had = graph + ref.by_row_sums(ref.knn(features.numpy(), mask, keys)), had + mask
    graph = graph / np.maximum(had, 1)[:, None]
    h = np.concatenate(channels, axis=1)
    users, items = h[:n], h[n:]
    power = np.linalg.matrix_power
    users = users + power(user_graph(r, keys), keys.n_user_layers) @ users
    return users, items + power(graph, keys.n_item_layers) @ items


def reference_losses(users, items, batch, keys):
    u, i, j = (table[rows] for table, rows in zip((users, items, items), ref.ids(batch)))
    d = keys.embedding_size
    parts = [slice(c, c + d) for c in range(0, users.shape[1], d)]
    each = np.array([ref.bpr(u[:, part], i[:, part], j[:, part]) for part in parts])
    return (
        ref.bpr(u, i, j),
        keys.adaptive_weight * (ref.softmax(each, axis=0) * each).sum(),
        keys.reg_weight * ref.l2(u, i, j),
    )


def check(prepared):
    model, batch = prepared.model, ref.batch_with_repetitions()
    expected = reference(model, prepared.train.dataset)
    for got, table in zip(model.representations(), expected):
        assert np.abs(table).max() > 1e-2
        np.testing.assert_allclose(got.detach().numpy(), table, atol=5e-6, rtol=0)
    terms = reference_losses(*expected, batch, model.keys)
    assert min(terms) > 1e-3
    np.testing.assert_allclose(ref.losses(model, batch), terms, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_and_losses(build, name):
    check(build(**VARIANTS[name]))


def test_three_modalities(build, with_audio):
    prepared = build(with_audio)
    assert prepared.model.modalities == ["audio", "image", "text"]
    check(prepared)


def test_the_worst_channel_weighs_most_and_its_weight_has_no_gradient(build):
    model, batch = build(reg_weight=0.0, adaptive_weight=1.0).model, ref.batch_with_repetitions()
    d = model.keys.embedding_size
    users, items = model.representations()
    u, i, j = users[batch["user_id"]], items[batch["item_id"]], items[batch["neg_item_id"]]
    margins = (u * (i - j)).unflatten(1, (-1, d)).sum(dim=2)
    each = -torch.nn.functional.logsigmoid(margins).mean(dim=0)
    weight = each.detach().softmax(dim=0)
    assert each.max() - each.min() > 0.05 and weight.argmax() == each.argmax()
    parameters = list(model.preference.parameters())
    constant = torch.autograd.grad((weight * each).sum(), parameters, retain_graph=True)
    flowing = torch.autograd.grad((each.softmax(dim=0) * each).sum(), parameters)
    got = torch.autograd.grad(model.calculate_loss(batch)[1], parameters)
    for one, two, three in zip(got, constant, flowing):
        torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-5)
        assert (one - three).abs().max() > 1e-4 * one.abs().max()


def test_an_item_without_a_modality(build, planted):
    prepared = build()
    model = prepared.model
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    graph = model.item_graph(torch.eye(model.n_items))
    text = ref.by_row_sums(
        ref.knn(model.features["text"].numpy(), model.mask["text"].numpy(), model.keys)
    )
    np.testing.assert_allclose(graph[item], text[item], atol=1e-6)  # the mean over those it has
    ref.check_row_is_not_read(model, item)


def test_adaptive_weight_zero_switches_its_term_off(build):
    ref.check_switch(build, "adaptive_weight", 0.4, term=1)


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, trained):
    ref.check_gradients(build(train_features=trained).model, raw=trained)


@pytest.mark.parametrize(
    "key", [{"n_user_layers": 0}, {"collab_measure": "dice"}, {"adaptive_weight": -1}]
)
def test_bad_keys_are_refused(planted, make_config, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        make_config("COHESION", planted.folder, **key)
