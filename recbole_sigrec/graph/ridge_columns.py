"""The largest ridge weights into each item, where the inverse of all items is too large to hold.

The regression is that of :mod:`recbole_sigrec.graph.ridge`, solved for some columns of P at a time.
With C = RᵀR + λI, which is sparse, Z the content and w its weight, Woodbury's identity gives

    P = (C + w ZZᵀ)^{-1} = C^{-1} − Y K Yᵀ,    Y = C^{-1} Z,    K = w (I + w ZᵀY)^{-1}.

The content then costs one product for each column of P, not one for each iteration. Conjugate
gradients, preconditioned by the diagonal of C, solve C for the columns of I and of Z. A column is
left alone once it has converged: the recurrences break down beyond what float32 can tell.

How far the weights are from the exact ones is estimated from what a column p of P leaves in the
equation: its error is P (e − (C + w ZZᵀ) p), P taken as it was solved.

SANSA (Spišák et al., RecSys 2023) is the published way to this size, for interactions alone. It
drops small entries of the factors of P; here nothing is dropped but the weights that are not kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.display.progress import progress
from recbole_sigrec.graph.propagation import SparseGraph
from recbole_sigrec.graph.ridge import BEYOND_FLOAT32, largest_of_rows
from recbole_sigrec.kernels.products import matmul_nt

_TOLERANCE = 3e-6  # residual at which a column is solved, relative to the right side
_MOST_ITERATIONS = 1000
_COLUMNS = 128  # of P at a time
_ITERATED = 32  # columns whose iterations run together: few enough for the caches
_CHECKED = 16  # one of as many blocks of P is put into the equation
_LARGEST_ERROR = 1e-3  # of a weight


def largest_ridge_weights(
    interactions: sp.csr_matrix,
    content: np.ndarray,
    k: int,
    content_weight: float,
    reg_weight: float,
) -> sp.csr_matrix:
    """What :func:`largest_into_each` keeps of :func:`ridge_weights`, in memory that grows with n.

    The log tells how exact the weights are, as far as one block of 16 shows.

    Args:
        interactions: binary float32 R [n_users, n_items].
        content: Z, float32 [n_items, d].
        k: the largest positive weights into each item that are kept.
        content_weight: w ≥ 0.
        reg_weight: λ > 0.

    Returns:
        float32 CSR [n_items, n_items].

    Raises:
        ValueError: conjugate gradients do not converge, or a weight is off by more than 0.001.

    Cost: n²·d multiply-adds, and 2·nnz(R) for each of n + d columns in each of 10 to 40 iterations
    (more where λ is small). Memory: 4·n·d + 20·d² bytes, some times 128 columns of items, and 32 of
    users.
    """
    tiny, huge = (float(getattr(np.finfo(np.float32), end)) for end in ("tiny", "max"))
    if not (tiny <= reg_weight <= huge and content_weight <= huge):
        raise ValueError(BEYOND_FLOAT32)
    n, kept, worst = len(content), [], 0.0
    inverse = _Inverse(interactions, content, content_weight, reg_weight)
    for number, items in enumerate(_blocks(n, "item weights")):
        rows, place = inverse.columns(items), torch.arange(len(items))
        if number % _CHECKED == 0:
            worst = max(worst, inverse.error(rows, items))
            if worst > _LARGEST_ERROR:
                raise ValueError(BEYOND_FLOAT32)
        rows /= -rows[place, items][:, None]
        rows[place, items] = 0.0
        kept.append(largest_of_rows(rows.numpy(), k))
    logging.getLogger().info(
        f"item weights: off by at most {worst:.1e}, by one block of {_CHECKED}"
    )
    return sp.vstack(kept).T.tocsr()


def _blocks(n: int, what: str) -> Iterator[torch.Tensor]:
    """0 to n − 1 in blocks, with a progress bar."""
    return iter(progress(what, torch.arange(n).split(_COLUMNS), "blocks"))


class _Inverse:
    """P, column by column.

    Args: those of :func:`largest_ridge_weights`.

    Raises:
        ValueError: conjugate gradients do not converge.
    """

    def __init__(self, interactions: sp.csr_matrix, content: np.ndarray, weight: float, reg: float):
        self._of_interactions = _Interactions(interactions, reg)
        d = content.shape[1] if weight > 0 else 0
        self._weight, self._content = weight, torch.from_numpy(content[:, :d])
        self._solved = torch.empty(len(content), d)  # Y
        between = torch.empty(d, d)  # ZᵀY
        for columns in _blocks(d, "item weights, content"):
            solved = self._of_interactions.solve(self._content[:, columns])
            self._solved[:, columns] = solved
            between[:, columns] = self._content.T @ solved  # matmul_nt would copy all of Z
        inner = np.eye(d) + weight * between.numpy().astype(np.float64)
        self._inner = torch.from_numpy(weight * np.linalg.inv(inner)).float()  # K

    def columns(self, items: torch.Tensor) -> torch.Tensor:
        """The columns of some items: int64 [b] → float32 [b, n_items], a row for each.

        Raises:
            ValueError: conjugate gradients do not converge, or float32 leaves nothing of a column.
        """
        place = torch.arange(len(items))
        unit = torch.zeros(len(self._solved), len(items))
        unit[items, place] = 1.0
        rows = self._of_interactions.solve(unit).T.contiguous()
        before = rows[place, items]
        rows -= matmul_nt(self._solved[items] @ self._inner, self._solved)
        if not (rows[place, items] > 1e-4 * before).all():  # what is left is rounding, or NaN
            raise ValueError(BEYOND_FLOAT32)
        return rows

    def error(self, rows: torch.Tensor, items: torch.Tensor) -> float:
        """About the largest error of the weights that columns of P give.

        Shapes: float32 [b, n_items], a row for each column; int64 [b], their items.
        """
        place, columns = torch.arange(len(items)), rows.T.contiguous()
        rest = -self._of_interactions.product(columns)
        rest -= self._weight * matmul_nt(self._content, matmul_nt(rows, self._content.T))
        rest[items, place] += 1.0
        of_content = self._inner @ (self._solved.T @ rest)
        error = self._of_interactions.solve(rest) - self._solved @ of_content
        return float((error.abs().amax(dim=0) / rows[place, items]).max())


class _Interactions:
    """C = RᵀR + λI and its inverse, for columns [n_items, b].

    Both are those of A = D^{-1/2} C D^{-1/2}, whose diagonal is one, scaled back.
    """

    def __init__(self, interactions: sp.csr_matrix, reg: float):
        counts = np.bincount(interactions.indices, minlength=interactions.get_shape()[1])
        scale = (counts + reg) ** -0.5  # D^{-1/2}
        self._graph = SparseGraph(interactions @ sp.diags(scale))
        self._scale, self._reg = (
            torch.from_numpy(part).float()[:, None] for part in (scale, reg * scale**2)
        )

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """C x."""
        return self._scaled_product(x / self._scale).div_(self._scale)

    def _scaled_product(self, x: torch.Tensor) -> torch.Tensor:
        """A x."""
        return self._graph.matmul_transposed(self._graph.matmul(x)).addcmul_(self._reg, x)

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        """x with C x = right, float32 [n_items, b].

        Raises:
            ValueError: a column does not converge.
        """
        parts = [self._solve_together(part) for part in right.split(_ITERATED, dim=1)]
        return torch.cat(parts, dim=1)

    def _solve_together(self, right: torch.Tensor) -> torch.Tensor:
        rest = right * self._scale
        least = _TOLERANCE * rest.norm(dim=0)
        x, direction = torch.zeros_like(rest), rest.clone()
        square = _dots(rest, rest)
        for _ in range(_MOST_ITERATIONS):
            going = ~(square.sqrt() <= least)  # NaN, too
            if not going.any():
                return x.mul_(self._scale)
            if not square.isfinite().all():
                break
            product = self._scaled_product(direction)
            step = torch.where(going, square / _dots(direction, product), 0.0)
            x.addcmul_(step, direction)
            rest.addcmul_(-step, product)
            before, square = square, _dots(rest, rest)
            direction.mul_(torch.where(going, square / before, 0.0)).add_(rest)
        raise ValueError(
            f"conjugate gradients do not reach a relative residual of {_TOLERANCE:g} in "
            f"{_MOST_ITERATIONS} iterations; raise the ridge"
        )


def _dots(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product of each column with its fellow: [n, b], [n, b] → [b]."""
    return torch.from_numpy(np.einsum("ij,ij->j", left.numpy(), right.numpy()))
