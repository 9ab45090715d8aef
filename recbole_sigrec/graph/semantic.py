"""The semantic graph of a modality, by a model's config: built, or read from the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.graph.cache import cached_graph
from recbole_sigrec.graph.knn import knn_graph
from recbole_sigrec.graph.rewiring import rewire


def semantic_graph(
    config: Any, features: torch.Tensor, mask: torch.Tensor, **fixed: Any
) -> sp.csr_matrix:
    """The k-NN graph of one modality; see :func:`knn_graph`.

    A share of its edges is rewired where the config says so, before it is made symmetric.

    Args:
        config: with ``knn_k, knn_self, knn_weight, knn_symmetric, knn_search, graph_memory_mb,
            graph_cache_dir, rewired_edges`` and ``corruption_seed``.
        features: float32 [n_items, d_m].
        mask: bool [n_items], which items have the modality.
        fixed: parameters of :func:`knn_graph` that a model does not leave to its keys.

    Returns:
        float32 CSR [n_items, n_items].
    """
    parameters = {
        "k": config["knn_k"],
        "include_self": config["knn_self"],
        "weight": config["knn_weight"],
        "symmetric": config["knn_symmetric"],
        "method": config["knn_search"],
        **fixed,
    }
    memory_mb, corrupted = config["graph_memory_mb"], {}
    if config["rewired_edges"] > 0:
        corrupted = {"share": config["rewired_edges"], "seed": config["corruption_seed"]}

    def build() -> sp.csr_matrix:
        if not corrupted:
            return knn_graph(features, mask=mask, memory_mb=memory_mb, **parameters)
        directed = {**parameters, "symmetric": False}
        graph = knn_graph(features, mask=mask, memory_mb=memory_mb, **directed)
        graph = rewire(graph, np.asarray(mask), **corrupted)
        return graph.maximum(graph.T).tocsr() if parameters["symmetric"] else graph

    return cached_graph(
        config["graph_cache_dir"],
        "semantic",
        {"features": features, "mask": mask},
        {**parameters, **corrupted},
        build,
    )
