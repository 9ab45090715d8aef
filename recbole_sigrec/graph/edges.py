"""Products over the edges of a graph whose weights are learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch.autograd.function import once_differentiable

from recbole_sigrec.graph.propagation import csr_product
from recbole_sigrec.kernels.rows import select_rows

_BLOCK = 2**16  # edges whose two nodes are gathered at a time


class EdgeGraph(torch.nn.Module):
    """The edges (r, c) of a sparse matrix [n, m], row by row, with numbers that are learned.

    Numbers of the edges (weights, logits) are vectors [n_edges] in that order. All results carry
    gradients, to the weights too. It is a module so that ``model.to(device)`` moves it; it is not
    part of a checkpoint.

    Args:
        matrix: SciPy sparse matrix [n, m]; its entries are the edges, whatever their values.

    Attributes:
        row, col: r and c of each edge, int64 [n_edges].
    """

    row: torch.Tensor
    col: torch.Tensor
    crow: torch.Tensor
    ccol: torch.Tensor
    by_col: torch.Tensor

    def __init__(self, matrix: sp.spmatrix):
        super().__init__()
        csr = sp.csr_matrix(matrix)
        csr.sort_indices()
        self.shape: tuple[int, int] = csr.get_shape()
        row = np.repeat(np.arange(self.shape[0]), np.diff(csr.indptr))
        by_col = np.argsort(csr.indices, kind="stable")
        ccol = np.searchsorted(csr.indices[by_col], np.arange(self.shape[1] + 1))
        arrays = {"row": row, "col": csr.indices, "crow": csr.indptr, "ccol": ccol}
        for name, array in {**arrays, "by_col": by_col}.items():
            tensor = torch.from_numpy(array.astype(np.int64))
            self.register_buffer(name, tensor, persistent=False)

    def product(
        self, weight: torch.Tensor, dense: torch.Tensor, transposed: bool = False
    ) -> torch.Tensor:
        """W X, W [n, m] the matrix of the weights, or Wᵀ X.

        Shapes: weight [n_edges], dense [m, d] → [n, d]; transposed: [n, d] → [m, d].

        Cost: n_edges·d multiply-adds, three times that with the gradient. Nothing of n_edges × d.
        """
        return _Product.apply(weight, dense, self, transposed)

    def dots(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """left_r · right_c of each edge.

        Shapes: left [n, d], right [m, d] → [n_edges].

        Cost: as that of :meth:`product`.
        """
        return _Dots.apply(left, right, self)

    def softmax(
        self, logits: torch.Tensor, allowed: torch.Tensor, transposed: bool = False
    ) -> torch.Tensor:
        """Softmax over the allowed edges of each row, or of each column; 0 for the others.

        Shapes: logits [n_edges], allowed bool [n_edges] → [n_edges].
        """
        place, n = (self.col, self.shape[1]) if transposed else (self.row, self.shape[0])
        logits = logits.where(allowed, -torch.inf)
        top = logits.new_full((n,), -torch.inf)
        top = top.scatter_reduce(0, place, logits.detach(), "amax")
        e = (logits - top.clamp_min(torch.finfo(top.dtype).min)[place]).exp()
        ones = e.new_ones(self.shape[0] if transposed else self.shape[1], 1)
        total = self.product(e, ones, transposed).squeeze(1)
        return e / select_rows(total.where(total > 0, 1.0), place)

    def _matmul(self, weight: torch.Tensor, dense: torch.Tensor, transposed: bool) -> torch.Tensor:
        if transposed:
            return csr_product(self.ccol, self.row[self.by_col], weight[self.by_col], dense)
        return csr_product(self.crow, self.col, weight, dense)

    def _dots(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        dtype = torch.promote_types(left.dtype, torch.float32)  # half precision widened
        left, right = (x.detach().to(dtype) for x in (left, right))
        blocks = zip(self.row.split(_BLOCK), self.col.split(_BLOCK))
        dots = [(select_rows(left, r) * select_rows(right, c)).sum(dim=1) for r, c in blocks]
        return torch.cat(dots)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, dense: torch.Tensor, graph: EdgeGraph, transposed: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, dense)
        ctx.graph, ctx.transposed = graph, transposed
        return graph._matmul(weight.detach(), dense, transposed)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        weight, dense = ctx.saved_tensors
        pair = (dense, gradient) if ctx.transposed else (gradient, dense)
        of_weight, of_dense = ctx.needs_input_grad[:2]
        return (
            ctx.graph._dots(*pair) if of_weight else None,
            ctx.graph._matmul(weight, gradient, not ctx.transposed) if of_dense else None,
            *[None] * 2,
        )


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, left: torch.Tensor, right: torch.Tensor, graph: EdgeGraph
    ) -> torch.Tensor:
        ctx.save_for_backward(left, right)
        ctx.graph = graph
        return graph._dots(left, right)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        left, right = ctx.saved_tensors
        matmul = ctx.graph._matmul
        return matmul(gradient, right, False), matmul(gradient, left, True), None
