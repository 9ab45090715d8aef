"""GUME: its golden vectors, its extended graph, its users' tables and missing modalities."""

from __future__ import annotations

import contextlib

import helpers_models as ref
import numpy as np
import pytest
import torch
from helpers_golden import RAW, TABLES, GoldenVectors, dense, layers

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model.batch import Batch


class TestGolden(GoldenVectors):
    model = "GUME"
    keys = {
        **{key: key for key in ("embedding_size", "n_ui_layers", "n_layers", "knn_k")},
        **{"cl_weight": "bm_loss", "temperature": "bm_temp", "align_weight": "vt_loss"},
        **{"user_cl_weight": "um_loss", "user_temperature": "um_temp"},
        **{"reg_weight": "reg_weight_1", "extended_reg_weight": "reg_weight_2"},
    }
    parameters = {
        **TABLES,
        **RAW,
        **{f"extended_user.{name}": f"extended_user.{name}" for name in ("image", "text")},
        **layers("purify.{name}.project", "purify.{name}.project"),
        **layers("purify.{name}.gate", "purify.{name}.gate"),
        **{f"common.{n}": f"fusion.common.score.{n}" for n in ("0.weight", "0.bias", "2.weight")},
        **layers("own.{name}", "fusion.gates.{n}"),
    }
    terms = [
        ("bpr",),
        ("behaviour_user", "behaviour_item"),
        ("user_modality", "noise_integrated", "noise_extended"),
        ("align_image_text",),
        ("reg_final", "reg_extended_item"),
    ]
    wrong = {"n_layers": 1, "knn_k": 9, "user_temperature": 0.21, "perturbation_eps": 0.11}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        users = golden.batch()["user_id"].unique()
        noise = [
            golden.ours(f"rand.noise.{kind}.{n}", axes=(0,))[users]
            for kind in ("integrated", "extended")
            for n in (1, 2)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand_like", lambda _: noise.pop(0))
            yield

    def middle(self, golden):
        model = golden.model
        graphs = {f"graph_{name}": graph for name, graph in model.item_graph.items()}
        return dense({"graph_all": model.graph, **graphs})


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → a prepared GUME whose embeddings are large enough to matter."""

    def make(folder=planted.folder, **overrides):
        return ref.enlarged(prepare(make_config("GUME", folder, **{"knn_k": 5, **overrides})))

    return make


class Reference:
    """The steps with dense float64 matrices; tables of all users, then all items."""

    def __init__(self, model, dataset):
        keys, n = model.keys, model.n_users
        r = ref.training_matrix(dataset)
        ids = ref.array(model.item_embedding.weight)
        masks, knn, items = [], [], []
        for name, features in dataset.modality_features.items():
            masks.append(dataset.modality_mask[name].numpy())
            knn.append(ref.knn(features.numpy(), masks[-1], keys))
            x = ref.affine(model.purify[name].project, ref.array(model.raw[name]))
            h = masks[-1][:, None] * ids * ref.sigmoid(ref.affine(model.purify[name].gate, x))
            items.append(np.linalg.matrix_power(ref.by_row_sums(knn[-1]), keys.n_layers) @ h)
        self.q = np.all([graph > 0 for graph in knn], axis=0) & ~np.eye(len(ids), dtype=bool)
        self.graph = ref.by_row_sums(np.block([[np.zeros((n, n)), r], [r.T, self.q * 1.0]]))
        self.h = [np.concatenate([self.graph[:n, n:] @ h, h]) for h in items]

        users = [ref.array(table) for table in model.extended_user.values()]
        self.behavior = self._mean(keys, ref.array(model.user_embedding.weight), ids)
        self.extended = np.mean([self._mean(keys, *pair) for pair in zip(users, items)], axis=0)
        users = np.arange(n) > 0
        self.known = [h[np.concatenate([users, mask])] for h, mask in zip(self.h, masks)]

    def _mean(self, keys, users, items):
        found = [np.concatenate([users, items])]
        for _ in range(keys.n_ui_layers):
            found.append(self.graph @ found[-1])
        return np.mean(found, axis=0)


@pytest.mark.parametrize("audio", [False, True])
def test_the_steps_with_two_and_three_modalities(build, with_audio, planted, audio):
    keys = {"knn_k": 12, "reg_weight": 0.1, "n_layers": 1, "n_ui_layers": 2}
    prepared = build(with_audio if audio else planted.folder, **keys)
    model, expected = prepared.model, Reference(prepared.model, prepared.train.dataset)
    assert len(expected.h) == (3 if audio else 2)
    assert expected.q.any() and (expected.q != expected.q.T).any()
    np.testing.assert_allclose(ref.dense(model.graph), expected.graph, atol=1e-6, rtol=0)
    h = model.explicit()
    np.testing.assert_allclose(ref.array(h), expected.h, atol=1e-6, rtol=0)
    batch = Batch.from_interaction(model, ref.batch_with_repetitions())
    for got, part in (
        (model.behavior(batch), expected.behavior),
        (model.extended(h, batch), expected.extended),
    ):
        assert np.abs(part).max() > 1e-2
        np.testing.assert_allclose(ref.array(got), part[batch.nodes], atol=1e-6, rtol=0)
    moments = [(x.var(ddof=1), x.mean()) for x in expected.known]
    pairs = [(0, 1), (0, 2), (1, 2)] if audio else [(0, 1)]
    distance = np.mean([np.abs(np.subtract(moments[a], moments[b])).sum() for a, b in pairs])
    assert model.alignment(h).item() == pytest.approx(distance, rel=1e-4)


def test_one_modality_has_nothing_to_be_aligned_with(build):
    model = build(modalities=["text"]).model
    assert model.alignment(model.explicit()) == 0
    q = ref.dense(model.graph)[model.n_users :, model.n_users :]
    assert (q > 0).sum() == (ref.dense(model.item_graph["text"]) > 0).sum() - (model.n_items - 1)


def test_a_users_noise_is_drawn_at_each_batch_and_uniform(build, monkeypatch):
    model, calls = build(perturbation_eps=0.3).model, []

    def perturb(rows, strength, kind):
        calls.append((rows, strength, kind))
        return rows

    monkeypatch.setattr("recbole_sigrec.model.gume.perturb", perturb)
    model.calculate_loss(ref.batch_with_repetitions())
    assert [call[1:] for call in calls] == [(0.3, "uniform")] * 4
    assert torch.equal(calls[0][0], calls[1][0]) and torch.equal(calls[2][0], calls[3][0])
    assert len(calls[0][0]) == len(ref.batch_with_repetitions()["user_id"].unique())


def test_noise_matters_to_the_users_terms_alone(build):
    model, batch = build().model, ref.batch_with_repetitions()
    one, same, other = (ref.losses(model, batch, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert (one != other).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("key", "term"), [("cl_weight", 1), ("user_cl_weight", 2), ("align_weight", 3)]
)
def test_a_weight_of_zero_switches_its_term_off(build, key, term):
    on, off = (ref.losses(build(**{key: w}).model, ref.batch_with_repetitions()) for w in (0.7, 0))
    others = [i for i in range(5) if i != term]
    assert off[term] == 0 < on[term] and torch.equal(on[others], off[others])


def test_an_item_without_a_modality_acts_on_nothing_there(build, planted):
    prepared = build(knn_k=12)
    model = prepared.model
    item = prepared.dataset.token2id("item_id", str(planted.zero_item))
    image, text = (ref.dense(model.item_graph[name]) for name in ("image", "text"))
    assert not image[item].any() and not image[:, item].any() and text[item, item] > 0
    q = ref.dense(model.graph)[model.n_users :, model.n_users :]
    assert not q[item].any() and not q[:, item].any() and q.any()
    in_image, in_text = model.explicit()[:, model.n_users :]
    assert not in_image[item].any() and in_text[item].all()
    ref.check_row_is_not_read(model, item)


def test_padding_counts_nowhere(build):
    model, batch = build().model, ref.batch_with_repetitions()
    before = ref.losses(model, batch)
    with torch.no_grad():
        for table in (model.user_embedding.weight, model.item_embedding.weight):
            table[0] += 100.0
        for table in (*model.extended_user.values(), *model.raw.parameters()):
            table[0] += 100.0
    assert torch.equal(ref.losses(model, batch), before)


def test_start(make_config, prepare, planted):
    model = prepare(make_config("GUME", planted.folder, embedding_size=64)).model
    bound = (6 / (model.n_users + 64)) ** 0.5  # Xavier-uniform
    for table in (model.user_embedding.weight, *model.extended_user.values()):
        assert 0.95 * bound < table.abs().max() <= bound
    for layer in (model.purify["text"].gate, *model.fusion.gates):
        assert 0.95 / 8 < layer.weight.abs().max() <= 1 / 8  # torch's default


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, trained):
    ref.check_gradients(build(train_features=trained).model, raw=trained)


@pytest.mark.parametrize("bad", [{"user_temperature": 0}, {"align_weight": -1}, {"n_layers": -1}])
def test_bad_keys_are_refused(build, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}\]"):
        build(**bad)
