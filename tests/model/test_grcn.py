"""GRCN against golden vectors and a NumPy rewriting, node by node; missing modalities."""

from __future__ import annotations

import helpers_models as ref
import numpy as np
import pytest
import torch
from helpers_golden import MODALITIES, N_USERS, GoldenVectors, layers
from recbole.data.interaction import Interaction

from recbole_sigrec.errors import ConfigError


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → the model, with confidences that matter."""

    def make(folder=planted.folder, **overrides):
        model = prepare(make_config("GRCN", folder, **overrides)).model
        with torch.no_grad():
            model.confidence.mul_(5)
        return model

    return make


@pytest.fixture
def batch():
    return Interaction(ref.batch_with_repetitions())


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def reference(model):
    """The representations, [n_users + n_items, d + M·c]."""
    keys, n_users = model.keys, model.n_users
    r = model.interactions.toarray() > 0
    n = sum(r.shape)
    near, z, alpha = [], [], np.zeros((len(model.modalities), n, n))
    for m, name in enumerate(model.modalities):
        has = model.mask[name].numpy()
        taken = r & has
        near = [n_users + np.flatnonzero(row) for row in taken]
        near += [np.flatnonzero(column) for column in taken.T]
        f = ref.affine(model.project[name], ref.array(model.raw[name]))
        f = unit(np.where(f > 0, f, 0.01 * f)) * has[:, None]
        p = unit(ref.array(model.preference[name]))
        for _ in range(keys.n_routings):
            new = p.copy()
            for u in range(n_users):
                of = f[near[u] - n_users]
                new[u] += ref.softmax(of @ p[u], axis=0) @ of if len(of) else 0.0
            p = unit(new)
        x = np.concatenate([p, f])
        for i in range(n):
            if len(near[i]):
                alpha[m, i, near[i]] = ref.softmax(x[near[i]] @ x[i], axis=0)
        z.append(x + alpha[m] @ x)
    w = np.zeros((n, n))
    confidence = ref.array(model.confidence)
    for i, j in zip(*alpha.any(axis=0).nonzero()):
        w[i, j] = max(a[i, j] * c for a, c in zip(alpha, confidence[j]) if a[i, j] > 0)
    if keys.prune:
        w = np.maximum(w, 0)
    x = unit(ref.array(model.ids))
    return np.concatenate([x + w @ x + w @ (w @ x), *z], axis=1)


@pytest.mark.parametrize(
    "keys", [{}, {"prune": False, "n_routings": 3}, {"modalities": ["image"], "feature_size": 5}]
)
def test_representations_and_losses(build, batch, keys):
    model = build(reg_weight=0.7, **keys)
    expected = reference(model)
    got = ref.array(torch.cat(model.representations()))
    np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)

    u, i, j = ref.ids(batch)
    ids = ref.array(model.ids)
    l2 = (ids[u] ** 2).mean() + (ids[np.concatenate([i, j]) + model.n_users] ** 2).mean()
    l2 += sum((ref.array(table)[u] ** 2).mean() for table in model.preference.values())
    bpr = ref.bpr(expected[u], expected[i + model.n_users], expected[j + model.n_users])
    np.testing.assert_allclose(ref.losses(model, batch), [bpr, 0.7 * l2], atol=1e-5, rtol=0)


def test_three_modalities(build, with_audio):
    model = build(with_audio)
    assert model.confidence.shape == (model.n_users + model.n_items, 3)
    got = torch.cat(model.representations())
    assert got.shape[1] == model.keys.embedding_size + 3 * model.keys.feature_size
    np.testing.assert_allclose(ref.array(got), reference(model), atol=1e-6, rtol=0)


def test_an_item_without_a_modality_has_no_part_in_it(build):
    model = build(train_features=True)
    item = int((~model.mask["image"])[1:].nonzero()) + 1
    edges = model.edges.col == item
    assert edges.any()
    r_u, r_i, to_users, to_items = model.content("image")
    assert not r_i[item].any() and not to_users[edges].any() and not to_items[edges].any()
    with torch.no_grad():
        model.raw["image"][item] += 100.0
        model.confidence[model.n_users + item, 0] += 100.0
    for before, after in zip((r_u, r_i, to_users, to_items), model.content("image")):
        assert torch.equal(before, after)
    np.testing.assert_allclose(
        ref.array(torch.cat(model.representations())), reference(model), atol=1e-6, rtol=0
    )


def test_an_edge_without_any_modality_weighs_nothing(build):
    model = build(modalities=["image"], prune=False)
    item = int((~model.mask["image"])[1:].nonzero()) + 1
    users, items = model.representations()
    d = model.keys.embedding_size
    own = unit(ref.array(model.ids)[model.n_users + item])
    np.testing.assert_allclose(ref.array(items)[item, :d], own, atol=1e-6)
    takers = model.edges.row[model.edges.col == item]
    with torch.no_grad():
        model.ids[model.n_users + item] *= -1
    assert torch.equal(model.representations()[0][takers], users[takers])


def test_weights_of_a_node_add_up_to_one(build):
    model = build()
    for m, name in enumerate(model.modalities):
        *_, to_users, to_items = model.content(name)
        for nodes, weight in ((model.edges.row, to_users), (model.edges.col, to_items)):
            total = torch.zeros(100).index_add(0, nodes, weight.detach())
            total = total[total > 0]
            torch.testing.assert_close(total, torch.ones_like(total))
            assert len(total) > 40 + m


def test_initialisation(planted, make_config, prepare):
    model = prepare(make_config("GRCN", planted.folder, embedding_size=64)).model
    n = model.n_users + model.n_items
    tables = {"confidence": (n, 2), "ids": (n, 64), "preference.text": (model.n_users, 64)}
    tables["project.image.weight"] = (64, 12)
    for name, shape in tables.items():
        table = model.get_parameter(name)
        assert table.shape == shape
        assert table.std().item() == pytest.approx((2 / sum(shape)) ** 0.5, rel=0.15), name


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, trained):
    model = build(train_features=trained)
    ref.check_gradients(model, raw=trained)


@pytest.mark.parametrize("bad", [{"n_routings": -1}, {"feature_size": 0}, {"prune": "some"}])
def test_bad_keys_are_refused(build, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}\]"):
        build(**bad)


class TestGolden(GoldenVectors):
    model = "GRCN"
    keys = {
        **{key: key for key in ("embedding_size", "reg_weight")},
        **{"feature_size": "latent_embedding"},
    }
    parameters = {
        "user_id": lambda get: get("ids")[: N_USERS + 1],
        "item_id": lambda get: get("ids")[N_USERS + 1 :],
        "confidence": "confidence",
        **{f"user_preference.{name}": f"preference.{name}" for name in MODALITIES},
        **layers("project.{name}", "project.{name}"),
    }
    terms = [("bpr",), ("reg_id", *(f"reg_preference.{name}" for name in MODALITIES))]
    wrong = {"prune": False, "n_routings": 3, "reg_weight": 0.02}

    def middle(self, golden):
        return {"representation": torch.cat(golden.model.representations())}
