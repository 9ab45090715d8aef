"""Adjacency matrices in SciPy (float32 CSR): the interactions, normalised and mixed graphs."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp


def interaction_matrix(
    users: np.ndarray, items: np.ndarray, n_users: int, n_items: int
) -> sp.csr_matrix:
    """The binary interaction matrix R.

    Args:
        users, items: int arrays [n_pairs]; a pair may be repeated, it counts once.
        n_users, n_items: its shape, the padding row and column 0 among them.

    Returns:
        float32 CSR [n_users, n_items] with entries in {0, 1}.
    """
    matrix = sp.csr_matrix(
        (np.ones(len(users), dtype=np.float32), (users, items)), shape=(n_users, n_items)
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def normalize(matrix: sp.spmatrix, kind: str = "symmetric") -> sp.csr_matrix:
    """Normalise an adjacency matrix by its degrees.

    ``symmetric``: D_r^{-1/2} A D_c^{-1/2} with D_r the row sums and D_c the column sums, which for
    a symmetric A is the D^{-1/2} A D^{-1/2} of LightGCN (arXiv 2002.02126, Eq. 8);
    ``out``: D_r^{-1/2} A D_r^{-1/2} of a square A, the row sums on both sides, as LATTICE and
    FREEDOM have it for directed graphs; ``row``: D_r^{-1} A, a mean over the neighbours;
    ``row_root``: D_r^{-1/2} A, as MMSSL has it. A node without an edge keeps an empty row.

    Args:
        matrix: any sparse matrix of non-negative weights [n, m].

    Returns:
        float32 CSR [n, m]. The degrees are summed in float64.

    Raises:
        ValueError: the kind is unknown.
    """
    csr = sp.csr_matrix(matrix, dtype=np.float64)
    rows = np.asarray(csr.sum(axis=1)).ravel()
    if kind == "symmetric":
        columns = np.asarray(csr.sum(axis=0)).ravel()
        csr = sp.diags(_power(rows, -0.5)) @ csr @ sp.diags(_power(columns, -0.5))
    elif kind == "out":
        csr = sp.diags(_power(rows, -0.5)) @ csr @ sp.diags(_power(rows, -0.5))
    elif kind == "row":
        csr = sp.diags(_power(rows, -1.0)) @ csr
    elif kind == "row_root":
        csr = sp.diags(_power(rows, -0.5)) @ csr
    else:
        raise ValueError(f"normalisation [{kind}] is unknown; use symmetric, out, row or row_root")
    return sp.csr_matrix(csr, dtype=np.float32)


def _power(degrees: np.ndarray, exponent: float) -> np.ndarray:
    """``degrees ** exponent`` with 0 where the degree is 0."""
    return np.power(degrees, exponent, where=degrees > 0, out=np.zeros_like(degrees))


def bipartite_graph(
    interactions: sp.csr_matrix, kind: str = "symmetric", self_loops: bool = False
) -> sp.csr_matrix:
    """The user-item graph [[0, R], [Rᵀ, 0]], normalised; by default as LightGCN has it.

    Args:
        interactions: binary R [n_users, n_items].
        kind: as for :func:`normalize`.
        self_loops: add an edge of weight 1 from each node to itself before normalising.

    Returns:
        float32 CSR [n_users + n_items, n_users + n_items], 2·nnz(R) entries without loops.
    """
    users, items = (sp.eye(n) if self_loops else None for n in interactions.get_shape())
    graph = sp.bmat([[users, interactions], [interactions.T, items]], format="csr")
    return normalize(sp.csr_matrix(graph), kind)


def infuse(semantic: sp.csr_matrix, collaborative: sp.csr_matrix, weight: float) -> sp.csr_matrix:
    """Collaborative signals infused into a semantic graph: (1 − α) Ŝ + α Ĉ.

    Source: the paper (arXiv 2508.06154) as later work reports its Eq. 3-7.

    Args:
        semantic, collaborative: normalised graphs [n, n].
        weight: α in [0, 1]; 0 leaves the semantic graph as it is.

    Returns:
        float32 CSR [n, n].
    """
    mixed = sp.csr_matrix((1.0 - weight) * semantic + weight * collaborative, dtype=np.float32)
    mixed.eliminate_zeros()
    return mixed


def common_edges(graphs: Iterable[sp.csr_matrix]) -> sp.csr_matrix:
    """The edges that all graphs have, of weight 1, without loops: each [n, n] → [n, n].

    GUME (arXiv 2407.12338) takes those of the modalities' k-NN graphs into the user-item graph.
    """
    common = sp.csr_matrix(functools.reduce(lambda a, b: a.multiply(b), graphs), copy=True)
    common.setdiag(0.0)
    common.eliminate_zeros()
    common.data[:] = 1.0
    return common
