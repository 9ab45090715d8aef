"""MGCN against a slow NumPy rewriting of its equations; its switches and missing modalities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_models import (
    affine,
    array,
    batch_with_repetitions,
    by_row_sums,
    dense,
    enlarged,
    knn,
    lightgcn,
    losses,
    side_losses,
    sigmoid,
    softmax,
    symmetric,
    training_matrix,
)

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
    "no layers": {"n_layers": 0, "missing_modality": "zero"},
}


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared MGCN whose terms are all large enough to matter."""

    def make(**overrides):
        keys = {"cl_weight": 0.7, "reg_weight": 0.2, **overrides}
        return enlarged(prepare(make_config("MGCN", planted.folder, **keys)))

    return make


def reference(model, dataset):
    """b and s of all nodes, with dense float64 matrices: [n, d], [n, d]."""
    keys, r = model.keys, training_matrix(dataset)
    ids = array(model.item_embedding.weight)
    ego = np.concatenate([array(model.user_embedding.weight), ids])
    behavior = lightgcn(r, ego, keys.n_ui_layers)
    views = []
    for name, features in dataset.modality_features.items():
        graph = by_row_sums(knn(features.numpy(), dataset.modality_mask[name].numpy(), keys))
        purifier = model.purify[name]
        x = affine(purifier.project, array(model.raw[name]))
        h = ids * sigmoid(affine(purifier.gate, x))
        for _ in range(keys.n_layers):
            h = graph @ h
        views.append(np.concatenate([symmetric(r) @ h, h]))
    views = np.stack(views)
    score = model.fusion.common.score
    attention = softmax(affine(score[2], np.tanh(affine(score[0], views))), axis=0)
    common = (attention * views).sum(axis=0)
    gates = [sigmoid(affine(gate, behavior)) for gate in model.fusion.gates]
    own = [gate * (h - common) for gate, h in zip(gates, views)]
    return behavior, (common + sum(own)) / (len(views) + 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_and_losses(build, name):
    prepared = build(**VARIANTS[name])
    model, batch = prepared.model, batch_with_repetitions()
    expected = reference(model, prepared.train.dataset)
    for got, part in zip(model.forward(), expected):
        assert np.abs(part).max() > 1e-2
        np.testing.assert_allclose(got.detach().numpy(), part, atol=1e-6, rtol=0)
    got = torch.cat(model.representations()).detach().numpy()
    np.testing.assert_allclose(got, sum(expected), atol=1e-6, rtol=0)

    terms = side_losses(*expected, model.n_users, batch, model.keys)
    assert min(terms) > 1e-3
    np.testing.assert_allclose(losses(model, batch), terms, atol=1e-5, rtol=0)


def test_defaults(make_config, planted):
    config = make_config("MGCN", planted.folder)
    assert config["learning_rate_scheduler"] == [0.96, 50]
    assert config["negative_items"] == "train"


def test_three_modalities(build, planted, tmp_path, make_config, prepare):
    folder = planted.copy(tmp_path / "three" / "planted")
    audio = np.random.default_rng(3).normal(size=(planted.n_items, 5)).astype(np.float32)
    np.save(folder / "audio_feat.npy", audio)
    prepared = enlarged(prepare(make_config("MGCN", folder)))
    assert prepared.model.modalities == ["audio", "image", "text"]
    expected = reference(prepared.model, prepared.train.dataset)
    for got, part in zip(prepared.model.forward(), expected):
        np.testing.assert_allclose(got.detach().numpy(), part, atol=1e-6, rtol=0)


def test_an_item_without_a_modality_is_not_in_its_view(build, planted):
    prepared = build()
    model = prepared.model
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    image, text = (dense(model.item_graph[name]) for name in ("image", "text"))
    assert not image[item].any() and not image[:, item].any() and text[item, item] > 0
    in_image, in_text = model.views()
    assert not in_image[item].any() and in_text[item].all()
    before = [part.detach() for part in model.representations()]
    with torch.no_grad():
        model.raw["image"][item] += 100.0
    assert all(map(torch.equal, before, model.representations()))
    with torch.no_grad():
        model.raw["text"][item] += 100.0
    assert not any(map(torch.equal, before, model.representations()))


def test_cl_weight_zero_switches_its_term_off(build):
    batch = batch_with_repetitions()
    on, off = (losses(build(cl_weight=w).model, batch) for w in (0.7, 0.0))
    assert off[1] == 0 < on[1] and torch.equal(on[[0, 2]], off[[0, 2]])


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, trained):
    model = build(train_features=trained).model
    sum(model.calculate_loss(batch_with_repetitions())).backward()
    names = dict(model.named_parameters())
    assert any(name.startswith("raw.") for name in names) == trained
    for name, parameter in names.items():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    "key", [{"knn_k": 0}, {"cl_weight": -1}, {"temperature": 0}, {"knn_weight": "dot"}]
)
def test_bad_keys_are_refused(planted, make_config, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        make_config("MGCN", planted.folder, **key)
