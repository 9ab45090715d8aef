"""Propagation of embeddings over a constant graph.

One product serves every model, on the CPU and on CUDA.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch.autograd.function import once_differentiable

from recbole_sigrec.kernels.rows import select_rows


class SparseGraph(torch.nn.Module):
    """A constant sparse matrix A [n, m] whose product with embeddings can be differentiated.

    The backward pass multiplies by Aᵀ: where A is symmetric that is A itself, so no transposed copy
    is held. It is a module so that ``model.to(device)`` moves it; it is not part of a checkpoint.

    Cost: nnz·d multiply-adds for each product; memory: 8 bytes per entry (12 from 2³¹ entries on),
    twice that where A is not symmetric.

    Args:
        matrix: SciPy sparse matrix [n, m].
    """

    def __init__(self, matrix: sp.spmatrix):
        super().__init__()
        csr = sp.csr_matrix(matrix, dtype=np.float32)
        csr.sort_indices()
        self.shape: tuple[int, int] = matrix.shape
        self.nnz = csr.nnz
        self.symmetric = self.shape[0] == self.shape[1] and abs(csr - csr.T).max() == 0
        self._register("forward", csr)
        if not self.symmetric:
            self._register("backward", sp.csr_matrix(csr.T))

    def _register(self, name: str, csr: sp.csr_matrix) -> None:
        csr.sort_indices()
        for part, array in (("crow", csr.indptr), ("col", csr.indices), ("val", csr.data)):
            self.register_buffer(f"{name}_{part}", torch.from_numpy(array.copy()), persistent=False)

    def entries(self, transposed: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The CSR arrays (crow, col, val) of A, or of Aᵀ."""
        name = "forward" if self.symmetric or not transposed else "backward"
        crow, col, val = (getattr(self, f"{name}_{part}") for part in ("crow", "col", "val"))
        return crow, col, val

    def matmul(self, dense: torch.Tensor) -> torch.Tensor:
        """A @ dense, outside the autograd graph: [m, d] → [n, d]."""
        return csr_product(*self.entries(), dense)

    def matmul_transposed(self, dense: torch.Tensor) -> torch.Tensor:
        """Aᵀ @ dense, outside the autograd graph: [n, d] → [m, d]."""
        return csr_product(*self.entries(transposed=True), dense)

    def forward(self, dense: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """A @ dense, or the given rows of it.

        Shapes: dense [m, d], rows int64 [r], distinct and ascending → [n, d] or [r, d].
        """
        return _Propagate.apply(dense, self if rows is None else _Rows(self, rows))

    def extra_repr(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]}, nnz={self.nnz}, symmetric={self.symmetric}"


FEW = 0.4
"""Rows with a smaller share of a graph's entries are copied out of it, on the CPU. Above, copying
and transposing them takes longer than the whole product on one thread does."""


class _Rows:
    """Some rows of a graph, A[rows] [r, m], in the place of a graph: products of both directions.

    If they have few of A's entries, these alone are multiplied; they are copied for it, 8 bytes
    per entry. Else, and on other devices, where no rows of a CSR can be selected, all of A is. On
    the CPU either has the result of A to the last bit.

    Args:
        graph: A [n, m].
        rows: distinct and ascending, int64 [r].
    """

    def __init__(self, graph: SparseGraph, rows: torch.Tensor):
        self.graph, self.rows = graph, rows
        self.part: sp.csr_matrix | None = None
        crow, col, val = graph.entries()
        if crow.device.type == "cpu" and (crow[rows + 1] - crow[rows]).sum() < FEW * graph.nnz:
            arrays = val.numpy(), col.numpy(), crow.numpy()
            self.part = sp.csr_matrix(arrays, graph.shape)[rows.numpy()]

    def matmul(self, dense: torch.Tensor) -> torch.Tensor:
        """A[rows] @ dense: [m, d] → [r, d]."""
        if self.part is None:
            return select_rows(self.graph.matmul(dense), self.rows)
        return csr_product(*_arrays(self.part), dense)

    def matmul_transposed(self, dense: torch.Tensor) -> torch.Tensor:
        """A[rows]ᵀ @ dense: [r, d] → [m, d]."""
        if self.part is None:
            whole = dense.new_zeros(self.graph.shape[0], dense.shape[1])
            return self.graph.matmul_transposed(whole.index_add_(0, self.rows, dense))
        return csr_product(*_arrays(self.part.T.tocsr()), dense)


def _arrays(csr: sp.csr_matrix) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(crow, col, val), in its memory."""
    crow, col, val = (torch.from_numpy(array) for array in (csr.indptr, csr.indices, csr.data))
    return crow, col, val


def csr_product(
    crow: torch.Tensor, col: torch.Tensor, val: torch.Tensor, dense: torch.Tensor
) -> torch.Tensor:
    """The product of a CSR matrix [n, m] and dense [m, d] → [n, d], outside the autograd graph."""
    dtype = torch.promote_types(dense.dtype, torch.float32)  # half precision widened
    val = val.to(dtype)  # float64 in gradient checks
    dense = dense.detach().to(dtype).contiguous()  # a table with a gradient takes longer
    if dense.device.type == "cpu":
        # A row of A is a weighted bag of embeddings; torch's kernel for bags gathers whole rows
        # with vector instructions, three times as fast as its sparse product.
        return torch.embedding_bag(dense, col, crow, False, 0, False, val, True)[0]
    with warnings.catch_warnings():  # torch calls its CSR format "beta" at the first use
        warnings.simplefilter("ignore", UserWarning)
        shape = (len(crow) - 1, len(dense))
        csr = torch.sparse_csr_tensor(crow, col, val, size=shape, check_invariants=False)
    with torch.autocast(dense.device.type, enabled=False):
        return csr @ dense


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: torch.Tensor, graph: SparseGraph | _Rows) -> torch.Tensor:
        ctx.graph = graph
        return graph.matmul(dense)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        return ctx.graph.matmul_transposed(gradient), None


class _MeanPropagate(torch.autograd.Function):
    """(I + A + … + A^L) X / (L + 1), L > 0, by Horner's rule, X + A (X + …): nothing is kept.

    Of some rows the last layer alone is theirs, and the gradient comes in by them. Then the second
    result is these rows of X itself: the two gradients come out as one table.
    """

    @staticmethod
    def forward(
        ctx: Any,
        dense: torch.Tensor,
        graph: SparseGraph,
        n_layers: int,
        rows: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        last = graph if rows is None else _Rows(graph, rows)
        ctx.graph, ctx.last, ctx.n_layers, ctx.rows = graph, last, n_layers, rows
        ctx.set_materialize_grads(False)
        total = dense
        for _ in range(n_layers - 1):
            total = graph.matmul(total).add_(dense)
        own = None if rows is None else select_rows(dense, rows)
        mean = last.matmul(total).add_(dense if own is None else own).mul_(1 / (n_layers + 1))
        return mean, own

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch's decorator)
        ctx: Any, gradient: torch.Tensor | None, own_gradient: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, None, None, None]:
        if gradient is None:
            if own_gradient is None:
                return None, None, None, None
            gradient = torch.zeros_like(own_gradient)
        total = gradient
        for graph in (ctx.last, *[ctx.graph] * (ctx.n_layers - 1)):
            total = graph.matmul_transposed(total)
            if ctx.rows is None:
                total.add_(gradient)
            else:
                total.index_add_(0, ctx.rows, gradient)
        total.mul_(1 / (ctx.n_layers + 1))
        if ctx.rows is not None and own_gradient is not None:
            total.index_add_(0, ctx.rows, own_gradient.to(total.dtype))
        return total, None, None, None


def propagate(
    graph: Callable[[torch.Tensor], torch.Tensor], embeddings: torch.Tensor, n_layers: int
) -> torch.Tensor:
    """A^L X: the last of ``n_layers`` layers (LATTICE and FREEDOM on item graphs).

    Args:
        graph: a :class:`SparseGraph`, or whatever else multiplies by A.

    Shapes: embeddings [n, d] → [n, d]; with 0 layers, the embeddings themselves.
    """
    for _ in range(n_layers):
        embeddings = graph(embeddings)
    return embeddings


def mean_propagation(
    graph: SparseGraph,
    embeddings: torch.Tensor,
    n_layers: int,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """(X + AX + … + A^L X) / (L + 1): LightGCN's layer combination (arXiv 2002.02126, Eq. 4).

    Shapes: embeddings [n, d], rows int64 [r], distinct and ascending → [n, d], or [r, d], the rows
    named of it.
    """
    if n_layers == 0:
        return embeddings if rows is None else select_rows(embeddings, rows)
    return _MeanPropagate.apply(embeddings, graph, n_layers, rows)[0]


def decaying_propagation(
    graph: SparseGraph,
    embeddings: torch.Tensor,
    decay: torch.Tensor,
    n_layers: int,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σ_l b^l ⊙ A^l X / Σ_l b^l, l = 0..L, b by column (STAIR, arXiv 2412.11729).

    By Horner's rule, X + b ⊙ A (X + …).

    Shapes: embeddings [n, d], decay b [d] in [0, 1], rows int64 [r], distinct and ascending →
    [n, d], or [r, d], the rows named of it.
    """
    weight = sum((decay**layer for layer in range(1, n_layers + 1)), torch.ones_like(decay))
    own = embeddings if rows is None else select_rows(embeddings, rows)
    if n_layers == 0:
        return own
    total = embeddings
    for _ in range(n_layers - 1):
        total = embeddings + decay * graph(total)
    return (own + decay * graph(total, rows)) / weight


def mean_propagation_and_start(
    graph: SparseGraph, embeddings: torch.Tensor, n_layers: int, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`mean_propagation` of some rows, and these rows of X, for a regulariser of them.

    As ``embeddings[rows]`` beside it would be, with one table of gradients instead of two.

    Shapes: embeddings [n, d], rows int64 [r], distinct and ascending → [r, d], [r, d].
    """
    if n_layers == 0:
        start = select_rows(embeddings, rows)
        return start, start
    return _MeanPropagate.apply(embeddings, graph, n_layers, rows)
