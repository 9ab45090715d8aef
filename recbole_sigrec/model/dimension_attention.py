"""Attention among the d entries of a row, each a token of width 1 (REARM, arXiv 2508.13745)."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

_ENTRIES, _ENTRIES_ON_GPU = 2**18, 2**25  # of a block of weights; on a CPU it stays in the cache
_BITS = 16


class DimensionAttention(nn.Module):
    """o Σ_j w_ij v_j + b with w_ij = softmax_j(q_i k_j); q, k and v are α x + β of each entry.

    In training, weights are dropped and the others scaled. Never are all weights held, but one byte
    each says which are kept.

    Args:
        dropout: the share of weights that are dropped, in [0, 1].

    Shapes: query and keys [n, d] → [n, d]; the values are made of the keys.

    Cost: n·d² exponentials for the result, and again for its gradient; memory: n·d² bytes.
    """

    def __init__(self, dropout: float):
        super().__init__()
        self.share = 1.0 - dropout
        self.inner, self.outer = nn.Linear(1, 3), nn.Linear(1, 1)
        nn.init.xavier_uniform_(self.inner.weight)
        for layer in (self.inner, self.outer):
            nn.init.zeros_(layer.bias)

    def forward(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        slope, start = self.inner.weight[:, 0], self.inner.bias
        q = slope[0] * query + start[0]
        k, v = (slope[n] * keys + start[n] for n in (1, 2))
        kept = self.kept(len(query), query.shape[1], query.device) if self.training else None
        with torch.autocast(q.device.type, enabled=False):
            dtype = torch.promote_types(q.dtype, torch.float32)
            mixed = _Attend.apply(q.to(dtype), k.to(dtype), v.to(dtype), kept)
        if kept is not None and self.share > 0:
            mixed = mixed / self.share
        return self.outer.weight[0] * mixed + self.outer.bias

    def kept(self, n: int, d: int, device: torch.device) -> torch.Tensor | None:
        """Which weights are kept, 0 or 1, uint8 [n, d, d] (query, key); None: all.

        A weight takes 16 random bits, since drawing takes most of the time.
        """
        limit = round(self.share * 2**_BITS)
        if limit == 2**_BITS:
            return None
        words = torch.empty(-(-n * d * d * _BITS // 64), dtype=torch.int64, device=device)
        bits = words.random_(-(2**63), None).view(torch.int16)[: n * d * d]
        return (bits < limit - 2 ** (_BITS - 1)).view(torch.uint8).view(n, d, d)


class Refinement(nn.Module):
    """REARM's attention within each modality, then with the others asking.

    v^m = PR(LN(y^m + Att(y^m, y^m))) and h^m = PR(LN(v^m + Att(v^other, v^m))), the mean over the
    others, with one PReLU and one layer norm for all; a modality alone has h^m = v^m.

    Args:
        names: of the modalities, in the order of the columns.
        size: d.
        self_dropout, cross_dropout: of the attention's weights.
    """

    def __init__(self, names: Sequence[str], size: int, self_dropout: float, cross_dropout: float):
        super().__init__()
        self.norm, self.activation = nn.LayerNorm(size), nn.PReLU()
        self.within = nn.ModuleDict({name: DimensionAttention(self_dropout) for name in names})
        self.across = nn.ModuleDict()
        for name in names:
            others = (other for other in names if other != name)
            asked = {other: DimensionAttention(cross_dropout) for other in others}
            self.across[name] = nn.ModuleDict(asked)  # by who asks

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        """y [n, M·d] → h [n, M·d]."""
        parts = table.chunk(len(self.within), dim=1)
        own = {
            name: self._residual(y, [attention(y, y)])
            for (name, attention), y in zip(self.within.items(), parts, strict=True)
        }
        refined = []
        for (name, v), attentions in zip(own.items(), self.across.children()):
            found = [
                attentions.get_submodule(other)(own[other], v) for other in own if other != name
            ]
            refined.append(self._residual(v, found) if found else v)
        return torch.cat(refined, dim=1)

    def _residual(self, x: torch.Tensor, found: list[torch.Tensor]) -> torch.Tensor:
        return self.activation(self.norm(x + functools.reduce(operator.add, found) / len(found)))


class _Attend(torch.autograd.Function):
    """y_i = Σ_j w̃_ij v_j with w̃_ij = w_ij, or 0 where it is dropped, and w_ij = softmax_j(q_i k_j).

    With g = ∂L/∂y: ∂L/∂(q_i k_j) = g_i (w̃_ij v_j − w_ij y_i).
    """

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kept: torch.Tensor | None
    ) -> torch.Tensor:
        y, y_of_vk, of_k, total = (torch.empty_like(q) for _ in range(4))
        ones = torch.ones_like(k)
        for rows in _blocks(q):
            e = _exponentials(q[rows], k[rows])
            sums = e @ torch.stack([ones[rows], k[rows]], dim=2)  # [b, d, 2]
            if kept is not None:
                e.mul_(kept[rows].to(e.dtype))  # many times as fast as with a mask of bool
            of_kept = e @ torch.stack([v[rows], v[rows] * k[rows]], dim=2)
            total[rows] = sums[..., 0]
            of_k[rows] = sums[..., 1] / sums[..., 0]
            y[rows], y_of_vk[rows] = (of_kept / sums[..., :1]).unbind(2)
        ctx.save_for_backward(q, k, v, y, y_of_vk, of_k, total)
        ctx.kept = kept
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        q, k, v, y, y_of_vk, of_k, total = ctx.saved_tensors
        grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
        g = gradient / total
        for rows in _blocks(q):
            e = _exponentials(q[rows], k[rows])
            pushed = e.mT @ (g[rows] * y[rows] * q[rows])[..., None]
            if ctx.kept is not None:
                e.mul_(ctx.kept[rows].to(e.dtype))
            of_kept = e.mT @ torch.stack([g[rows], g[rows] * q[rows]], dim=2)
            grad_v[rows] = of_kept[..., 0]
            grad_k[rows] = v[rows] * of_kept[..., 1] - pushed.squeeze(2)
        return gradient * (y_of_vk - y * of_k), grad_k, grad_v, None


def _blocks(table: torch.Tensor) -> list[slice]:
    """Rows whose weights are made at a time."""
    n, d = table.shape
    entries = _ENTRIES if table.device.type == "cpu" else _ENTRIES_ON_GPU
    size = max(1, entries // d**2)
    return [slice(start, start + size) for start in range(0, n, size)]


def _exponentials(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """exp(q_i k_j − max_j q_i k_j): [b, d] → [b, d, d]."""
    least, most = k.aminmax(dim=1, keepdim=True)
    top = torch.maximum(q * least, q * most)
    return torch.baddbmm(-top[:, :, None], q[:, :, None], k[:, None, :]).exp_()
