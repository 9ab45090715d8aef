"""Scores of an item graph for histories of items, by SciPy alone."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def scores_and_scales(
    histories: sp.csr_matrix,
    graph: sp.csr_matrix,
    weight: float,
    n_items: int,
    n_columns: int | None = None,
) -> tuple[sp.csr_matrix, np.ndarray]:
    """s, the histories' items, each speaking for its neighbours, and γ / σ_u(s).

    Args:
        histories: binary float32 [n, m].
        graph: B, float32 [m, m]; B_ji weighs item j of a history for item i.
        weight: γ.
        n_items: over how many items the deviation σ_u is taken.
        n_columns: the columns among which they are, the first ones; none given: all.

    Returns:
        (s, CSR [n, m]; γ / σ_u(s), float32 [n], zero where all of a history's scores are equal).
    """
    scores = sp.csr_matrix(histories @ graph)
    counted = scores.data
    if n_columns is not None:
        counted = np.where(scores.indices < n_columns, counted, 0)
    mean = _row_sums(scores, counted) / n_items
    square = _row_sums(scores, counted * counted) / n_items
    variance = square - mean**2
    spread_out = variance > 1e-6 * square  # else it is what rounding leaves of equal scores
    scale = np.zeros(len(mean), dtype=np.float32)
    scale[spread_out] = weight / np.sqrt(variance[spread_out])
    return scores, scale


def _row_sums(matrix: sp.csr_matrix, data: np.ndarray) -> np.ndarray:
    """Sums over the rows of a matrix with ``data`` in place of its entries: float64 [n]."""
    sums = np.zeros(len(matrix.indptr) - 1)
    some = np.diff(matrix.indptr) > 0
    sums[some] = np.add.reduceat(data, matrix.indptr[:-1][some], dtype=np.float64)
    return sums
