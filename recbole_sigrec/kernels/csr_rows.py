"""Rows of SciPy matrices: some of them, faster than SciPy takes a few; and made of lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp


def csr_rows(matrix: sp.csr_matrix, rows: np.ndarray) -> sp.csr_matrix:
    """``matrix[rows]``, with an empty row for each −1.

    Shapes: CSR [m, n_columns], rows int64 [n] → CSR [n, n_columns].
    """
    start = matrix.indptr[rows]
    sizes = np.where(rows < 0, 0, matrix.indptr[rows + 1] - start)
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(sizes, out=indptr[1:])
    place = np.arange(indptr[-1]) + np.repeat(start - indptr[:-1], sizes)
    parts = matrix.data[place], matrix.indices[place], indptr
    return sp.csr_matrix(parts, shape=(len(rows), matrix.get_shape()[1]))


def csr_of_lists(columns: Sequence[np.ndarray], n_columns: int) -> sp.csr_matrix:
    """The binary matrix whose row r has a one in each of ``columns[r]``, int64: float32 CSR."""
    indptr = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate([np.empty(0, np.int64), *columns]).astype(np.int32)
    data = np.ones(len(indices), dtype=np.float32)
    return sp.csr_matrix((data, indices, indptr), shape=(len(columns), n_columns))
