"""Losses that the models share: BPR, InfoNCE (one or several positives), L2."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
import torch.nn.functional as F

from recbole_sigrec.kernels.products import matmul_nt

_BLOCK = 128  # anchors of a block on a CPU: its similarities stay in a core's cache
_ENTRIES_ON_GPU = 2**24  # few and large kernels
_SAFE_TEMPERATURE = 1 / 60  # above it exp(1/τ), summed over a batch, is far from float32's limit
_LEAST_NORM = 1e-12  # that a row is divided by; F.normalize's


def bpr_loss(positive: torch.Tensor, negative: torch.Tensor, n: int | None = None) -> torch.Tensor:
    """Bayesian personalised ranking: mean of −log σ(s⁺ − s⁻) (arXiv 1205.2618).

    ``n``: rows of the whole batch, where these are a share of it; the shares' losses then add up.

    Shapes: positive, negative [batch] → scalar.
    """
    return F.softplus(negative - positive).sum() / (n or len(positive))


def bpr_of_rows(
    u: torch.Tensor, i: torch.Tensor, j: torch.Tensor, n: int | None = None
) -> torch.Tensor:
    """BPR of the products u·i and u·j of each row; ``n`` as for :func:`bpr_loss`.

    Shapes: u, i, j [batch, d] → scalar.
    """
    return bpr_loss((u * i).sum(dim=1), (u * j).sum(dim=1), n)


def l2_loss(*embeddings: torch.Tensor, n: int | None = None) -> torch.Tensor:
    """½ Σ‖e‖² over all rows given, divided by the number of rows of the first.

    ``n``: as for :func:`bpr_loss`.

    Shapes: each [batch, d] → scalar.
    """
    squares = functools.reduce(operator.add, [e.square().sum() for e in embeddings])
    return 0.5 * squares / (n or len(embeddings[0]))


def info_nce(
    anchor: torch.Tensor,
    candidates: torch.Tensor,
    temperature: float,
    weight: torch.Tensor | None = None,
    share: slice | None = None,
    own: torch.Tensor | None = None,
    anchor_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""InfoNCE on cosine similarities, with one positive per anchor or several.

    .. math::
        L = -\frac{1}{\sum_a v_a} \sum_a v_a \log
            \frac{\sum_m \exp(s(x_a, y_a^m)/\tau)}{\sum_m \sum_j w_j \exp(s(x_a, y_j^m)/\tau)}

    With M = 1 this is the standard InfoNCE (arXiv 1807.03748); with the behavior representation as
    x and the |M| semantic representations as y^m it is the paper's anchor-based InfoNCE
    (arXiv 2508.06154; the form is our choice). ``weight`` is how often each node stands in the
    batch: distinct nodes with their counts give exactly the loss over the batch with its
    repetitions, at the cost of the distinct nodes alone. The anchors can be a random part of it:
    with their counts there as ``anchor_weight``, that is an unbiased estimate of the whole loss.

    Args:
        anchor: x [n_anchors, d].
        candidates: y [n, d] or [M, n, d]; a row holds the positives of its own anchor, the other
            rows are that one's negatives.
        temperature: τ > 0.
        weight: w [n], non-negative; default 1.
        share: the anchors whose terms of the sum over a are computed; all rows stay candidates, so
            that the losses of disjoint shares add up to the whole. Default: all.
        own: the row of each anchor's positives, int64 [n_anchors], distinct; default: anchor a has
            row a.
        anchor_weight: v [n_anchors], non-negative; default: w of the anchors' own rows.

    Returns:
        Scalar. Gradients reach anchor and candidates.

    Cost: three products of n_anchors·M·n·d multiply-adds for the loss and its gradient together;
    memory: a block of anchors (128 on a CPU) times M·n, never n_anchors·n.

    Raises:
        ValueError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if candidates.dim() == 2:
        candidates = candidates.unsqueeze(0)
    if weight is None:
        weight = anchor.new_ones(candidates.shape[1])
    if anchor_weight is None:
        anchor_weight = weight[: len(anchor)] if own is None else weight[own]
    share = slice(None) if share is None else share
    with torch.autocast(anchor.device.type, enabled=False):  # sums of exponentials overflow float16
        dtype = torch.promote_types(anchor.dtype, candidates.dtype)
        dtype = torch.promote_types(dtype, torch.float32)  # half precision widened
        tensors = (x.to(dtype) for x in (anchor, candidates, weight, anchor_weight))
        return _InfoNCE.apply(*tensors, temperature, share, own)


class _InfoNCE(torch.autograd.Function):
    """The loss of :func:`info_nce`; the gradient is formed in the forward pass.

    The sum is over the anchors ``part``; ``own`` are the rows of the anchors' positives.

    With p_amj the softmax over all candidates (weighted by w_j) and q_am that over the positives,
    ∂L/∂s_amj = v_a/(τ Σv) (p_amj − [j = a] q_am). A block of w_j exp(s/τ) is made once, used for
    the loss and for both gradients, and dropped. Nodes of weight 0 fill the last block, so that the
    products have few, recurring shapes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchor: torch.Tensor,
        candidates: torch.Tensor,
        weight: torch.Tensor,
        anchor_weight: torch.Tensor,
        temperature: float,
        part: slice,
        own: torch.Tensor | None,
    ) -> torch.Tensor:
        n_modalities, n, d = candidates.shape
        n_anchors, block = len(anchor), _block_size(anchor, n * n_modalities)
        unit, norm = _unit_rows(candidates, block)  # [M, n, d]
        places = slice(n_anchors) if own is None else own
        flat = unit.view(-1, d)  # [M·n, d]
        log_weight = F.pad(weight, (0, unit.shape[1] - n)).log().repeat(n_modalities)  # [M·n]
        # Unit anchors, a block of which is overwritten by its gradient once it has served.
        rows, rows_norm = _unit_rows(anchor, block)
        terms = range(n_anchors)[part]
        share = rows.new_zeros(len(rows))  # v_a / Σv of the anchors in ``terms``
        some = slice(terms.start, terms.stop)
        share[some] = anchor_weight[some] / anchor_weight.sum()
        positive = torch.einsum("ad,mad->ma", rows[:n_anchors], unit[:, places]) / temperature
        log_positive = positive.logsumexp(dim=0)

        with_gradient = any(ctx.needs_input_grad[:2])
        grad_flat = unit.new_zeros(d, len(flat))
        total, top = torch.ones_like(share), torch.zeros_like(share)
        for start in range(terms.start // block * block, terms.stop, block):
            now = slice(start, start + block)
            scaled = rows[now] / temperature
            e = matmul_nt(scaled, flat, log_weight)  # [b, M·n]
            if temperature < _SAFE_TEMPERATURE:  # else exp(s/τ), |s| ≤ 1, cannot overflow
                top[now] = e.amax(dim=1)
                e.sub_(top[now, None])
            e.exp_()
            total[now] = e.sum(dim=1)
            if with_gradient:
                push = share[now] / total[now]  # [b]
                pushed = (scaled.T * push).contiguous()
                torch.mul(matmul_nt(e, flat.T), (push / temperature)[:, None], out=rows[now])
                for half, rest in zip(grad_flat.chunk(2), pushed.chunk(2)):  # half the memory
                    half += matmul_nt(rest, e.T)
            del e  # before the next block is made
        log_total = (total.log() + top)[:n_anchors]
        loss = (share[:n_anchors] * (log_total - log_positive)).sum()
        if with_gradient:
            grad_anchor, rows = rows[:n_anchors], anchor / rows_norm[:n_anchors]
            grad_anchor[: terms.start], grad_anchor[terms.stop :] = 0.0, 0.0
            pull = (positive - log_positive).exp()  # q
            pull = (share[:n_anchors] / temperature * pull)[..., None]
            for y, gradient, q in zip(unit, grad_flat.view(d, n_modalities, -1).unbind(1), pull):
                grad_anchor.addcmul_(q, y[places], value=-1.0)
                gradient[:, places] -= (q * rows).T
            _through_unit(grad_anchor, rows, rows_norm[:n_anchors])
            grad_candidates = _through_unit(grad_flat.T.view_as(unit), unit, norm)
            ctx.save_for_backward(grad_anchor, grad_candidates[:, :n])
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        grad_anchor, grad_candidates = ctx.saved_tensors
        return gradient * grad_anchor, gradient * grad_candidates, *[None] * 5


def _block_size(anchor: torch.Tensor, n_candidates: int) -> int:
    """The anchors of a block."""
    if anchor.device.type == "cpu":
        return _BLOCK
    n_blocks = -(-len(anchor) * n_candidates // _ENTRIES_ON_GPU)
    return -(-len(anchor) // n_blocks)


def _unit_rows(x: torch.Tensor, multiple: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows x/‖x‖, filled with zero rows to a multiple of a number, and ‖x‖ as F.normalize's."""
    x = F.pad(x, (0, 0, 0, -x.shape[-2] % multiple))
    norm = x.norm(dim=-1, keepdim=True).clamp_min_(_LEAST_NORM)
    return x / norm, norm


def _through_unit(gradient: torch.Tensor, unit: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """The gradient before the normalisation, (g − u (u·g)) / ‖x‖, in place of g.

    Where the norm is no more than its bound, the bound is a constant: g / bound.
    """
    along = torch.einsum("...d,...d->...", unit, gradient).unsqueeze(-1)
    along.masked_fill_(norm <= _LEAST_NORM, 0.0)
    return gradient.addcmul_(unit, along, value=-1.0).div_(norm)


def moment_distance(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """|var − var| + |mean − mean| of all entries of two tables (GUME, arXiv 2407.12338; MENTOR).

    The variance is unbiased. [PAD]'s rows must not be among the rows.

    Shapes: [n, d], [m, c] → scalar.
    """
    return (one.var() - two.var()).abs() + (one.mean() - two.mean()).abs()


def overlap(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Mean square of the entries of F_1ᵀ F_2, F centred, then of unit rows (REARM).

    The norms are constant for the gradient.

    Shapes: [n, d], [n, d] → scalar.
    """
    first, second = (x - x.mean(dim=0) for x in (one, two))
    first, second = (x / (x.detach().norm(dim=1, keepdim=True) + 1e-6) for x in (first, second))
    return (first.T @ second).square().mean()


def both_view_contrast(
    anchor: torch.Tensor, other: torch.Tensor, temperature: float, share: slice = slice(None)
) -> torch.Tensor:
    """Contrast whose candidates are the rows of both views (GCA, arXiv 2010.14945; MMSSL).

    Mean over r of −log(e^{ab_rr} / (Σ_s e^{ab_rs} + Σ_{s≠r} e^{aa_rs}) + 1e-8), with ab_rs the
    cosine of row r of ``anchor`` and row s of ``other`` over τ, aa_rs that within ``anchor``.

    Args:
        anchor, other: [n, d].
        temperature: τ > 0.
        share: the anchors whose terms are computed; those of disjoint shares add up.

    Cost and memory: n² similarities of each kind.
    """
    with torch.autocast(anchor.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(anchor.dtype, other.dtype), torch.float32)
        a, b = (F.normalize(x.to(dtype), dim=1) for x in (anchor, other))
        # e^{s/τ} over e^{1/τ}, which cannot overflow
        within, between = (((a[share] @ x.T - 1) / temperature).exp().sum(dim=1) for x in (a, b))
        itself = (((a * a)[share].sum(dim=1) - 1) / temperature).exp()
        positive = (((a * b)[share].sum(dim=1) - 1) / temperature).exp()
        total = (within + between - itself).clamp_min(torch.finfo(dtype).tiny)
        ratio = positive / total
        return -torch.log(ratio + 1e-8).sum() / len(anchor)


def cosine_distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 − cos of each pair of rows (BYOL and BM3 use −cos, which differs by a constant).

    Shapes: prediction, target [batch, d] → [batch].
    """
    return 1.0 - F.cosine_similarity(prediction, target, dim=-1)
