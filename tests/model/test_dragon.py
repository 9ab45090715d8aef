"""DRAGON against golden vectors and a NumPy rewriting; modalities that are missing or more."""

from __future__ import annotations

import helpers_branches as branches
import helpers_models as ref
import numpy as np
import pytest
from helpers_golden import dense

from recbole_sigrec.errors import ConfigError


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared DRAGON."""

    def make(folder=planted.folder, **overrides):
        return prepare(make_config("DRAGON", folder, **{"knn_k": 4, **overrides}))

    return make


def reference(model, dataset, alpha):
    """U and I: [n_users, M·d], [n_items, M·d]."""
    r = ref.training_matrix(dataset)
    weight, n = ref.array(model.user_weight), model.n_users
    parts = branches.reference_convolutions(model, r)
    users = np.concatenate([weight[:, [m]] * h[:n] for m, h in enumerate(parts)], axis=1)
    items = np.concatenate([h[n:] for h in parts], axis=1)
    graph = 0.0
    for name, x in dataset.modality_features.items():
        knn = ref.knn(x.numpy(), dataset.modality_mask[name].numpy(), model.keys)
        graph = graph + alpha[name] * ref.by_row_sums(knn)
    near = np.linalg.matrix_power(graph, model.keys.n_item_layers) @ items
    user_graph = branches.reference_user_graph(r, model.keys.user_knn_k)
    return users + user_graph @ users, items + near


def check(prepared, alpha):
    model, batch = prepared.model, ref.batch_with_repetitions()
    expected = reference(model, prepared.train.dataset, alpha)
    for got, part in zip(model.representations(), expected):
        np.testing.assert_allclose(ref.array(got), part, atol=1e-5, rtol=0)
    terms = branches.reference_losses(model, *expected, batch)
    np.testing.assert_allclose(ref.losses(model, batch), terms, atol=1e-5, rtol=0)


PUBLISHED = {"image": 0.1, "text": 0.9}


@pytest.mark.parametrize(
    ("keys", "alpha"),
    [
        ({}, PUBLISHED),
        ({"modalities": ["image"], "user_knn_k": 3}, {"image": 1.0}),
        ({"n_item_layers": 2, "modality_weights": {"image": 3, "text": 1}}, {"image": 0.75}),
        ({"n_ui_layers": 3, "knn_symmetric": True, "knn_self": False}, PUBLISHED),
    ],
)
def test_representations_and_losses(build, keys, alpha):
    check(build(reg_weight=0.7, **keys), {"text": 0.25, **alpha})


def test_three_modalities(build, with_audio):
    prepared = build(with_audio)
    assert prepared.model.representations()[0].shape[1] == 3 * 16
    check(prepared, dict.fromkeys(["audio", "image", "text"], 1 / 3))


def test_start(build):
    branches.check_start(build().model)


def test_an_item_without_a_modality_has_no_edge_in_its_graph(build, planted):
    prepared = build(modality_weights={"image": 1, "text": 0})
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    graph = ref.dense(prepared.model.item_graph)
    assert not graph[item].any() and not graph[:, item].any() and graph.any()
    ref.check_row_is_not_read(prepared.model, item)


def test_gradient_reaches_every_parameter(build):
    ref.check_gradients(build().model)


@pytest.mark.parametrize("key", [{"knn_k": 0}, {"n_item_layers": -1}, {"knn_weight": "dot"}])
def test_bad_keys_are_refused(build, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        build(**key)


class TestGolden(branches.UserGraphVectors):
    model = "DRAGON"
    keys = {
        "embedding_size": "embedding_size",
        "n_item_layers": "n_mm_layers",
        "knn_k": "knn_k",
        "user_knn_k": "k",
        "reg_weight": "reg_weight",
    }
    fixed = {"modality_weights": {"image": 0.2, "text": 0.8}}
    parameters = branches.PARAMETERS
    terms = [
        ("bpr_base2",),
        ("reg_preference.image", "reg_preference.text", "reg_user_weight"),
    ]
    wrong = {"n_item_layers": 1, "knn_self": False, "reg_weight": 0.02}

    def middle(self, golden):
        return dense({"item_graph": golden.model.item_graph})
