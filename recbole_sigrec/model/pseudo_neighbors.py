"""The loss of DA-MRS that draws each item to its pseudo-neighbours, on which all views agree."""

from __future__ import annotations

from typing import Any

import torch

from recbole_sigrec.kernels.products import matmul_nt

_ENTRIES = 2**20  # similarities of a block of anchors, on the CPU
_ENTRIES_ON_GPU = 2**24
_LEAST = 1e-9  # added to a share before its logarithm


def pseudo_neighbor_loss(
    views: torch.Tensor, anchors: torch.Tensor, k: int, temperature: float
) -> torch.Tensor:
    """Σ over anchors i and views v of what follows (DA-MRS, DOI 10.1145/3637528.3671703).

    With π^v = softmax_j(u_i^v · u_j^v), P are the k items of largest π^v + Σ_w π^w, w all views,
    and Q the k of largest π^v that are not in P. Both are constant for the gradient. With
    e_j = exp(u_i^v · u_j^v / τ) the term is

        −log(Σ_P e / Σ e + 1e-9) − log(Σ_Q e / (Σ e − Σ_P e) + 1e-9).

    i is among the candidates. Of fewer than 2k candidates, half make P and half Q.

    Args:
        views: u, unit rows of all candidates in each view [V, n, d].
        anchors: rows of them, int64 [n_anchors], distinct.
        k, temperature: k and τ > 0.

    Returns:
        Scalar.

    Cost: 4·V·n_anchors·n·d multiply-adds for the loss and its gradient, which are made together;
    memory: a block of anchors times n for each view.
    """
    with torch.autocast(views.device.type, enabled=False):
        views = views.to(torch.promote_types(views.dtype, torch.float32))
        return _PseudoNeighbors.apply(views, anchors, min(k, views.shape[1] // 2), temperature)


class _PseudoNeighbors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, views: torch.Tensor, anchors: torch.Tensor, k: int, temperature: float
    ) -> torch.Tensor:
        loss, gradient = views.new_zeros(()), torch.zeros_like(views)
        entries = _ENTRIES if views.device.type == "cpu" else _ENTRIES_ON_GPU
        for rows in anchors.split(max(1, entries // views.shape[1])):
            similar = [matmul_nt(u[rows], u) for u in views]  # [b, n]
            chosen = [s.softmax(dim=1) for s in similar]
            together = torch.stack(chosen).sum(dim=0)
            for u, s, pi, grad in zip(views, similar, chosen, gradient):
                first = torch.add(together, pi).topk(k, dim=1).indices  # P
                second = pi.scatter_(1, first, -1.0).topk(k, dim=1).indices  # Q
                term, weight = _terms(s.sub_(1).div_(temperature).exp_(), first, second)
                loss += term
                weight /= temperature
                grad.index_add_(0, rows, matmul_nt(weight, u.T))
                grad += matmul_nt(weight.T, u[rows].T)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        (of_views,) = ctx.saved_tensors
        return gradient * of_views, None, None, None


def _terms(
    e: torch.Tensor, first: torch.Tensor, second: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The terms of some anchors, added up, and their gradient by log e, in e's memory.

    Shapes: e [b, n], first and second, the places of P and Q, [b, k] → scalar, [b, n].
    """
    of_first, of_second = e.gather(1, first), e.gather(1, second)
    total, a, b = (part.sum(dim=1, keepdim=True) for part in (e, of_first, of_second))
    rest = e.scatter(1, first, 0.0).sum(dim=1, keepdim=True)  # total − a, without cancellation
    rest = rest.clamp_min(torch.finfo(e.dtype).tiny)
    x, y = a / total, b / rest
    by_x, by_y = -1.0 / (x + _LEAST), -1.0 / (y + _LEAST)
    # ∂x/∂e_j = ([j ∈ P] − x) / total, ∂y/∂e_j = ([j ∈ Q] − y [j ∉ P]) / rest
    push = -by_x * x / total - by_y * y / rest
    e *= push
    e.scatter_add_(1, first, of_first * (by_x / total + by_y * y / rest))
    e.scatter_add_(1, second, of_second * by_y / rest)
    return -(x + _LEAST).log().sum() - (y + _LEAST).log().sum(), e
