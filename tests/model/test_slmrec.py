"""SLMRec: golden vectors; its chain of heads for any number of modalities; missing modalities."""

from __future__ import annotations

import helpers_models as ref
import numpy as np
import pytest
import torch
from helpers_golden import TABLES, GoldenVectors, layer, layers

from recbole_sigrec.errors import ConfigError


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared SLMRec."""

    def make(folder=planted.folder, **overrides):
        return ref.enlarged(prepare(make_config("SLMRec", folder, **overrides)))

    return make


class TestGolden(GoldenVectors):
    model = "SLMRec"
    keys = {
        **{"embedding_size": "embedding_size", "n_ui_layers": "layer_num", "temperature": "temp"},
        **{"cl_weight": "ssl_alpha", "cl_temperature": "ssl_temp"},
    }
    parameters = {
        **TABLES,
        **layers("project.{name}", "project.{name}"),
        **layer("fuse.user", "fuse_users"),
        **layer("fuse.item", "fuse_items"),
        **layer("head.id", "head_id"),
        **layers("head.{name}", "heads.{name}"),
        **layer("head.chain_1", "chain.1.0"),
        **layer("head.chain_2", "chain.1.1"),
    }
    terms = [("main",), ("ssl.id_image", "ssl.fused_text")]
    wrong = {"n_ui_layers": 2, "temperature": 0.21, "cl_temperature": 0.51}

    def middle(self, golden):
        users, items = golden.model.representations()
        return {"user": users, "item": items}

    def test_golden_scores(self, build):
        golden = build()
        golden.check("scores", golden.scores().sigmoid())

    def test_golden_vectors_refuse_other_values(self, build):
        for key, value in self.wrong.items():
            golden = build(**{key: value})
            with pytest.raises(AssertionError, match="relative error"):
                golden.check_terms(self.terms)
        golden = build(n_ui_layers=2)
        with pytest.raises(AssertionError, match="relative error"):
            golden.check("scores", golden.scores().sigmoid())


def reference(model, dataset, batch):
    """The representations and the terms of the loss, by dense float64 matrices."""
    keys, tables = model.keys, [ref.array(model.item_embedding.weight)]
    r, users = ref.training_matrix(dataset), ref.array(model.user_embedding.weight)
    for name in model.modalities:
        x = dataset.modality_features[name].numpy().astype(np.float64)
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        mask = dataset.modality_mask[name].numpy()[:, None]
        tables.append(mask * ref.affine(model.project[name], x))
    g = [ref.lightgcn(r, np.concatenate([users, x]), keys.n_ui_layers) for x in tables]
    side_by_side = np.concatenate(g, axis=1)
    e_u = ref.affine(model.fuse_users, side_by_side[: len(users)])
    e_i = ref.affine(model.fuse_items, side_by_side[len(users) :])

    u, i, _ = ref.ids(batch)
    main = ref.info_nce(e_u[u], e_i[i][None], keys.temperature)
    g = [table[len(users) :][i] for table in g]  # as drawn
    a, fac = ref.affine(model.head_id, g[0]), 0.0
    for name, step, of_modality in zip(model.modalities, model.chain, g[1:]):
        for layer_ in step:
            a = ref.affine(layer_, a)
        has = dataset.modality_mask[name].numpy()[i]
        b = ref.affine(model.heads[name], of_modality)
        s = np.exp(a[has] @ b[has].T / keys.cl_temperature)
        fac -= np.log(np.diag(s) / s.sum(axis=1)).mean()
    return e_u, e_i, [main, keys.cl_weight * fac]


@pytest.mark.parametrize(
    ("modalities", "chain"),
    [
        (["text"], [[]]),
        (["image", "text"], [[], [16, 8]]),
        (["image", "audio", "text"], [[], [16], [8]]),  # the authors' order and chain
        (None, [[], [16], [8]]),
    ],
)
def test_any_number_of_modalities(build, with_audio, planted, modalities, chain):
    prepared = build(with_audio, modalities=modalities, cl_weight=0.7)
    model, batch = prepared.model, ref.batch_with_repetitions()
    assert model.modalities == (modalities or ["audio", "image", "text"])
    assert [[layer_.out_features for layer_ in step] for step in model.chain] == chain
    batch["item_id"][[3, 5]] = prepared.dataset.token2id("item_id", str(planted.zero_item))
    e_u, e_i, terms = reference(model, prepared.train.dataset, batch)
    for got, expected in zip(model.representations(), (e_u, e_i)):
        np.testing.assert_allclose(ref.array(got), expected, atol=1e-6, rtol=0)
    assert min(terms) > 1e-3
    np.testing.assert_allclose(ref.losses(model, batch), terms, atol=1e-5, rtol=0)


def test_gradient_reaches_every_parameter(build, with_audio):
    for folder in ({}, {"folder": with_audio}, {"modalities": ["image"]}):
        ref.check_gradients(build(**folder).model)


def test_an_item_without_a_modality_takes_no_part_in_its_term(build, planted):
    prepared = build(cl_weight=1.0)
    model, batch = prepared.model, ref.batch_with_repetitions()
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    ref.check_row_is_not_read(model, item)
    batch["item_id"][:] = item
    alone = build(modalities=["image"]).model
    terms = alone.calculate_loss(batch)
    assert terms[0] > 0 and terms[1] == 0
    sum(terms).backward()


def test_the_start(build):
    """Matrices and tables Xavier-uniform, in one size with another; features of unit rows."""
    model = build().model
    for name, matrix in model.named_parameters():
        if matrix.dim() == 2:
            bound = (6 / sum(matrix.shape)) ** 0.5 * (3 if "embedding" in name else 1)
            assert 0.9 * bound < matrix.abs().max() <= bound, name
    norms = model.raw["text"].norm(dim=1)
    torch.testing.assert_close(norms[1:], torch.ones(len(norms) - 1))


def test_no_negatives_and_the_authors_optimiser(build):
    prepared = build()
    group = prepared.trainer.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 1e-4)
    assert "neg_item_id" not in next(iter(prepared.train)).columns


def test_cl_weight_zero_switches_its_term_off(build):
    on, off = (
        ref.losses(build(cl_weight=w).model, ref.batch_with_repetitions()) for w in (0.7, 0.0)
    )
    assert off[1] == 0 < on[1] and on[0] == off[0]


@pytest.mark.parametrize("key", [{"temperature": 0}, {"cl_weight": -1}, {"cl_temperature": 0}])
def test_bad_keys_are_refused(planted, make_config, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        make_config("SLMRec", planted.folder, **key)
