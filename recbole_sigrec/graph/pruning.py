"""Degree-sensitive pruning of the user-item graph (FREEDOM, arXiv 2211.06924, Eq. 5-7)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.graph.adjacency import bipartite_graph, interaction_matrix
from recbole_sigrec.graph.propagation import SparseGraph


class PrunedGraph:
    """Draws subgraphs of the user-item graph, each normalised by its own degrees.

    Edge (u, i) is drawn with a probability proportional to 1/√(d_u d_i), without replacement.

    Args:
        interactions: binary R [n_users, n_items].
        dropout: ρ in [0, 1), the share of the edges that a subgraph lacks.

    Attributes:
        edges: the user-item pairs, SciPy COO [n_users, n_items].
        weight: of each pair, what its probability is proportional to, [n_pairs].
    """

    def __init__(self, interactions: sp.csr_matrix, dropout: float):
        self._shape = interactions.get_shape()
        self.edges = interactions.tocoo()
        degree_u, degree_i = (np.asarray(interactions.sum(axis=a)).ravel() for a in (1, 0))
        self.weight = (degree_u[self.edges.row] * degree_i[self.edges.col]) ** -0.5
        self._n_kept = max(1, int(self.edges.nnz * (1.0 - dropout)))

    def draw(self) -> SparseGraph:
        """Another subgraph, users first: [n_users + n_items, n_users + n_items]."""
        kept = sample_edges(self.weight, self._n_kept)
        return self.of_pairs(self.edges.row[kept], self.edges.col[kept])

    def of_pairs(self, users: np.ndarray, items: np.ndarray) -> SparseGraph:
        """The subgraph of the pairs (users[n], items[n])."""
        return SparseGraph(bipartite_graph(interaction_matrix(users, items, *self._shape)))


def sample_edges(weight: np.ndarray, n: int) -> np.ndarray:
    """Places of n edges drawn without replacement, each next one in proportion to ``weight``.

    Edge e is given a key E_e / w_e with E_e ~ Exp(1): the smallest n keys are such a sample, in
    their order of drawing. NumPy's global state is drawn from.

    Shapes: weight [n_edges], positive → [n], ascending.
    """
    keys = np.random.exponential(size=len(weight)) / weight
    return np.sort(np.argpartition(keys, n - 1)[:n])
