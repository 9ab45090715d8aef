"""MMGCN against a NumPy rewriting of its layers, node by node, and of its loss."""

from __future__ import annotations

import contextlib
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers_golden import MODALITIES, N_USERS, GoldenVectors
from recbole.data.interaction import Interaction

from recbole_sigrec.errors import ConfigError


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → the model, every offset away from zero."""

    def make(folder=planted.folder, **overrides):
        model = prepare(make_config("MMGCN", folder, **overrides)).model
        torch.manual_seed(4)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.uniform_(-0.5, 0.5)
        return model

    return make


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    users, items, others = (torch.randint(1, n, (40,), generator=generator) for n in (40, 50, 50))
    return Interaction({"user_id": users, "item_id": items, "neg_item_id": others})


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def affine(layer, x):
    return x @ array(layer.weight).T + array(layer.bias)


def reference_forward(model):
    """The mean over modalities of each node's last layer, [n_users + n_items, d]."""
    n_users, ids = model.n_users, array(model.ids)
    r = model.interactions.toarray() > 0
    total = np.zeros_like(ids)
    for name in model.modalities:
        has = model.mask[name].numpy()
        features = array(model.raw[name])
        if name in model.reduce:
            features = affine(model.reduce[name], features)
        features[~has] = 0.0
        x = np.concatenate([array(model.preference[name]), features])
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for layer in model.layers[name]:
            new = []
            for node in range(len(ids)):
                if node < n_users:
                    near = n_users + np.flatnonzero(r[node] & has)
                else:
                    taken = r[:, node - n_users] if has[node - n_users] else []
                    near = np.flatnonzero(taken)
                mean = x[near].mean(axis=0) if len(near) else np.zeros(x.shape[1])
                h = leaky(array(layer.aggregate.weight) @ mean)
                own = leaky(affine(layer.own, x[node])) + ids[node]
                if model.keys.concat:
                    new.append(leaky(affine(layer.combine, np.concatenate([h, own]))))
                else:
                    new.append(leaky(affine(layer.combine, h) + own))
            x = np.array(new)
        total += x / len(model.modalities)
    return total


KEYS = [
    {},
    {"modalities": ["image"], "n_layers": 1},
    {"concat": True, "n_layers": 3},
    {"latent_size": 9, "train_features": True},
]


@pytest.mark.parametrize("keys", KEYS)
def test_representations_and_losses(build, batch, keys):
    model = build(**keys, reg_weight=0.7)
    assert set(model.reduce) == ({"image"} if "latent_size" in keys else set())
    expected = reference_forward(model)
    got = array(torch.cat(model.representations()))
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)

    u = batch["user_id"].numpy()
    i, j = (batch[key].numpy() + model.n_users for key in ("item_id", "neg_item_id"))
    difference = (expected[u] * (expected[j] - expected[i])).sum(axis=1)
    ids = array(model.ids)
    l2 = (np.concatenate([ids[u], ids[u]]) ** 2 + np.concatenate([ids[i], ids[j]]) ** 2).mean()
    l2 += sum((array(table)[1:] ** 2).mean() for table in model.preference.values())
    got = [term.item() for term in model.calculate_loss(batch)]
    wanted = [np.log1p(np.exp(difference)).mean(), 0.7 * l2]
    np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=0)


def test_padding_has_no_part_in_the_regulariser(build, batch):
    model = build(reg_weight=0.7)
    with torch.no_grad():
        for table in (model.ids, *model.preference.values()):
            table[0] = 50.0
    u, i, j = (batch[key].numpy() for key in ("user_id", "item_id", "neg_item_id"))
    squares = array(model.ids) ** 2
    expected = (2 * squares[u] + squares[i + model.n_users] + squares[j + model.n_users]).mean() / 2
    expected += sum((array(table)[1:] ** 2).mean() for table in model.preference.values())
    assert model.calculate_loss(batch)[1].item() == pytest.approx(0.7 * expected, rel=1e-6)


def test_three_modalities(build, with_audio):
    model = build(with_audio)
    assert model.modalities == ["audio", "image", "text"]
    got = array(torch.cat(model.representations()))
    np.testing.assert_allclose(got, reference_forward(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize("missing_modality", ["mean", "zero"])
def test_an_item_without_a_modality_brings_its_id_alone(build, missing_modality):
    keys = {"missing_modality": missing_modality, "train_features": True, "latent_size": 9}
    model = build(modalities=["image"], n_layers=1, **keys)
    zero = int((~model.mask["image"])[1:].nonzero()) + 1
    takers = model.interactions[:, [zero]].nonzero()[0]
    assert len(takers) > 0
    before = torch.cat(model.representations()).detach()
    with torch.no_grad():
        model.raw["image"][zero] += 10.0
    assert torch.equal(torch.cat(model.representations()), before)
    layer = model.layers["image"][0]
    own = leaky(array(layer.own.bias)) + array(model.ids)[model.n_users + zero]
    expected = leaky(array(layer.combine.bias) + own)
    np.testing.assert_allclose(before[model.n_users + zero], expected, atol=1e-6, rtol=0)
    with torch.no_grad():
        model.ids[model.n_users + zero] += 1.0
    changed = (torch.cat(model.representations()) != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == [model.n_users + zero]


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_reaches_every_parameter(build, batch, trained):
    model = build(train_features=trained, latent_size=9)
    sum(model.calculate_loss(batch)).backward()
    names = dict(model.named_parameters())
    assert any(name.startswith("raw.") for name in names) == trained
    for name, parameter in names.items():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


@pytest.mark.parametrize(
    "bad", [{"n_layers": 0}, {"latent_size": 0}, {"concat": "some"}, {"reg_weight": -0.1}]
)
def test_bad_keys_are_refused(build, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}\]"):
        build(**bad)


BOTH = ("weight", "bias")


def golden_layers():
    """The golden name of each layer's parameter → ours."""
    return {
        f"layer.{name}.{n + 1}.{part}": f"layers.{name}.{n}.{part}"
        for name in MODALITIES
        for n in range(3)
        for part in ("aggregate.weight", *(f"{p}.{q}" for p in ("own", "combine") for q in BOTH))
    }


class TestGolden(GoldenVectors):
    """The authors' code leaves the preferences for text out of the regulariser, as ``injected``
    does here; ids and preferences are trained in both."""

    model = "MMGCN"
    keys = {
        key: key for key in ("embedding_size", "n_layers", "concat", "latent_size", "reg_weight")
    }
    parameters = {
        "user_id": lambda get: get("ids")[: N_USERS + 1],
        "item_id": lambda get: get("ids")[N_USERS + 1 :],
        **{f"user_preference.{name}": f"preference.{name}" for name in MODALITIES},
        **{f"project.image.{part}": f"reduce.image.{part}" for part in BOTH},
        **golden_layers(),
    }
    terms = [("bpr",), ("reg_id", "reg_preference.image")]
    wrong = {"reg_weight": 0.11, "n_layers": 4}

    @contextlib.contextmanager
    def injected(self, golden, prefix=""):
        model, whole = golden.model, golden.model.calculate_loss

        def calculate_loss(interaction):
            bpr, l2 = whole(interaction)
            return bpr, l2 - model.keys.reg_weight * model.preference["text"][1:].square().mean()

        with patch.object(model, "calculate_loss", calculate_loss):
            yield

    def middle(self, golden):
        return {"representation": golden.model.forward()}


class TestGoldenAllPreferences(TestGolden):
    """The regulariser is of the preferences for all modalities, as ours is."""

    variant = "all_preferences"
    terms = [("bpr",), ("reg_id", "reg_preference.image", "reg_preference.text")]
    injected = GoldenVectors.injected
    wrong = {"reg_weight": 0.11}

    def arrays(self):
        arrays = super().arrays()
        return {**arrays, "weight.reg_preference.text": arrays["weight.reg_preference.image"]}


class TestGoldenByAddition(TestGolden):
    variant = "add"
    fixed = {"concat": False}
    wrong = {"reg_weight": 0.11}

    def arrays(self):
        """Without the main vectors' gradients; W_3 has the columns of h alone."""
        arrays = super().arrays()
        arrays["term.bpr"] = arrays["loss"] - sum(arrays[f"wterm.{name}"] for name in self.terms[1])
        found = {}
        for name, array in arrays.items():
            if name.startswith("grad.") and f"variant.add.{name}" not in arrays:
                continue
            if name.startswith("param.") and name.endswith("combine.weight"):
                array = array[:, : -arrays["cfg.embedding_size"]]
            found[name] = array
        return found

    def middle(self, golden):
        return {}  # the file has none by addition
