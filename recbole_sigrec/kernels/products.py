"""Dense matrix products at the machine's speed, for all of the plugin.

On a CPU torch multiplies float32 matrices with MKL, which on processors that are not Intel's leaves
half of their vector units unused. oneDNN, which torch carries too, does not, but torch offers it
only through the operator that its own compiler calls. It is used here where it is there; elsewhere,
and on other devices and types, the product is torch's. The two differ in the order of summation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable


@functools.cache
def _onednn() -> Callable[..., torch.Tensor] | None:
    """The oneDNN operator, or None where this build of torch lacks it."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return None
    try:
        operator = torch.ops.mkldnn._linear_pointwise
        left, right = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(3, 4).T
        bias = torch.tensor([1.0, -torch.inf, 0.0, 2.0])
        works = torch.equal(operator(left, right, bias, "none", [], ""), left @ right.T + bias)
    except (AttributeError, RuntimeError, TypeError):
        return None
    return operator if works else None


def matmul_nt(
    left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """left @ rightᵀ (+ bias); torch's own product where a gradient is to be recorded.

    oneDNN compiles a kernel for each new combination of shapes (about 1 ms, then kept): for shapes
    that recur.

    Shapes: left [n, k], right [m, k], bias [m] → [n, m]; either matrix may be a transposed view.
    """
    operands = (left, right) if bias is None else (left, right, bias)
    plain = torch.is_grad_enabled() and any(part.requires_grad for part in operands)
    plain |= any(part.device.type != "cpu" or part.dtype != torch.float32 for part in operands)
    operator = None if plain or 0 in left.shape or 0 in right.shape else _onednn()
    if operator is None:
        return torch.nn.functional.linear(left, right, bias)
    return operator(_dense(left), _dense(right), bias, "none", [], "")


def _dense(matrix: torch.Tensor) -> torch.Tensor:
    """Without gaps between rows or columns, with which oneDNN can be a hundred times slower."""
    dense = matrix.is_contiguous() or matrix.T.is_contiguous()
    return matrix if dense else matrix.contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return matmul_nt(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            matmul_nt(gradient, weight.T) if needs_x else None,
            matmul_nt(gradient.T.contiguous(), x.T) if needs_weight else None,
            gradient.sum(dim=0) if needs_bias else None,
        )


class Linear(torch.nn.Linear):
    """torch's linear layer on :func:`matmul_nt`; the same parameters and initialisation.

    Shapes: [..., in_features] → [..., out_features].
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x weightᵀ + bias on :func:`matmul_nt`, with gradients.

    Shapes: x [..., d], weight [m, d], bias [m] → [..., m].
    """
    if torch.is_autocast_enabled(x.device.type):
        return torch.nn.functional.linear(x, weight, bias)
    rows = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return rows.view(*x.shape[:-1], len(weight))
