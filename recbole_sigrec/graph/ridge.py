"""Item-item weights by ridge regression on interactions and content, in closed form.

EASE (Steck, WWW 2019, arXiv 1905.03375) is the item-item matrix B with a zero diagonal that
minimises ‖R − RB‖² + λ‖B‖². As in Collective EASE (Jeunen, Van Balen, Goethals, RecSys 2020), side
information joins R as further rows: each dimension of the items' content acts as a user who took
the items to its degree. With Z the content vectors of the items and w their weight,

    ‖R − RB‖² + w‖Zᵀ − ZᵀB‖² + λ‖B‖²,    G = RᵀR + w ZZᵀ,
    P = (G + λI)^{-1},    B_ij = −P_ij / P_jj,    B_jj = 0.

Cost: n³ multiply-adds for n items (n = 7,000: 5 to 10 s on one core; 17,000: about 15 times that),
and 4n² bytes, which the inverse takes over from G.

Where many weights of the content are tried, one inverse serves them all. With P₀ that of
RᵀR + λI and D the diagonal of the weights of Z's columns, the matrix inversion lemma gives

    P = P₀ − P₀Z X,    X = (I + D ZᵀP₀Z)^{-1} D ZᵀP₀,

and the scores of a history h are −hP_i / P_ii for each item i outside of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

BEYOND_FLOAT32 = (
    "the Gram matrix cannot be inverted in float32; raise the ridge, or lower it and the content's "
    "weight where they are huge"
)
"""What the error says where a regression has no solution in float32."""

_BLOCK = 1024  # rows at a time


def ridge_weights(
    interactions: sp.csr_matrix, content: np.ndarray, content_weight: float, reg_weight: float
) -> np.ndarray:
    """B of all items.

    Args:
        interactions: binary float32 R [n_users, n_items].
        content: Z, float32 [n_items, d].
        content_weight: w ≥ 0.
        reg_weight: λ > 0.

    Returns:
        float32 [n_items, n_items], C-ordered.

    Raises:
        ValueError: G + λI is not positive definite in float32.
    """
    gram = (np.float32(content_weight) * content) @ content.T
    return weights_of_gram(_add_interactions(gram, interactions, reg_weight))


class RidgeFamily:
    """The regressions of one λ on the same interactions and content, for any weights of it.

    Args:
        interactions: binary float32 R [n_users, n_items].
        content: Z, float32 [n_items, d].
        reg_weight: λ > 0.

    Raises:
        ValueError: RᵀR + λI is not positive definite in float32.
    """

    def __init__(self, interactions: sp.csr_matrix, content: np.ndarray, reg_weight: float):
        n = len(content)
        gram = np.zeros((n, n), dtype=np.float32)
        self._inverse = _inverse(_add_interactions(gram, interactions, reg_weight))
        self._of_content = self._inverse @ content  # P₀Z [n, d]
        self._between = content.T @ self._of_content  # ZᵀP₀Z [d, d]

    def scorer(self, content_weights: np.ndarray) -> Callable[[sp.csr_matrix], np.ndarray]:
        """The scores hB where each column of Z has a weight of its own.

        Args:
            content_weights: float32 [d], none negative.

        Returns:
            A function of histories, binary float32 [n, n_items], to float32 [n, n_items]. Those of
            the items of a history itself are not its scores.

        Raises:
            ValueError: the content outweighs the ridge by more than float32 can tell.

        Cost: n_items·d² multiply-adds, and n·n_items·d for n histories.
        """
        inner = np.eye(len(self._between)) + content_weights[:, None] * self._between
        change = np.linalg.solve(inner, content_weights[:, None] * self._of_content.T)
        change = change.astype(np.float32)  # X [d, n_items]
        before = self._inverse.diagonal()
        diagonal = before - np.einsum("id,di->i", self._of_content, change)
        if not (diagonal > 1e-4 * before).all():  # what is left is rounding, or NaN
            raise ValueError("the content outweighs the ridge; raise the ridge")

        def scores(histories: sp.csr_matrix) -> np.ndarray:
            of_inverse = histories @ self._inverse - (histories @ self._of_content) @ change
            return of_inverse / -diagonal

        return scores


def _add_interactions(
    gram: np.ndarray, interactions: sp.csr_matrix, reg_weight: float
) -> np.ndarray:
    """RᵀR + λI added to a matrix [n, n], in place; R [n_users, n]."""
    by_item = interactions.T.tocsr()
    for start in range(0, len(gram), _BLOCK):
        rows = slice(start, start + _BLOCK)
        gram[rows] += (by_item[rows] @ interactions).toarray()
    gram[np.diag_indices(len(gram))] += reg_weight
    return gram


def weights_of_gram(gram: np.ndarray) -> np.ndarray:
    """B of a Gram matrix G + λI, in its memory: B_ij = −P_ij / P_jj, P its inverse, B_jj = 0.

    Shapes: gram float32 [n, n], positive definite and C-ordered → [n, n], C-ordered.

    Raises:
        ValueError: it is not positive definite in float32.
    """
    return _weights_of_inverse(_inverse(gram))


def _inverse(gram: np.ndarray) -> np.ndarray:
    """The inverse of a Gram matrix [n, n], in its memory.

    Raises:
        ValueError: it is not positive definite in float32.
    """
    potrf, potri = lapack.spotrf, lapack.spotri  # pyright: ignore[reportAttributeAccessIssue]
    inverse, failed = potrf(gram.T, lower=1, clean=0, overwrite_a=1)  # Cholesky factor
    if not failed:
        inverse, failed = potri(inverse, lower=1, overwrite_c=1)
    inverse = inverse.T  # C-ordered; P stands on and above the diagonal
    diagonal = inverse.diagonal()
    # LAPACK may pass over what is not finite.
    if failed or not (np.isfinite(diagonal) & (diagonal > 0)).all():
        raise ValueError(BEYOND_FLOAT32)
    for start in range(0, len(inverse), _BLOCK):
        stop = start + _BLOCK
        corner = inverse[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
        inverse[stop:, start:stop] = inverse[start:stop, stop:].T
    return inverse


def _weights_of_inverse(inverse: np.ndarray) -> np.ndarray:
    """B_ij = −P_ij / P_jj and B_jj = 0, in the memory of P [n, n]."""
    inverse /= -inverse.diagonal().copy()
    np.fill_diagonal(inverse, 0.0)
    return inverse


def largest_into_each(weights: np.ndarray, k: int) -> sp.csr_matrix:
    """The k largest positive entries of each column of B, and what equals the smallest of them.

    Shapes: weights float32 [n, n] → CSR [n, n].
    """
    starts = range(0, len(weights), _BLOCK)
    columns = [largest_of_rows(weights[:, start : start + _BLOCK].T, k) for start in starts]
    return sp.vstack(columns).T.tocsr()


def largest_of_rows(rows: np.ndarray, k: int) -> sp.csr_matrix:
    """The k largest positive entries of each row, and what equals the smallest of them.

    Shapes: float32 [b, n] → CSR [b, n].
    """
    n = rows.shape[1]
    least = np.partition(rows, n - k, axis=1)[:, n - k, None] if k < n else -np.inf
    return sp.csr_matrix(np.where((rows >= least) & (rows > 0), rows, 0))
