"""The constant item-item graphs of the models: k-NN of each modality, and their mixture."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Literal

import scipy.sparse as sp
import torch

from recbole_sigrec.config import Config, Keys, setting
from recbole_sigrec.graph import SparseGraph, normalize, semantic_graph
from recbole_sigrec.model.modality_weights import weights_of_modalities

PUBLISHED_WEIGHTS: dict[str, float] = {"image": 0.1, "text": 0.9}
"""Those of FREEDOM (arXiv 2211.06924), which DRAGON, MENTOR and PGL took over."""


class ItemGraphKeys(Keys):
    """The keys of the semantic graphs."""

    knn_k: int = setting("k of the semantic graphs", ge=1)
    knn_self: bool = setting("count an item as its own semantic neighbour")
    knn_weight: Literal["binary", "cosine"] = setting("edge weights of the semantic graphs")
    knn_symmetric: bool = setting("keep an edge in both directions if either end has it")


class MixedItemGraphKeys(ItemGraphKeys):
    """The keys of one mixed item graph, and of propagation over it."""

    n_item_layers: int = setting("L_ii, layers on the item graph", ge=0)
    modality_weights: dict[str, float] | None = setting(
        "α: {modality: its share of the item graph}"
    )


def item_graphs(
    config: Config, features: Mapping[str, torch.Tensor], mask: Mapping[str, torch.Tensor]
) -> dict[str, sp.csr_matrix]:
    """The k-NN graph of each modality, D^{-1/2} S D^{-1/2} with D the row sums.

    Args:
        config: with the keys of :class:`ItemGraphKeys`.
        features: modality name → [n_items, d_m].
        mask: modality name → bool [n_items], which items have it; the others have no edge.

    Returns:
        Modality name → float32 CSR [n_items, n_items].
    """
    return {
        name: normalize(semantic_graph(config, x, mask[name]), "out")
        for name, x in features.items()
    }


def mixed_item_graph(
    config: Config, features: Mapping[str, torch.Tensor], mask: Mapping[str, torch.Tensor]
) -> SparseGraph:
    """Σ_m α_m S^m of :func:`item_graphs` (FREEDOM, arXiv 2211.06924, Eq. 3): [n_items, n_items].

    Args:
        config: with the keys of :class:`MixedItemGraphKeys`. Without ``modality_weights`` α is as
            published where the modalities are image and text, else all are equal.
        features, mask: as for :func:`item_graphs`.
    """
    given, graphs = config["modality_weights"], item_graphs(config, features, mask)
    weights = weights_of_modalities(list(graphs), given, PUBLISHED_WEIGHTS)
    parts = [weight * graphs[name] for name, weight in weights.items()]
    return SparseGraph(functools.reduce(operator.add, parts))
