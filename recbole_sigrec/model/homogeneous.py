"""Users alone and items alone, over graphs of similarity and co-occurrence (REARM)."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config
from recbole_sigrec.graph import SparseGraph, infuse, normalize, propagate, semantic_graph
from recbole_sigrec.graph.cooccurrence import cooccurrence_topk, softmax_of_counts
from recbole_sigrec.model.base import RawFeatures, projections

Features = Mapping[str, torch.Tensor]
"""Modality name → [n, d_m], or bool [n]."""


class Homogeneous(nn.Module):
    """Unit rows of G^L (E ‖ W_m x^m + b_m …), of users or of items.

    A node that lacks a modality has zeros in the place of its projection.

    Args:
        graph: G [n, n].
        features: modality name → x^m [n, d_m].
        mask: modality name → bool [n], which nodes have it.
        size: d, of each projection.
        n_layers: L.
    """

    def __init__(
        self, graph: sp.csr_matrix, features: Features, mask: Features, size: int, n_layers: int
    ):
        super().__init__()
        self.graph, self.n_layers = SparseGraph(graph), n_layers
        self.has = RawFeatures(dict(mask), False)
        self.project = projections(dict(features), size)
        for layer in self.project.values():
            nn.init.xavier_normal_(layer.get_parameter("weight"))

    def forward(self, ids: torch.Tensor, features: RawFeatures) -> torch.Tensor:
        """E [n, d] → [n, (M + 1) d], a block of columns for the ids and for each modality."""
        parts = [ids]
        for name, project in self.project.items():
            parts.append(project(features[name]).where(self.has[name][:, None], 0.0))
        return F.normalize(propagate(self.graph, torch.cat(parts, dim=1), self.n_layers), dim=1)


def interests(
    interactions: sp.csr_matrix, features: Features, mask: Features
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The mean over each user's items that have a modality, and which users have such items.

    Shapes: R [n_users, n_items], features [n_items, d_m] → float32 [n_users, d_m], bool [n_users].
    """
    means, having = {}, {}
    for name, x in features.items():
        taken = sp.csr_matrix(interactions @ sp.diags(mask[name].numpy().astype(np.float32)))
        means[name] = torch.from_numpy(normalize(taken, "row") @ x.numpy())
        having[name] = torch.from_numpy(np.asarray(taken.sum(axis=1)).ravel() > 0)
    return means, having


def homogeneous_graph(
    config: Config,
    interactions: sp.csr_matrix,
    features: Features,
    mask: Features,
    weights: Mapping[str, float],
    k: int,
    share: float,
) -> sp.csr_matrix:
    """G = w · :func:`filled_cooccurrence` + (1 − w) · :func:`similarity_graph`: CSR [n, n].

    Args:
        interactions: binary R [n, m], or its transposed for the items.
        share: w.
        features, mask, weights, k: as for the latter.
    """
    together = filled_cooccurrence(interactions, k, config["seed"], config["graph_memory_mb"])
    return infuse(similarity_graph(config, features, mask, weights, k), together, share)


def similarity_graph(
    config: Config,
    features: Features,
    mask: Features,
    weights: Mapping[str, float],
    k: int,
) -> sp.csr_matrix:
    """Σ_m α_m C^m / k, C^m the k largest cosines of each row, the row itself among them.

    Args:
        features: modality name → float32 [n, d_m].
        mask: modality name → bool [n], which rows have it; the others have no edge.
        weights: modality name → α_m.

    Returns:
        float32 CSR [n, n].
    """
    fixed = {"include_self": True, "weight": "cosine", "symmetric": False}
    graphs = [
        (weights[name] / k) * semantic_graph(config, x, mask[name], k=k, **fixed)
        for name, x in features.items()
        if weights[name] > 0
    ]
    return functools.reduce(operator.add, graphs)


def filled_cooccurrence(
    interactions: sp.csr_matrix, k: int, seed: int, memory_mb: float = 512
) -> sp.csr_matrix:
    """For each row the k rows of most columns in common, weighed by the softmax of their numbers.

    A shorter list is filled up by draws of its members, with replacement. A row that has none takes
    the k rows of most columns, weighed by the softmax of their shares in these rows' columns.

    Args:
        interactions: binary R [n, m], or its transposed; row 0 is [PAD], which has no edge.
        seed: of the draws, so that a loaded model has the graph that it was trained with.

    Returns:
        float32 CSR [n, n]; its rows, but that of [PAD], add up to 1.
    """
    counts = cooccurrence_topk(interactions, k, memory_mb)
    start, length = counts.indptr[:-1], np.diff(counts.indptr)
    short = np.repeat(np.arange(len(length)), np.where(length > 0, k - length, 0))
    drawn = np.random.default_rng(seed).integers(length[short]) + start[short]
    times = 1 + np.bincount(drawn, minlength=counts.nnz)
    filled = softmax_of_counts(counts, times)

    degree = np.asarray(interactions.sum(axis=1)).ravel()
    popular = np.argsort(-degree, kind="stable")[:k]
    popular = popular[degree[popular] > 0]
    weight = np.exp(degree[popular] / degree[popular].sum())
    none = np.flatnonzero(length == 0)[1:]
    rows, columns = none.repeat(len(popular)), np.tile(popular, len(none))
    instead = sp.csr_matrix((np.tile(weight, len(none)), (rows, columns)), counts.shape)
    return filled + normalize(instead, "row")
