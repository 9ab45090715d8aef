"""VBPR against a NumPy rewriting of its score and loss; missing modalities; its keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_golden import TABLES, GoldenVectors

from recbole_sigrec.errors import ConfigError


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


@pytest.fixture
def build(planted, make_config, prepare):
    """``build(**overrides)`` → the model, every parameter away from zero."""

    def make(folder=planted.folder, **overrides):
        model = prepare(make_config("VBPR", folder, **overrides)).model
        torch.manual_seed(4)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "bias" in name:
                    parameter.uniform_(-0.5, 0.5)
        return model

    return make


@pytest.fixture
def batch(build, planted, make_config, prepare):
    """A batch with repetitions, the item without an image among positives and negatives."""
    dataset = prepare(make_config("VBPR", planted.folder)).dataset
    zero = dataset.token2id("item_id", str(planted.zero_item))
    generator = torch.Generator().manual_seed(0)
    users, items, others = (torch.randint(1, n, (30,), generator=generator) for n in (40, 50, 50))
    items[[2, 9]] = others[[5, 9]] = zero
    return {"user_id": users, "item_id": items, "neg_item_id": others}


def reference_scores(model, biases):
    """x_ui of Eq. 4, [n_users, n_items], term by term."""
    d = model.keys.embedding_size
    f = np.concatenate(
        [array(model.raw[m]) * model.mask[m].numpy()[:, None] for m in model.modalities], axis=1
    )
    theta_i = f @ array(model.project.weight).T + array(model.project.bias)
    gamma_u, theta_u = np.split(array(model.user_embedding.weight), [d], axis=1)
    gamma_i = array(model.item_embedding.weight)
    scores = np.empty((len(gamma_u), len(gamma_i)))
    for u in range(len(gamma_u)):
        for i in range(len(gamma_i)):
            scores[u, i] = gamma_u[u] @ gamma_i[i] + theta_u[u] @ theta_i[i]
            if biases:
                scores[u, i] += array(model.item_bias)[i, 0] + array(model.visual_bias)[:, 0] @ f[i]
    return scores, (gamma_u, theta_u, gamma_i, theta_i, f)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("modalities", [["image", "text"], ["text"]])
def test_scores_and_losses(build, batch, biases, modalities):
    model = build(biases=biases, modalities=modalities, reg_weight=0.7)
    expected, (gamma_u, theta_u, gamma_i, theta_i, f) = reference_scores(model, biases)
    users, items = model.representations()
    np.testing.assert_allclose(array(users) @ array(items).T, expected, atol=1e-5, rtol=0)

    u, i, j = (batch[key].numpy() for key in ("user_id", "item_id", "neg_item_id"))
    bpr = np.log1p(np.exp(expected[u, j] - expected[u, i])).mean()
    items = [gamma_i, theta_i]
    if biases:
        items.append(array(model.item_bias) + f @ array(model.visual_bias))
    items = np.concatenate(items, axis=1)
    of_users = np.concatenate([gamma_u, theta_u], axis=1)
    norms = [np.sqrt((rows**2).sum()) for rows in (of_users[u], items[i], items[j])]
    got = [term.item() for term in model.calculate_loss(batch)]
    np.testing.assert_allclose(got, [bpr, 0.7 * sum(norms) / len(u)], atol=1e-5, rtol=0)


def test_three_modalities(build, with_audio):
    model = build(with_audio)
    assert model.modalities == ["audio", "image", "text"]
    assert model.project.in_features == 5 + 12 + 8
    users, items = model.representations()
    expected = reference_scores(model, biases=False)[0]
    np.testing.assert_allclose(array(users) @ array(items).T, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("missing_modality", ["mean", "zero"])
def test_a_missing_modality_adds_nothing(build, batch, trained, missing_modality):
    model = build(train_features=trained, missing_modality=missing_modality)
    zero = int((~model.mask["image"])[1:].nonzero()) + 1
    width = model.raw["image"].shape[1]
    item = model.items(torch.tensor([zero]))[0, model.keys.embedding_size :]
    text = model.raw["text"][zero] @ model.project.weight[:, width:].T + model.project.bias
    torch.testing.assert_close(item, text, atol=1e-6, rtol=0)
    before = torch.stack(model.calculate_loss(batch)).detach()
    with torch.no_grad():
        model.raw["image"][zero] += 100.0
    assert torch.equal(torch.stack(model.calculate_loss(batch)).detach(), before)
    with torch.no_grad():
        model.raw["text"][zero] += 1.0
    assert not torch.equal(torch.stack(model.calculate_loss(batch)).detach(), before)


def test_gradient_reaches_every_parameter(build, batch):
    model = build(biases=True, train_features=True)
    sum(model.calculate_loss(batch)).backward()
    names = dict(model.named_parameters())
    assert {"raw.image", "raw.text", "item_bias", "visual_bias"} <= set(names)
    for name, parameter in names.items():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name
    zero = int((~model.mask["image"])[1:].nonzero()) + 1
    assert not model.raw["image"].grad[zero].any() and model.raw["text"].grad[zero].any()
    outside = torch.ones(model.n_items, dtype=bool)
    outside[torch.cat([batch["item_id"], batch["neg_item_id"]])] = False
    assert outside.any() and not model.item_embedding.weight.grad[outside].any()


@pytest.mark.parametrize(
    "bad", [{"embedding_size": 0}, {"reg_weight": -1}, {"biases": "some"}, {"train_features": 2}]
)
def test_bad_keys_are_refused(build, bad):
    with pytest.raises(ConfigError, match=rf"\[{next(iter(bad))}\]"):
        build(**bad)


class TestGolden(GoldenVectors):
    model = "VBPR"
    keys = {key: key for key in ("embedding_size", "reg_weight")}
    parameters = {
        "user": TABLES["user_id"],
        "item_id": TABLES["item_id"],
        "project.bias": "project.bias",
        "project.image.weight": lambda get: get("project.weight")[:, :12],
        "project.text.weight": lambda get: get("project.weight")[:, 12:],
    }
    terms = [("bpr",), ("reg",)]
    wrong = {"reg_weight": 0.71, "modalities": ["text", "image"]}

    def middle(self, golden):
        return {"item": golden.model.representations()[1]}
