"""Losses against slow NumPy references and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec.model import losses
from recbole_sigrec.model.losses import (
    both_view_contrast,
    bpr_loss,
    cosine_distance,
    info_nce,
    l2_loss,
    moment_distance,
)


def reference_info_nce(anchor, candidates, temperature):
    """Double loop in float64; candidates [M, n, d], no weights."""

    def similarity(a, b):
        norms = max(np.linalg.norm(a), 1e-12) * max(np.linalg.norm(b), 1e-12)
        return float(a @ b) / norms / temperature

    total, n = 0.0, len(anchor)
    for a in range(n):
        own = [similarity(anchor[a], layer[a]) for layer in candidates]
        every = [similarity(anchor[a], layer[j]) for layer in candidates for j in range(n)]
        total += np.logaddexp.reduce(every) - np.logaddexp.reduce(own)
    return total / n


def sample(n, d, m, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    anchor = torch.randn(n, d, generator=generator, dtype=torch.float64)
    candidates = torch.randn(m, n, d, generator=generator, dtype=torch.float64)
    return anchor.to(dtype), candidates.to(dtype)


@pytest.fixture
def blocks(monkeypatch):
    """``blocks(n)``: blocks of n anchors from now on."""
    return lambda n: monkeypatch.setattr(losses, "_BLOCK", n)


# ---- BPR, L2, cosine distance ---------------------------------------------------------------


def test_bpr():
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(size=(2, 50))
    expected = -np.mean(np.log(1 / (1 + np.exp(-(positive - negative)))))
    got = bpr_loss(torch.from_numpy(positive), torch.from_numpy(negative))
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_bpr_neither_overflows_nor_saturates():
    positive = torch.tensor([-500.0, 500.0], requires_grad=True)
    loss = bpr_loss(positive, torch.zeros(2))
    loss.backward()
    assert loss.item() == pytest.approx(250.0)
    assert positive.grad.tolist() == [-0.5, 0.0]
    zeros = torch.zeros(3)
    assert bpr_loss(zeros, zeros).item() == pytest.approx(np.log(2), abs=1e-7)


def test_l2():
    a = np.arange(6.0).reshape(2, 3)
    b, c = a + 1, -a
    expected = 0.5 * sum((x**2).sum() for x in (a, b, c)) / 2
    assert l2_loss(*map(torch.from_numpy, (a, b, c))).item() == pytest.approx(expected, abs=1e-12)


def test_cosine_distance():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 9, 4))
    b[0], b[1] = 3 * a[0], -2 * a[1]
    expected = 1 - (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    got = cosine_distance(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
    assert got[0].item() == pytest.approx(0, abs=1e-12)
    assert got[1].item() == pytest.approx(2, abs=1e-12)


# ---- InfoNCE --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 13])
def test_info_nce_is_the_double_loop(n, m, temperature):
    anchor, candidates = sample(n, 5, m, seed=n)
    expected = reference_info_nce(anchor.numpy(), candidates.numpy(), temperature)
    got = info_nce(anchor, candidates, temperature)
    assert got.item() == pytest.approx(expected, abs=1e-10)
    single = info_nce(anchor.float(), candidates.float(), temperature)
    assert single.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_two_dimensions_mean_one_positive():
    anchor, candidates = sample(8, 4, 1)
    assert torch.equal(info_nce(anchor, candidates[0], 0.2), info_nce(anchor, candidates, 0.2))


def test_one_positive_is_cross_entropy():
    anchor, candidates = sample(8, 4, 1)
    unit = [torch.nn.functional.normalize(x, dim=-1) for x in (anchor, candidates[0])]
    logits = unit[0] @ unit[1].T / 0.3
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(8))
    assert info_nce(anchor, candidates[0], 0.3).item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_by_finite_differences(blocks, m, weighted):
    blocks(4)
    anchor, candidates = sample(6, 3, m, seed=3)
    weight = torch.tensor([1.0, 3.0, 2.0, 1.0, 5.0, 1.0]) if weighted else None
    inputs = (anchor.requires_grad_(), candidates.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, c: info_nce(a, c, 0.3, weight), inputs)
    # One of the two alone, and a loss that is scaled afterwards.
    (both, _) = torch.autograd.grad(info_nce(*inputs, 0.3, weight), inputs)
    alone = torch.autograd.grad(2 * info_nce(anchor, candidates.detach(), 0.3, weight), anchor)[0]
    torch.testing.assert_close(alone, 2 * both, atol=1e-14, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("m", [1, 3])
def test_weights_are_repetitions(m, dtype, tolerance):
    anchor, candidates = sample(9, 4, m, seed=4, dtype=dtype)
    count = torch.tensor([1, 4, 1, 2, 7, 1, 1, 3, 2])
    anchor.requires_grad_(), candidates.requires_grad_()
    weighted = info_nce(anchor, candidates, 0.2, count)
    literal = info_nce(
        anchor.repeat_interleave(count, dim=0), candidates.repeat_interleave(count, dim=1), 0.2
    )
    assert weighted.item() == pytest.approx(literal.item(), abs=tolerance)
    for got, expected in zip(
        torch.autograd.grad(weighted, (anchor, candidates)),
        torch.autograd.grad(literal, (anchor, candidates)),
    ):
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)
    unweighted = info_nce(anchor, candidates, 0.2)
    assert abs(unweighted.item() - weighted.item()) > 1e-3  # the weights do something


def test_repetitions_follow_the_double_loop():
    anchor, candidates = sample(5, 4, 2, seed=5)
    count = torch.tensor([2, 1, 3, 1, 1])
    expected = reference_info_nce(
        anchor.repeat_interleave(count, dim=0).numpy(),
        candidates.repeat_interleave(count, dim=1).numpy(),
        0.15,
    )
    assert info_nce(anchor, candidates, 0.15, count).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("block", [2, 5, 128])
def test_fewer_anchors_than_candidates(blocks, block):
    """The literal batch, of which the first places alone are anchors; values and gradients."""
    blocks(block)
    anchor, candidates = sample(7, 4, 2, seed=11)
    places = torch.tensor([0, 1, 2, 1, 0, 0, 3, 4, 5, 6, 6, 3, 1])  # nodes of a batch, in order
    n_literal = 6  # its first places are anchors: nodes 0, 1, 2
    count, of_anchors = torch.bincount(places), torch.bincount(places[:n_literal])
    few = anchor[:3].clone().requires_grad_()
    candidates.requires_grad_()
    got = info_nce(few, candidates, 0.3, count, anchor_weight=of_anchors)
    unit = [torch.nn.functional.normalize(x, dim=-1) for x in (few, candidates)]
    s = torch.einsum("ad,mjd->amj", unit[0][places[:n_literal]], unit[1][:, places]) / 0.3
    own = torch.stack([s[a, :, a] for a in range(n_literal)])
    expected = (s.logsumexp(dim=(1, 2)) - own.logsumexp(dim=1)).mean()
    assert got.item() == pytest.approx(expected.item(), abs=1e-12)
    for one, two in zip(
        torch.autograd.grad(got, (few, candidates)),
        torch.autograd.grad(expected, (few, candidates)),
    ):
        torch.testing.assert_close(one, two, atol=1e-12, rtol=0)
    parts = [
        info_nce(few, candidates, 0.3, count, slice(a, a + 1), None, of_anchors) for a in range(3)
    ]
    assert sum(parts).item() == pytest.approx(got.item(), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_a_weight_of_zero_is_an_absent_row(temperature):
    # The absent row is the one nearest to the first anchor, whose own positive is far away.
    anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    candidates = torch.tensor([[-1.0, 0.1], [1.0, 0.0]], requires_grad=True)
    absent = info_nce(anchor, candidates, temperature, torch.tensor([1.0, 0.0]))
    expected = info_nce(anchor[:1], candidates[:1], temperature)
    assert absent.item() == pytest.approx(expected.item(), abs=1e-6)
    for gradient in torch.autograd.grad(absent, (anchor, candidates)):
        assert torch.isfinite(gradient).all()
        assert (gradient[1] == 0).all()


@pytest.mark.parametrize("m", [1, 3])
def test_block_size_does_not_matter(blocks, m):
    anchor, candidates = sample(23, 6, m, seed=6, dtype=torch.float32)
    count = torch.arange(1, 24)
    anchor.requires_grad_(), candidates.requires_grad_()
    results = []
    for block in (1, 5, 22, 23, 24, 4096):
        blocks(block)
        loss = info_nce(anchor, candidates, 0.1, count)
        results.append((loss, *torch.autograd.grad(loss, (anchor, candidates))))
    for other in results[1:]:
        for got, expected in zip(other, results[0]):
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 0.001])
def test_a_small_temperature_stays_finite(temperature):
    anchor, candidates = sample(40, 8, 2, seed=7, dtype=torch.float32)
    candidates[:, 0] = -anchor[0]  # the worst positive there can be
    candidates[:, 1] = anchor[1]  # and the best
    anchor.requires_grad_(), candidates.requires_grad_()
    loss = info_nce(anchor, candidates, temperature)
    expected = reference_info_nce(
        anchor.detach().double().numpy(), candidates.detach().double().numpy(), temperature
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    for gradient in torch.autograd.grad(loss, (anchor, candidates)):
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_a_zero_row_has_similarity_zero():
    anchor, candidates = sample(5, 3, 2, seed=8)
    anchor[2], candidates[1, 4] = 0.0, 0.0
    expected = reference_info_nce(anchor.numpy(), candidates.numpy(), 0.2)
    anchor.requires_grad_(), candidates.requires_grad_()
    loss = info_nce(anchor, candidates, 0.2)
    assert loss.item() == pytest.approx(expected, abs=1e-10)
    for gradient in torch.autograd.grad(loss, (anchor, candidates)):
        assert torch.isfinite(gradient).all()


@given(
    st.integers(1, 9),
    st.integers(1, 3),
    st.floats(0.02, 2.0),
    st.integers(0, 1000),
    st.floats(0.1, 50.0),
)
def test_info_nce_properties(n, m, temperature, seed, length):
    anchor, candidates = sample(n, 4, m, seed=seed)
    loss = info_nce(anchor, candidates, temperature).item()
    # A positive is one of its own candidates.
    assert loss >= -1e-12
    assert loss <= np.log(n) + 2 / temperature + 1e-9
    # Lengths do not matter, nor the order of the nodes or of the modalities.
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert info_nce(length * anchor, candidates, temperature).item() == pytest.approx(
        loss, abs=1e-9
    )
    shuffled = info_nce(anchor[order], candidates[:, order].flip(0), temperature).item()
    assert shuffled == pytest.approx(loss, abs=1e-9)
    if n == 1:
        assert loss == pytest.approx(0.0, abs=1e-12)


def test_nothing_is_held_for_a_loss_without_gradient():
    anchor, candidates = sample(6, 3, 1)
    with torch.no_grad():
        loss = info_nce(anchor.requires_grad_(), candidates, 0.2)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(info_nce(anchor, candidates, 0.2).item(), abs=1e-14)


@pytest.mark.parametrize("temperature", [0, -0.1, 0.0])
def test_a_temperature_must_be_positive(temperature):
    anchor, candidates = sample(4, 3, 1)
    with pytest.raises(ValueError, match="temperature"):
        info_nce(anchor, candidates, temperature)


def test_half_precision_does_not_overflow():
    # 4,096 nearly equal embeddings at τ = 0.1: the sum of the exponentials is near 9e7.
    x = torch.ones(4096, 8) + 0.01 * torch.rand(4096, 8)
    expected = info_nce(x, x, 0.1)
    assert info_nce(x, x.half(), 0.1).item() == pytest.approx(expected.item(), abs=1e-2)
    with torch.autocast("cpu", dtype=torch.float16):
        assert info_nce(x, x, 0.1).item() == pytest.approx(expected.item(), abs=1e-5)
    assert info_nce(x.half(), x.half(), 0.1).item() == pytest.approx(expected.item(), abs=1e-2)


def test_the_gradient_of_rows_that_are_nearly_zero():
    """Below 1e-12 a row is divided by that constant: autograd's gradient of F.normalize."""
    anchor, candidates = sample(6, 3, 1, seed=9)
    scale = torch.tensor([1.0, 3e-13, 8e-13, 5e-12, 0.0, 1e-20], dtype=torch.float64)[:, None]
    inputs = (anchor * scale).requires_grad_(), (candidates[0] * scale.flip(0)).requires_grad_()
    s = torch.nn.functional.normalize(inputs[0]) @ torch.nn.functional.normalize(inputs[1]).T / 0.3
    plain = torch.nn.functional.cross_entropy(s, torch.arange(6))
    loss = info_nce(*inputs, 0.3)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-12)
    for got, expected in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(plain, inputs)):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-6)
        assert expected.abs().max() > 1e8


# ---- positives among other candidates -------------------------------------------------------


def reference_with_own(anchor, candidates, temperature, weight, own):
    """Double loop over anchors and all candidates, each of which counts once."""
    total = 0.0
    for a, place in enumerate(own):
        cosine = [
            layer @ anchor[a] / np.linalg.norm(layer, axis=1) / np.linalg.norm(anchor[a])
            for layer in candidates
        ]
        every = np.logaddexp.reduce(np.concatenate(cosine) / temperature)
        positive = np.logaddexp.reduce([row[place] / temperature for row in cosine])
        total += weight[a] * (every - positive)
    return total / weight.sum()


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("n, n_candidates", [(1, 1), (5, 7), (9, 40), (40, 40)])
def test_positives_among_other_candidates(blocks, m, n, n_candidates):
    anchor, candidates = sample(n_candidates, 4, m, seed=n)
    anchor = anchor[:n].requires_grad_()
    candidates.requires_grad_()
    weight = torch.arange(1, n + 1)
    own = torch.randperm(n_candidates, generator=torch.Generator().manual_seed(n))[:n]
    numbers = anchor.detach().numpy(), candidates.detach().numpy()
    expected = reference_with_own(*numbers, 0.3, weight.numpy(), own.tolist())
    for block in (128, 1, 4):
        blocks(block)
        got = info_nce(anchor, candidates, 0.3, own=own, anchor_weight=weight)
        assert got.item() == pytest.approx(expected, abs=1e-10)
    half = n // 2
    shares = [
        info_nce(anchor, candidates, 0.3, None, share, own, weight)
        for share in (slice(0, half), slice(half, n))
    ]
    assert sum(shares).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("m", [1, 3])
def test_gradient_with_positives_among_other_candidates(blocks, m):
    blocks(2)
    anchor, candidates = sample(8, 3, m, seed=3)
    inputs = (anchor[:5].requires_grad_(), candidates.requires_grad_())
    weight, own = torch.tensor([1.0, 3.0, 2.0, 1.0, 5.0]), torch.tensor([6, 0, 3, 7, 2])
    assert torch.autograd.gradcheck(
        lambda a, c: info_nce(a, c, 0.3, own=own, anchor_weight=weight), inputs
    )


def test_moment_distance():
    """Of all entries, with the unbiased variance."""
    one, two = np.arange(6.0).reshape(2, 3), np.array([[1.0, 5.0], [2.0, 8.0]])
    expected = abs(one.var(ddof=1) - two.var(ddof=1)) + abs(one.mean() - two.mean())
    got = moment_distance(torch.from_numpy(one), torch.from_numpy(two))
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_contrast_with_both_views():
    """Against a double loop with a zero row; shares add up; half precision is widened."""
    one, two = sample(7, 4, 1)
    two = two[0]
    one[2] = 0.0
    a, b = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in (one, two))
    expected = 0.0
    for r in range(7):
        others = sum(np.exp(float(a[r] @ a[s]) / 0.4) for s in range(7) if s != r)
        positive = np.exp(float(a[r] @ b[r]) / 0.4)
        whole = others + sum(np.exp(float(a[r] @ b[s]) / 0.4) for s in range(7))
        expected -= np.log(positive / whole + 1e-8) / 7
    got = both_view_contrast(one, two, 0.4)
    assert got.item() == pytest.approx(expected, rel=1e-12)
    shares = [both_view_contrast(one, two, 0.4, slice(*ends)) for ends in ((0, 3), (3, 7))]
    assert sum(shares).item() == pytest.approx(expected, rel=1e-12)
    assert both_view_contrast(one.bfloat16(), two.bfloat16(), 0.4).dtype == torch.float32
    assert torch.isfinite(both_view_contrast(one.float(), two.float(), 0.005))
