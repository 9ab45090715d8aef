"""Graphs: semantic k-NN, collaborative item graph, normalisation, mixing and propagation."""

from recbole_sigrec.graph.adjacency import (
    bipartite_graph,
    common_edges,
    infuse,
    interaction_matrix,
    normalize,
)
from recbole_sigrec.graph.agreement import agreeing_neighbors, agreement_graphs
from recbole_sigrec.graph.approximate import approximate_topk
from recbole_sigrec.graph.cache import cached_graph
from recbole_sigrec.graph.collaborative import collaborative_graph, collaborative_topk
from recbole_sigrec.graph.content import content_vectors
from recbole_sigrec.graph.cooccurrence import CooccurrenceGraph, cooccurrence_topk
from recbole_sigrec.graph.edges import EdgeGraph
from recbole_sigrec.graph.generated import GeneratedGraphs
from recbole_sigrec.graph.knn import cosine_topk, kept_cosines, knn_graph
from recbole_sigrec.graph.propagation import (
    SparseGraph,
    decaying_propagation,
    mean_propagation,
    mean_propagation_and_start,
    propagate,
)
from recbole_sigrec.graph.pruning import PrunedGraph
from recbole_sigrec.graph.ridge import ridge_weights
from recbole_sigrec.graph.ridge_graph import ridge_graph
from recbole_sigrec.graph.semantic import semantic_graph
from recbole_sigrec.graph.spectral import spectral_graph, spectral_subgraph

__all__ = [
    "CooccurrenceGraph",
    "EdgeGraph",
    "GeneratedGraphs",
    "PrunedGraph",
    "SparseGraph",
    "agreeing_neighbors",
    "agreement_graphs",
    "approximate_topk",
    "bipartite_graph",
    "cached_graph",
    "collaborative_graph",
    "collaborative_topk",
    "common_edges",
    "content_vectors",
    "cooccurrence_topk",
    "cosine_topk",
    "decaying_propagation",
    "infuse",
    "interaction_matrix",
    "kept_cosines",
    "knn_graph",
    "mean_propagation",
    "mean_propagation_and_start",
    "normalize",
    "propagate",
    "ridge_graph",
    "ridge_weights",
    "semantic_graph",
    "spectral_graph",
    "spectral_subgraph",
]
