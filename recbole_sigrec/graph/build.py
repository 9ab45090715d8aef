"""A model's item graphs, by its config: built, or read from the cache; before normalisation."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.data.corruption import rewire
from recbole_sigrec.graph.cache import cached_graph
from recbole_sigrec.graph.collaborative import collaborative_topk, without_long_histories
from recbole_sigrec.graph.knn import knn_graph
from recbole_sigrec.graph.ridge import largest_into_each, ridge_weights


def semantic_graph(config, features: torch.Tensor, mask: torch.Tensor, **fixed) -> sp.csr_matrix:
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


def collaborative_graph(config, interactions: sp.csr_matrix) -> sp.csr_matrix:
    """The collaborative top-k graph; see :func:`collaborative_topk`.

    Args:
        config: with ``collab_knn_k, collab_measure, collab_max_history, knn_symmetric,
            graph_memory_mb`` and ``graph_cache_dir``.
        interactions: binary R [n_users, n_items] of the training interactions.

    Returns:
        float32 CSR [n_items, n_items].
    """
    parameters = {
        "k": config["collab_knn_k"],
        "measure": config["collab_measure"],
        "symmetric": config["knn_symmetric"],
    }
    interactions = without_long_histories(interactions, config["collab_max_history"])
    memory_mb = config["graph_memory_mb"]
    return cached_graph(
        config["graph_cache_dir"],
        "collaborative",
        {"interactions": interactions},
        parameters,
        lambda: collaborative_topk(interactions, memory_mb=memory_mb, **parameters),
    )


def ridge_graph(
    folder: str | None,
    interactions: sp.csr_matrix,
    content: np.ndarray,
    k: int,
    **weights: float,
) -> sp.csr_matrix:
    """The k largest positive ridge weights into each item; see :mod:`recbole_sigrec.graph.ridge`.

    Args:
        folder: where the graphs are kept; ``None``: nowhere.
        interactions: binary R [n_users, n_items] of the training interactions.
        content: Z, float32 [n_items, d].
        weights: ``content_weight`` and ``reg_weight`` of :func:`ridge_weights`.

    Returns:
        float32 CSR [n_items, n_items]; B_ji weighs item j of a history for item i.

    Raises:
        ValueError: the regression cannot be solved in float32.
    """
    return cached_graph(
        folder,
        "ridge",
        {"interactions": interactions, "content": content},
        {"k": k, **weights},
        lambda: largest_into_each(ridge_weights(interactions, content, **weights), k),
    )
