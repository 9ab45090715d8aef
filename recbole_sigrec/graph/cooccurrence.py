"""The user-user graph of common items of DualGNN (DOI 10.1109/TMM.2021.3138298) and DRAGON."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.graph.adjacency import normalize
from recbole_sigrec.graph.collaborative import collaborative_topk
from recbole_sigrec.graph.propagation import SparseGraph


def cooccurrence_topk(interactions: sp.csr_matrix, k: int, memory_mb: float = 512) -> sp.csr_matrix:
    """The k rows that have most columns in common with each row, and how many these are.

    A row is not its own neighbour, and rows without a common column are none. Ties go to the
    smaller row. R Rᵀ is made in blocks, see :func:`collaborative_topk`.

    Args:
        interactions: binary R [n, m], or its transposed for the items; training pairs alone.

    Returns:
        The counts: float32 CSR [n, n], at most k entries in a row.
    """
    transposed = sp.csr_matrix(interactions.T)
    return collaborative_topk(transposed, k, "count", symmetric=False, memory_mb=memory_mb)


def softmax_of_counts(counts: sp.csr_matrix, times: np.ndarray) -> sp.csr_matrix:
    """Row by row the softmax of the entries, each of which stands so many times.

    Shapes: counts CSR [n, n], times [n_entries] → float32 CSR [n, n].
    """
    most = counts.max(axis=1).toarray().ravel().repeat(np.diff(counts.indptr))
    values = times * np.exp(counts.data.astype(np.float64) - most)
    arrays = values, counts.indices, counts.indptr
    return normalize(sp.csr_matrix(arrays, counts.shape), "row")


class CooccurrenceGraph:
    """Draws graphs of each row's list of K co-occurring rows, weighed by a softmax of the counts.

    A list of r < K rows is filled up: one of its members, as it then stands, is drawn and appended,
    until there are K. This is Pólya's urn: all ways to part the K places among the r rows, at least
    one for each, are equally likely. A row without a co-occurring one has no edge.

    Args:
        interactions: binary R [n, m].
        k: K.
        memory_mb: as for :func:`cooccurrence_topk`.

    Attributes:
        counts: those of :func:`cooccurrence_topk`.
    """

    def __init__(self, interactions: sp.csr_matrix, k: int, memory_mb: float = 512):
        self.k = k
        self.counts = cooccurrence_topk(interactions, k, memory_mb)

    def draw(self) -> SparseGraph:
        """With lists that are filled up anew: [n, n]."""
        return SparseGraph(softmax_of_counts(self.counts, self.places()))

    def expected(self) -> SparseGraph:
        """With each neighbour as often as it stands in a list on average: all equally often."""
        return SparseGraph(softmax_of_counts(self.counts, np.ones(self.counts.nnz)))

    def places(self) -> np.ndarray:
        """How often each neighbour stands in its list, drawn from NumPy's global state: [n_edges].

        Of the K − 1 borders between the places of a list, r − 1 random ones part its neighbours.
        """
        start, length = self.counts.indptr[:-1], np.diff(self.counts.indptr)
        short = np.flatnonzero((length > 0) & (length < self.k))
        order = np.random.random((len(short), self.k - 1)).argsort(axis=1)
        parted = (order < length[short, None] - 1).cumsum(axis=1)
        edge = start[short, None] + np.pad(parted, ((0, 0), (1, 0)))
        return np.bincount(edge.ravel(), minlength=self.counts.nnz).clip(min=1)
