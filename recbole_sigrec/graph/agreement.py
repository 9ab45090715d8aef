"""Semantic graphs whose edges all modalities agree on (DA-MRS, DOI 10.1145/3637528.3671703)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.graph.cache import cached_graph
from recbole_sigrec.graph.rewiring import rewire
from recbole_sigrec.graph.unit_rows import unit_rows
from recbole_sigrec.kernels.products import matmul_nt

_ENTRIES = 2**23  # similarities of a block of rows, in each modality


def agreeing_neighbors(
    features: Mapping[str, torch.Tensor], mask: Mapping[str, torch.Tensor], k: int
) -> dict[str, sp.csr_matrix]:
    """In each modality the k most similar rows of each, among those that all modalities keep.

    A modality keeps a pair whose cosine is at least the mean over all pairs of its rows, the rows
    with themselves among them. That mean is ‖Σ_i x_i/‖x_i‖‖² / n², hence never negative. A modality
    that either row of a pair lacks has no edge for it, and no say in the others. A row is its own
    neighbour.

    Args:
        features: modality name → [n, d_m].
        mask: modality name → bool [n], which rows have it.
        k: neighbours of a row, at most; there are fewer where the modalities keep fewer.

    Returns:
        Modality name → float32 CSR [n, n] with entries 1.

    Cost: n²·Σ d_m multiply-adds; memory: a copy of the features, and blocks of rows, never n × n.
    """
    unit = {name: unit_rows(x).where(mask[name][:, None], 0.0) for name, x in features.items()}
    mean = {
        name: (x.sum(dim=0, dtype=torch.float64).square().sum() / mask[name].sum() ** 2).item()
        for name, x in unit.items()
    }
    n = len(next(iter(unit.values())))
    size = max(1, _ENTRIES // n)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in unit}
    for start in range(0, n, size):
        now = slice(start, start + size)
        cosine = {name: matmul_nt(x[now], x) for name, x in unit.items()}
        both = {name: mask[name][now, None] & mask[name] for name in unit}
        kept = functools.reduce(
            torch.logical_and, [(cosine[name] >= mean[name]) | ~both[name] for name in unit]
        )
        for name, values in cosine.items():
            best, near = values.where(kept & both[name], 0.0).topk(min(k, n), dim=1)
            row, place = (best > 0).nonzero(as_tuple=True)
            found[name].append(torch.stack([row + start, near[row, place]]))
    graphs = {}
    for name, blocks in found.items():
        row, column = torch.cat(blocks, dim=1).numpy()
        ones = np.ones(len(row), dtype=np.float32)
        graphs[name] = sp.csr_matrix((ones, (row, column)), shape=(n, n))
    return graphs


def agreement_graphs(
    config: Any, features: Mapping[str, torch.Tensor], mask: Mapping[str, torch.Tensor]
) -> dict[str, sp.csr_matrix]:
    """Those of :func:`agreeing_neighbors`, built or read from the cache, by a model's config.

    A share of the edges is rewired where the config says so.

    Args:
        config: with ``knn_k, graph_cache_dir, rewired_edges`` and ``corruption_seed``.
        features, mask: as for :func:`agreeing_neighbors`.
    """
    share, seed = config["rewired_edges"], config["corruption_seed"]
    parameters = {"k": config["knn_k"], **({"share": share, "seed": seed} if share else {})}
    arrays = {f"features {name}": x for name, x in features.items()}
    arrays |= {f"mask {name}": has for name, has in mask.items()}
    built = functools.cache(lambda: agreeing_neighbors(features, mask, config["knn_k"]))

    def build(name: str) -> sp.csr_matrix:
        graph = built()[name]
        return rewire(graph, np.asarray(mask[name]), share, seed) if share else graph

    folder = config["graph_cache_dir"]
    return {
        name: cached_graph(
            folder, "agreement", arrays, {**parameters, "name": name}, lambda n=name: build(n)
        )
        for name in features
    }
