"""Features of items without a modality, from their neighbours."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.config import Config
from recbole_sigrec.graph.collaborative import collaborative_topk, without_long_histories
from recbole_sigrec.graph.semantic import semantic_graph

NEIGHBOURS = 10  # of an item in each other modality, and in the training histories
LONGEST_HISTORY = 10_000  # users with more items tell nothing about which belong together


def impute_from_neighbours(
    features: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
    interactions: sp.csr_matrix,
    config: Config,
) -> dict[str, dict[str, int]]:
    """Fill, in place, the rows of items without a modality.

    Each such row becomes the mean of the rows of, where there are any that have the modality,

    1. the item's ``NEIGHBOURS`` nearest items by cosine in each other modality that it has (one
       that is near in two counts twice), else
    2. the ``NEIGHBOURS`` items most often in its training histories, by the cosine of
       :func:`collaborative_topk`, else
    3. all items.

    Only rows that the masks mark as present are used, so the order of the modalities is of no
    consequence and a second call changes nothing. Row 0, the padding item, stays zero.

    Args:
        features: name → float32 [n_items, d_m], filled.
        masks: name → bool [n_items], which items have the modality.
        interactions: binary R [n_users, n_items] of the *training* interactions alone.
        config: with ``knn_search, graph_memory_mb`` and ``graph_cache_dir``.

    Returns:
        For each modality with missing rows how many come from ``graph neighbours``,
        ``co-interacted items`` and ``mean``.

    Cost: that of the graphs, each of which is made only if a row needs it.
    """
    semantic: dict[str, sp.csr_matrix] = {}
    collaborative = None
    sources = {}
    for name, values in features.items():
        mask = masks[name].numpy()
        missing = np.flatnonzero(~mask[1:]) + 1
        if len(missing) == 0:
            continue
        rows = values.numpy()
        others = [other for other in features if other != name]
        for other in others:
            if other not in semantic and masks[other][missing].any():
                semantic[other] = _nearest(config, features[other], masks[other])
        near = [semantic[other] for other in others if other in semantic]
        unfilled = missing
        if near:
            unfilled = _fill(rows, missing, functools.reduce(operator.add, near), mask)
        by_graph = len(missing) - len(unfilled)
        if len(unfilled):
            if collaborative is None:
                collaborative = collaborative_topk(
                    without_long_histories(interactions, LONGEST_HISTORY),
                    NEIGHBOURS,
                    symmetric=False,
                    memory_mb=config["graph_memory_mb"],
                )
                collaborative.data[:] = 1.0
            unfilled = _fill(rows, unfilled, collaborative, mask)
        rows[unfilled] = rows.mean(axis=0, where=mask[:, None])
        sources[name] = {
            "graph neighbours": by_graph,
            "co-interacted items": len(missing) - by_graph - len(unfilled),
            "mean": len(unfilled),
        }
    return sources


def _nearest(config: Config, features: torch.Tensor, mask: torch.Tensor) -> sp.csr_matrix:
    """An entry of 1 for each item's nearest items by content."""
    return semantic_graph(
        config, features, mask, k=NEIGHBOURS, include_self=False, weight="binary", symmetric=False
    )


def _fill(rows: np.ndarray, items: np.ndarray, near: sp.csr_matrix, mask: np.ndarray) -> np.ndarray:
    """Set the rows of ``items`` to the mean of their neighbours in ``mask``.

    Shapes: rows [n_items, d], items [n], near [n_items, n_items], mask [n_items].

    Returns:
        The items that have no such neighbour, which are left as they are.
    """
    weights = near[items].multiply(mask).tocsr()
    total = np.asarray(weights.sum(axis=1)).ravel()
    some = total > 0
    rows[items[some]] = (weights[some] @ rows) / total[some, None]
    return items[~some]
