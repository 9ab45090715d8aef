"""Losses that the models share: BPR, InfoNCE (one or several positives), L2."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_BLOCK_ENTRIES = {"cpu": 2**18}  # similarities in a block: 1 MB in float32 stays in a core's cache
_BLOCK_ENTRIES_ELSEWHERE = 2**24  # few and large kernels on a GPU
_SAFE_TEMPERATURE = 1 / 60  # above it exp(1/τ), summed over a batch, is far from float32's limit


def bpr_loss(positive: torch.Tensor, negative: torch.Tensor, n: int | None = None) -> torch.Tensor:
    """Bayesian personalised ranking: mean of −log σ(s⁺ − s⁻) (arXiv 1205.2618).

    ``n``: rows of the whole batch, where these are a share of it; the shares' losses then add up.

    Shapes: positive, negative [batch] → scalar.
    """
    return F.softplus(negative - positive).sum() / (n or len(positive))


def l2_loss(*embeddings: torch.Tensor, n: int | None = None) -> torch.Tensor:
    """½ Σ‖e‖² over all rows given, divided by the number of rows of the first.

    ``n``: as for :func:`bpr_loss`.

    Shapes: each [batch, d] → scalar.
    """
    return 0.5 * sum(e.square().sum() for e in embeddings) / (n or len(embeddings[0]))


def info_nce(
    anchor: torch.Tensor,
    candidates: torch.Tensor,
    temperature: float,
    weight: torch.Tensor | None = None,
    block: int | None = None,
    share: slice | None = None,
) -> torch.Tensor:
    r"""InfoNCE on cosine similarities, with one positive per anchor or several.

    .. math::
        L = -\frac{1}{\sum_a w_a} \sum_a w_a \log
            \frac{\sum_m \exp(s(x_a, y_a^m)/\tau)}{\sum_m \sum_j w_j \exp(s(x_a, y_j^m)/\tau)}

    With M = 1 this is the standard InfoNCE (arXiv 1807.03748); with the behavior representation as
    x and the |M| semantic representations as y^m it is the paper's anchor-based InfoNCE
    (arXiv 2508.06154; the form is our choice). ``weight`` is how often each node stands in the
    batch: distinct nodes with their counts give exactly the loss over the batch with its
    repetitions, at the cost of the distinct nodes alone.

    Args:
        anchor: x [n, d].
        candidates: y [n, d] or [M, n, d]; row a holds the positives of anchor a, the other rows its
            negatives.
        temperature: τ > 0.
        weight: w [n], non-negative; default 1.
        block: anchors per block; memory is block·M·n, never n². Default: a block of about 1 MB,
            which stays in a core's cache.
        share: the anchors whose terms of the sum over a are computed; all rows stay candidates, so
            that the losses of disjoint shares add up to the whole. Default: all.

    Returns:
        Scalar. Gradients reach anchor and candidates.

    Cost: three products of n·M·n·d multiply-adds for the loss and its gradient together.

    Raises:
        ValueError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if candidates.dim() == 2:
        candidates = candidates.unsqueeze(0)
    if weight is None:
        weight = anchor.new_ones(len(anchor))
    share = slice(None) if share is None else share
    with torch.autocast(anchor.device.type, enabled=False):  # sums of exponentials overflow float16
        if anchor.dtype in (torch.float16, torch.bfloat16):
            anchor, candidates = anchor.float(), candidates.float()
        return _InfoNCE.apply(
            F.normalize(anchor[share], dim=-1),
            F.normalize(candidates, dim=-1),
            temperature,
            weight.to(anchor.dtype),
            block,
            share,
        )


class _InfoNCE(torch.autograd.Function):
    """The loss of :func:`info_nce` for unit vectors; the gradient is formed in the forward pass.

    The anchors are the rows ``part``; the candidates are all rows.
    With p_amj the softmax over all candidates (weighted by w_j) and q_am that over the positives,
    ∂L/∂s_amj = w_a/(τ Σw) (p_amj − [j = a] q_am). A block of exp(s/τ) is made once, used for the
    loss and for both gradients, and dropped; the weights w_j go into the small factors of the
    products, not into the block.
    """

    @staticmethod
    def forward(ctx, anchor, candidates, temperature, weight, block, part):
        n_modalities, _, d = candidates.shape
        n = len(anchor)
        flat = candidates.reshape(-1, d)  # [M·n, d]
        column_weight = weight.repeat(n_modalities)[:, None]  # [M·n, 1]
        weighted = flat * column_weight
        row_scale = (weight / weight.sum())[part, None]  # [n, 1]
        own = candidates[:, part]  # the positives [M, n, d]
        positive = torch.einsum("ad,mad->am", anchor, own) / temperature  # [n, M]
        log_positive = positive.logsumexp(dim=1)
        share = (positive - log_positive[:, None]).exp()  # q [n, M]

        with_gradient = any(ctx.needs_input_grad[:2])
        grad_anchor = torch.zeros_like(anchor)
        grad_flat = torch.zeros_like(flat)
        log_total = torch.empty_like(log_positive)
        entries = _BLOCK_ENTRIES.get(anchor.device.type, _BLOCK_ENTRIES_ELSEWHERE)
        block = block or max(32, entries // len(flat))
        buffer = anchor.new_empty(min(block, n), len(flat))
        for start in range(0, n, block):
            rows = anchor[start : start + block]
            e = torch.mm(rows / temperature, flat.T, out=buffer[: len(rows)])
            # |s| ≤ 1, so that exp(s/τ) cannot overflow unless τ is tiny.
            top = None
            if temperature < _SAFE_TEMPERATURE:
                top = e.masked_fill(column_weight.T == 0, -torch.inf).amax(dim=1, keepdim=True)
                e.clamp_max_(top)  # columns of weight 0
            e = (e.sub_(top) if top is not None else e).exp_()
            total = e @ column_weight  # [block, 1]
            log_total[start : start + block] = total.log().squeeze(1)
            if top is not None:
                log_total[start : start + block] += top.squeeze(1)
            if with_gradient:
                scale = row_scale[start : start + block] / (temperature * total)
                grad_anchor[start : start + block] = (e @ weighted) * scale
                grad_flat.addmm_(e.T, rows * scale)
        if with_gradient:
            pull = (share * row_scale / temperature).T.unsqueeze(2)  # [M, n, 1]
            grad_anchor -= (pull * own).sum(dim=0)
            grad_candidates = (grad_flat * column_weight).view_as(candidates)
            grad_candidates[:, part] -= pull * anchor
            ctx.save_for_backward(grad_anchor, grad_candidates)
        return (row_scale.squeeze(1) * (log_total - log_positive)).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        grad_anchor, grad_candidates = ctx.saved_tensors
        return gradient * grad_anchor, gradient * grad_candidates, None, None, None, None


def cosine_distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 − cos of each pair of rows (BYOL and BM3 use −cos, which differs by a constant).

    Shapes: prediction, target [batch, d] → [batch].
    """
    return 1.0 - F.cosine_similarity(prediction, target, dim=-1)
