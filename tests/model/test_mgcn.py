"""MGCN against a slow NumPy rewriting of its equations; its switches and missing modalities."""

from __future__ import annotations

import helpers_models as ref
import numpy as np
import pytest
from helpers_golden import RAW, TABLES, GoldenVectors, dense, layers

from recbole_sigrec.errors import ConfigError

VARIANTS = {
    "defaults": {},
    "deep, others' graphs": {
        "n_ui_layers": 3,
        "n_layers": 2,
        "knn_k": 3,
        "knn_self": False,
        "knn_weight": "binary",
        "knn_symmetric": True,
        "temperature": 0.4,
    },
    "one modality": {"modalities": ["text"], "n_ui_layers": 0},
    "no layers": {"n_layers": 0},
}


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared MGCN whose terms are all large enough to matter."""

    def make(folder=planted.folder, **overrides):
        keys = {"cl_weight": 0.7, "reg_weight": 0.2, **overrides}
        return ref.enlarged(prepare(make_config("MGCN", folder, **keys)))

    return make


def reference(model, dataset):
    """b and s of all nodes, with dense float64 matrices: [n, d], [n, d]."""
    keys, r = model.keys, ref.training_matrix(dataset)
    ids = ref.array(model.item_embedding.weight)
    ego = np.concatenate([ref.array(model.user_embedding.weight), ids])
    behavior = ref.lightgcn(r, ego, keys.n_ui_layers)
    views = []
    for name, features in dataset.modality_features.items():
        mask = dataset.modality_mask[name].numpy()
        graph = ref.by_row_sums(ref.knn(features.numpy(), mask, keys))
        purifier = model.purify[name]
        x = ref.affine(purifier.project, ref.array(model.raw[name]))
        h = mask[:, None] * ids * ref.sigmoid(ref.affine(purifier.gate, x))
        for _ in range(keys.n_layers):
            h = graph @ h
        views.append(np.concatenate([ref.symmetric(r) @ h, h]))
    views = np.stack(views)
    score = model.fusion.common.score
    attention = ref.softmax(ref.affine(score[2], np.tanh(ref.affine(score[0], views))), axis=0)
    common = (attention * views).sum(axis=0)
    gates = [ref.sigmoid(ref.affine(gate, behavior)) for gate in model.fusion.gates]
    own = [gate * (h - common) for gate, h in zip(gates, views)]
    return behavior, (common + sum(own)) / (len(views) + 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_and_losses(build, name):
    ref.check_views(build(**VARIANTS[name]), reference, atol=1e-6)


def test_defaults(make_config, planted):
    config = make_config("MGCN", planted.folder)
    assert config["learning_rate_scheduler"] == [0.96, 50]
    assert config["negative_items"] == "train"


def test_three_modalities(build, with_audio):
    prepared = build(with_audio)
    assert prepared.model.modalities == ["audio", "image", "text"]
    ref.check_forward(prepared, reference, atol=1e-6)


def test_an_item_without_a_modality_is_not_in_its_view(build, planted):
    prepared = build()
    model = prepared.model
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    image, text = (ref.dense(model.item_graph[name]) for name in ("image", "text"))
    assert not image[item].any() and not image[:, item].any() and text[item, item] > 0
    in_image, in_text = model.views()
    assert not in_image[item].any() and in_text[item].all()
    ref.check_row_is_not_read(model, item)


def test_cl_weight_zero_switches_its_term_off(build):
    ref.check_switch(build, "cl_weight", 0.7, term=1)


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, trained):
    ref.check_gradients(build(train_features=trained).model, raw=trained)


@pytest.mark.parametrize(
    "key", [{"knn_k": 0}, {"cl_weight": -1}, {"temperature": 0}, {"knn_weight": "dot"}]
)
def test_bad_keys_are_refused(planted, make_config, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        make_config("MGCN", planted.folder, **key)


class TestGolden(GoldenVectors):
    model = "MGCN"
    keys = {
        **{key: key for key in ("embedding_size", "n_ui_layers", "n_layers", "knn_k")},
        **{"reg_weight": "reg_weight", "cl_weight": "cl_loss", "temperature": "temperature"},
    }
    parameters = {
        **TABLES,
        **RAW,
        **layers("purify.{name}.project", "purify.{name}.project"),
        **layers("purify.{name}.gate", "purify.{name}.gate"),
        **{f"common.{n}": f"fusion.common.score.{n}" for n in ("0.weight", "0.bias", "2.weight")},
        **layers("own.{name}", "fusion.gates.{n}"),
    }
    terms = [("bpr",), ("infonce_user", "infonce_item"), ("reg",)]
    wrong = {"n_layers": 1, "knn_k": 4, "temperature": 0.21}

    def middle(self, golden):
        behavior, side = golden.model.forward()
        graphs = {f"graph_{name}": graph for name, graph in golden.model.item_graph.items()}
        return {"behavior": behavior, "side": side, **dense(graphs)}
