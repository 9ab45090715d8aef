"""SMORE against a slow NumPy rewriting of its equations; its switches and missing modalities."""

from __future__ import annotations

import helpers_models as ref
import numpy as np
import pytest
import torch
from helpers_golden import MODALITIES, RAW, TABLES, GoldenVectors, dense, kept, layers

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model.batch import Batch

VARIANTS = {
    "defaults": {},
    "deep, others' graphs, an odd size": {
        "embedding_size": 7,
        "n_ui_layers": 1,
        "n_layers": 2,
        "knn_k": 3,
        "knn_self": False,
        "knn_weight": "binary",
        "knn_symmetric": True,
        "temperature": 0.4,
    },
    "one modality": {"modalities": ["text"], "n_ui_layers": 0},
    "no layers, zero for missing": {"n_layers": 0, "missing_modality": "zero"},
}


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared SMORE whose terms are all large enough to matter."""

    def make(folder=planted.folder, **overrides):
        keys = {"cl_weight": 0.7, "reg_weight": 0.2, **overrides}
        return ref.enlarged(prepare(make_config("SMORE", folder, **keys)))

    return make


def spectrum(x):
    """The orthonormal Fourier transform by its definition, all d frequencies."""
    d = x.shape[1]
    place = np.arange(d)
    return x @ np.exp(-2j * np.pi * np.outer(place, place) / d) / np.sqrt(d)


def filtered(x_hat, k):
    """The inverse of a filtered spectrum, real: frequency d − j has the conjugate of j."""
    d = x_hat.shape[1]
    whole = np.zeros(d, dtype=complex)
    for j in range(d // 2 + 1):
        whole[j], whole[-j] = k[j], k[j].conjugate()
    mirrored = [0, d // 2] if d % 2 == 0 else [0]  # onto themselves: only the real part counts
    whole[mirrored] = k[mirrored]
    y = x_hat * whole
    y[:, mirrored] = y[:, mirrored].real
    place = np.arange(d)
    x = y @ np.exp(2j * np.pi * np.outer(place, place) / d) / np.sqrt(d)
    np.testing.assert_allclose(x.imag, 0, atol=1e-10)
    return x.real


def reference(model, dataset):
    """b and s of all nodes, with dense float64 matrices: [n, d], [n, d]."""
    keys, r = model.keys, ref.training_matrix(dataset)
    ids = ref.array(model.item_embedding.weight)
    ego = np.concatenate([ref.array(model.user_embedding.weight), ids])
    behavior = ref.lightgcn(r, ego, keys.n_ui_layers)

    graphs, spectra, product, masks = [], [], 1.0, [1.0]
    for name, features in dataset.modality_features.items():
        mask = dataset.modality_mask[name].numpy()
        masks.insert(-1, mask[:, None])
        graphs.append(ref.by_row_sums(ref.knn(features.numpy(), mask, keys)))
        spectra.append(spectrum(ref.affine(model.project[name], ref.array(model.raw[name]))))
        product = product * np.where(mask[:, None], spectra[-1], 1.0)
    graphs.append(np.max(graphs, axis=0))
    filters = ref.array(model.filters)[..., 0] + 1j * ref.array(model.filters)[..., 1]
    views = []
    parts = zip([*spectra, product], filters, model.gate, graphs, masks)
    for x_hat, k, gate, graph, mask in parts:
        h = mask * ids * ref.sigmoid(ref.affine(gate, filtered(x_hat, k)))
        for _ in range(keys.n_layers):
            h = graph @ h
        views.append(np.concatenate([ref.symmetric(r) @ h, h]))

    *own, fused = views
    side = ref.sigmoid(ref.affine(model.preference[-1], behavior)) * fused
    for query, preference, h in zip(model.query, model.preference, own):
        weight = ref.softmax(ref.affine(query[2], np.tanh(ref.affine(query[0], fused))), axis=1)
        side = side + ref.sigmoid(ref.affine(preference, behavior)) * weight * h
    return behavior, side / len(views)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_and_losses(build, name):
    ref.check_views(build(**VARIANTS[name]), reference, atol=2e-6)


def test_three_modalities(build, with_audio):
    prepared = build(with_audio)
    assert prepared.model.modalities == ["audio", "image", "text"]
    ref.check_forward(prepared, reference, atol=2e-6)


def test_defaults(make_config, planted):
    config = make_config("SMORE", planted.folder)
    assert config["learning_rate_scheduler"] == [0.96, 50]
    assert config["negative_items"] == "train"


def test_the_fused_graph_has_the_largest_weight_of_each_edge(build):
    image, text, fused = map(ref.dense, build().model.item_graph)
    np.testing.assert_array_equal(fused, np.maximum(image, text))
    assert (fused > image).any() and (fused > text).any()


def test_an_item_without_a_modality_is_not_in_its_view(build, planted):
    prepared = build()
    model = prepared.model
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    image, text, fused = map(ref.dense, model.item_graph)
    assert not image[item].any() and not image[:, item].any()
    np.testing.assert_array_equal(fused[item], text[item])
    in_image, in_text, in_both = model.views()
    assert not in_image[item].any() and in_text[item].all() and in_both[item].all()
    ref.check_row_is_not_read(model, item)


def test_dropout_is_of_training_alone(build):
    model = build(dropout=0.5).model
    batch = ref.batch_with_repetitions()
    one, other, again = (ref.losses(model, batch, seed) for seed in (1, 2, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    model.eval()
    assert torch.equal(*(model.representations()[0] for _ in range(2)))
    ones = torch.ones(3, 2000, 16)
    model.train()
    with torch.no_grad():
        for layer in [*model.preference, *(query[2] for query in model.query)]:
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.fill_(100.0)  # σ = 1
    side = model.fuse(torch.zeros(2000, 16), ones) * 3
    # The fused view is kept, at twice its size, or not; a modality's, of weight 1/16, likewise.
    kinds = [round(2 * f + x * 2 / 16, 4) for f in (0, 1) for x in (0, 1, 2)]
    assert sorted({round(x, 4) for x in side.unique().tolist()}) == sorted(kinds)


def test_cl_weight_zero_switches_its_term_off(build):
    ref.check_switch(build, "cl_weight", 0.7, term=1)


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, trained):
    ref.check_gradients(build(train_features=trained).model, raw=trained)


@pytest.mark.parametrize("key", [{"dropout": 1.0}, {"n_layers": -1}, {"reg_weight": "much"}])
def test_bad_keys_are_refused(planted, make_config, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        make_config("SMORE", planted.folder, **key)


VIEWS = (*MODALITIES, "fused")


class TestGolden(GoldenVectors):
    model = "SMORE"
    keys = {
        **{key: key for key in ("embedding_size", "n_ui_layers", "n_layers", "temperature")},
        **{"knn_k": "image_knn_k", "dropout": "dropout_rate", "cl_weight": "cl_loss"},
        "reg_weight": "reg_weight",
    }
    parameters = {
        **TABLES,
        **RAW,
        **layers("project.{name}", "project.{name}"),
        **layers("query.{name}.0", "query.{n}.0"),
        **{f"query.{name}.2.weight": f"query.{n}.2.weight" for n, name in enumerate(MODALITIES)},
        **{f"filter.{name}": lambda get, n=n: get("filters")[n] for n, name in enumerate(VIEWS)},
        **{
            f"{golden}.{name}.{part}": f"{golden}.{n}.{part}"
            for golden in ("gate", "preference")
            for n, name in enumerate(VIEWS)
            for part in ("weight", "bias")
        },
    }
    terms = [("bpr",), ("infonce_user", "infonce_item"), ("reg",)]
    wrong = {"n_layers": 1, "knn_k": 4, "temperature": 0.21}

    def injected(self, golden, prefix=""):
        nodes = Batch.from_interaction(golden.model, golden.batch()).nodes
        return kept([golden.ours(f"rand.keep.{name}")[nodes] for name in VIEWS])

    def middle(self, golden):
        model = golden.model.eval()  # the file has none with dropout
        behavior, side = model.forward()
        graphs = {f"graph_{name}": graph for name, graph in zip(VIEWS, model.item_graph)}
        return {"behavior": behavior, "side": side, **dense(graphs)}


class TestGoldenWithDropout(TestGolden):
    variant = "dropout"
    keys = {**TestGolden.keys, "dropout": "rate"}
    wrong = {"dropout": 0.29, "cl_weight": 0.11}
