"""Perturbation, purifier and fusions against their equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec.model.layers import (
    AttentionFusion,
    BehaviorAwareFusion,
    MeanFusion,
    Purifier,
    build_fusion,
    perturb,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def affine(layer, x):
    y = x @ layer.weight.detach().numpy().T
    return y if layer.bias is None else y + layer.bias.detach().numpy()


def embeddings(n=40, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    e = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return e * torch.logspace(-3, 3, n, dtype=torch.float64)[:, None]  # moduli far apart


# ---- perturbation ---------------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(0.0, 0.9), st.sampled_from(["modulus", "uniform"]))
def test_perturbation_has_its_strength_and_keeps_signs(seed, strength, kind):
    e = embeddings(seed=seed)
    torch.manual_seed(seed)
    moved = perturb(e, strength, kind)
    distance = (moved - e).norm(dim=1)
    expected = strength * (e.norm(dim=1) if kind == "modulus" else torch.ones_like(distance))
    torch.testing.assert_close(distance, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(moved.sign(), e.sign())
    assert (moved.abs() >= e.abs()).all()


@pytest.mark.parametrize("kind", ["modulus", "uniform"])
def test_perturbation_is_its_equation(kind):
    e = embeddings()
    torch.manual_seed(5)
    moved = perturb(e, 0.3, kind).numpy()
    torch.manual_seed(5)
    noise = torch.rand(e.shape, dtype=torch.float64).numpy()
    x = e.numpy()
    modulus = np.linalg.norm(x, axis=1, keepdims=True) if kind == "modulus" else 1.0
    noise = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    np.testing.assert_allclose(moved, x + 0.3 * modulus * np.sign(x) * noise, rtol=1e-12)


def test_modulus_is_the_default_and_in_single_precision():
    e = embeddings().float()
    moved = perturb(e, 0.1)
    assert moved.dtype == torch.float32
    relative = (moved.double() - e.double()).norm(dim=1) / e.double().norm(dim=1)
    torch.testing.assert_close(relative, torch.full((40,), 0.1).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["modulus", "uniform"])
def test_a_zero_row_stays_zero(kind):
    e = embeddings()
    e[3] = 0.0
    assert (perturb(e, 0.5, kind)[3] == 0).all()


def test_two_views_differ():
    e = embeddings()
    assert (perturb(e, 0.1) != perturb(e, 0.1)).all(dim=1).all()


def test_none_is_the_identity():
    e = embeddings()
    assert torch.equal(perturb(e, 0.7, "none"), e)


@pytest.mark.parametrize("kind", ["modulus", "uniform", "none"])
def test_the_noise_is_constant_for_the_gradient(kind):
    e = embeddings().requires_grad_()
    weight = torch.randn(e.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((perturb(e, 0.4, kind) * weight).sum(), e)
    assert torch.equal(gradient, weight)


def test_perturbation_leaves_its_input_alone():
    e = embeddings()
    before = e.clone()
    perturb(e, 0.4)
    assert torch.equal(e, before)


def test_an_unknown_perturbation_is_refused():
    with pytest.raises(ValueError, match="gauss"):
        perturb(embeddings(), 0.1, "gauss")


# ---- purifier and fusions -------------------------------------------------------------------


def test_purifier():
    torch.manual_seed(0)
    layer = Purifier(7, 4)
    ids, features = torch.randn(9, 4), torch.randn(9, 7)
    hidden = affine(layer.project, features.numpy())
    expected = ids.numpy() * sigmoid(affine(layer.gate, hidden))
    np.testing.assert_allclose(layer(ids, features).detach().numpy(), expected, atol=1e-6)


def reference_attention(layer, semantic):
    hidden = np.tanh(affine(layer.score[0], semantic))
    logits = affine(layer.score[2], hidden)  # [M, n, 1]
    weight = np.exp(logits - logits.max(axis=0))
    weight /= weight.sum(axis=0)
    return (weight * semantic).sum(axis=0)


def reference_behavior(layer, behavior, semantic):
    common = reference_attention(layer.common, semantic)
    deviations = [
        sigmoid(affine(gate, behavior)) * (part - common)
        for gate, part in zip(layer.gates, semantic)
    ]
    return (common + sum(deviations)) / (len(semantic) + 1)


@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("kind", ["mean", "attention", "behavior"])
def test_fusion(kind, m):
    torch.manual_seed(m)
    weights = np.arange(1, m + 1) / (m * (m + 1) / 2)
    layer = build_fusion(kind, weights.tolist(), 5)
    behavior, semantic = torch.randn(11, 5), torch.randn(m, 11, 5)
    got = layer(behavior, semantic).detach().numpy()
    if kind == "mean":
        expected = np.einsum("m,mnd->nd", weights, semantic.numpy())
    elif kind == "attention":
        expected = reference_attention(layer, semantic.numpy())
    else:
        expected = reference_behavior(layer, behavior.numpy(), semantic.numpy())
    assert got.shape == (11, 5)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_fusions_of_one_modality():
    behavior, semantic = torch.randn(6, 5), torch.randn(1, 6, 5)
    assert torch.equal(build_fusion("mean", [1.0], 5)(behavior, semantic), semantic[0])
    got = build_fusion("attention", [1.0], 5)(behavior, semantic)
    torch.testing.assert_close(got, semantic[0], atol=0, rtol=0)
    # Nothing deviates from a common part of one: f = h / 2.
    got = build_fusion("behavior", [1.0], 5)(behavior, semantic)
    torch.testing.assert_close(got, semantic[0] / 2, atol=1e-7, rtol=0)


def test_build_fusion():
    kinds = {"mean": MeanFusion, "attention": AttentionFusion, "behavior": BehaviorAwareFusion}
    for kind, expected in kinds.items():
        assert type(build_fusion(kind, [0.5, 0.5], 4)) is expected
    assert len(build_fusion("behavior", [0.2, 0.3, 0.5], 4).gates) == 3
    with pytest.raises(ValueError, match="sum"):
        build_fusion("sum", [0.5, 0.5], 4)


@pytest.mark.parametrize("kind", ["attention", "behavior"])
def test_the_order_of_the_nodes_does_not_matter(kind):
    layer = build_fusion(kind, [0.5, 0.5], 5)
    behavior, semantic = torch.randn(8, 5), torch.randn(2, 8, 5)
    order = torch.randperm(8)
    whole = layer(behavior, semantic)[order]
    torch.testing.assert_close(layer(behavior[order], semantic[:, order]), whole)
