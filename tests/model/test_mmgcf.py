"""MMGCF: golden vectors of its nine variants; its subgraphs, modalities and keys."""

from __future__ import annotations

import contextlib
import itertools

import helpers_models as ref
import numpy as np
import pytest
import torch
from helpers_golden import TABLES, GoldenVectors, layer, layers

from recbole_sigrec.errors import ConfigError

VARIANTS = [*itertools.product(("mean", "sum", "concat"), ("equal", "alpha", "normalized"))]
WEIGHTINGS = ["equal", "alpha", "normalized"]


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared MMGCF."""

    def make(folder=planted.folder, **overrides):
        return ref.enlarged(prepare(make_config("MMGCF", folder, **overrides)))

    return make


def places(fusion_mode, weighting):
    """Where the golden parameters are that a variant has."""
    found = {**TABLES, **layers("project.{name}", "project.{name}")}
    if weighting == "alpha":
        found["alpha_logit"] = lambda get: get("alpha_logit")[0]
    if fusion_mode == "concat" and weighting == "equal":
        found.update(layer("concat_modalities", "fuse_modalities.linear"))
        found.update(layer("concat_id_modality", "fuse.linear"))
    elif fusion_mode == "concat":
        found.update(layer("concat_all", "fuse.linear"))
    return found


class TestGolden(GoldenVectors):
    model = "MMGCF"
    keys = {
        **{key: key for key in ("embedding_size", "n_ui_layers", "reg_weight")},
        **{key: key for key in ("fusion_mode", "weighting")},
        **{"feature_size": "feat_embed_dim", "edge_dropout": "dropout"},
    }
    parameters = places("concat", "normalized")
    terms = [("bpr",), ("reg",)]
    wrong = {"n_ui_layers": 1, "reg_weight": 0.011, "weighting": "alpha"}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        kept = zip((golden.users, golden.items), ("kept_user", "kept_item"))
        pairs = [rows[golden.tensor(f"rand.{name}")].numpy() for rows, name in kept]
        golden.model.pruned_graph = golden.model.pruning.of_pairs(*pairs)
        yield

    @pytest.mark.parametrize(("fusion_mode", "weighting"), VARIANTS)
    def test_golden_variants(self, build, fusion_mode, weighting):
        self.parameters = places(fusion_mode, weighting)
        golden = build(fusion_mode=fusion_mode, weighting=weighting)
        prefix = f"variant.{fusion_mode}.{weighting}"
        with self.injected(golden):
            golden.check(f"{prefix}.loss", sum(golden.model.calculate_loss(golden.batch())))
        golden.check(f"{prefix}.scores", golden.scores())

    def test_the_number_of_kept_edges_is_golden(self, build):
        golden = build()
        golden.model.on_epoch_start(0)
        assert golden.model.pruned_graph.nnz == 2 * len(golden.arrays["rand.kept_user"])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("modalities", [None, ["text"]])
def test_the_items_of_any_number_of_modalities(build, with_audio, weighting, modalities):
    """The mean and the linear layer, against NumPy; three modalities, or one."""
    keys = {"weighting": weighting, "modalities": modalities}
    model = build(with_audio, fusion_mode="mean", **keys).model
    x, j = {}, ref.array(model.lightgcn(2)[1])
    for name in model.modalities:
        has = model.mask[name].numpy()[:, None]
        x[name] = has * ref.affine(model.project[name], ref.array(model.raw[name]))
    parts = list(x.values())
    assert list(x) == (modalities or ["audio", "image", "text"])
    expected = {
        "equal": (j + np.mean(parts, axis=0)) / 2,
        "alpha": np.mean([0.5 * j, *(0.5 * part for part in parts)], axis=0),
        "normalized": np.mean([len(x) * unit(j), *map(unit, parts)], axis=0),
    }[weighting]
    got = ref.array(model.representations()[1])
    np.testing.assert_allclose(got[1:], expected[1:], atol=1e-6, rtol=0)

    model = build(with_audio, fusion_mode="concat", feature_size=5, **keys).model
    assert model.representations()[1].shape == got.shape
    ref.check_gradients(model)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize(("fusion_mode", "weighting"), VARIANTS)
def test_gradient_reaches_every_parameter(build, fusion_mode, weighting):
    model = build(fusion_mode=fusion_mode, weighting=weighting).model
    ref.check_gradients(model)
    if weighting == "alpha":
        assert model.alpha_logit.item() == 0


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("fusion_mode", ["mean", "concat"])
def test_the_row_of_a_missing_modality_acts_on_nothing(build, planted, fusion_mode, weighting):
    prepared = build(fusion_mode=fusion_mode, weighting=weighting)
    model = prepared.model
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    with torch.no_grad():
        model.project["image"].bias.fill_(3.0)
        users, items = model.representations()
        assert torch.isfinite(items).all()
        alone = model.items(model.lightgcn(2)[1][item : item + 1], torch.tensor([item]))
        torch.testing.assert_close(alone[0], items[item])
        model.raw["image"][item] += 100.0
        assert all(map(torch.equal, model.representations(), (users, items)))
        model.raw["text"][item] += 100.0
        changed = (model.representations()[1] != items).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [item]


def test_each_epoch_has_its_own_edges_and_evaluation_all(build):
    model, batch = build(edge_dropout=0.5).model, ref.batch_with_repetitions()
    before = model.representations()
    np.random.seed(0)
    graphs, values = [], []
    for epoch in range(2):
        model.on_epoch_start(epoch)
        graphs.append(ref.dense(model.pruned_graph))
        values.append(ref.losses(model, batch))
    assert model.pruned_graph.nnz == 2 * (model.interactions.nnz // 2)
    assert not np.array_equal(*graphs)
    assert values[0][0] != values[1][0] and values[0][1] == values[1][1]
    assert all(map(torch.equal, model.representations(), before))
    whole = build(edge_dropout=0).model
    whole.on_epoch_start(0)
    assert whole.pruned_graph is whole.graph


@pytest.mark.parametrize(
    "key",
    [{"fusion_mode": "product"}, {"weighting": "none"}, {"edge_dropout": 1}, {"feature_size": 5}],
)
def test_bad_keys_are_refused(build, key):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(key))}\]"):
        build(**key)
