"""A subgraph from the two ends of a user-item graph's spectrum (PGL, AAAI 2025)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from recbole_sigrec.graph.adjacency import normalize
from recbole_sigrec.graph.cache import cached_graph

_ROWS = 256  # users whose entries are dense at a time


def spectral_graph(config: Any, interactions: sp.csr_matrix, rank: int) -> sp.csr_matrix:
    """:func:`spectral_subgraph`, made or read from the cache, ``config["graph_cache_dir"]``."""
    build = functools.partial(spectral_subgraph, interactions, rank)
    arrays = {"interactions": interactions}
    return cached_graph(config["graph_cache_dir"], "spectral", arrays, {"rank": rank}, build)


def spectral_subgraph(
    interactions: sp.csr_matrix, rank: int, threshold: float = 1e-3
) -> sp.csr_matrix:
    """B, whose singular values are products of the largest and of the last of Â's first d ones.

    Let Â be the normalised user-item graph, s_1 ≥ … ≥ s_d its d largest singular values, p_i and
    q_i their vectors, and q = ⌊d/4⌋. Then B = Σ_{i ≤ q} s_i s_{d−q+i} p_i q_iᵀ, without entries
    below a threshold. It is not normalised, and entries may be negative.

    Â's singular values come in equal pairs, one pair for each of R̂, its user-item block. So B is
    [[0, C], [Cᵀ, 0]] with C made of the first ⌊d/8⌋ singular triples of R̂, and of the last ⌊d/8⌋ of
    its first ⌊d/2⌋ values; where q or d is odd, one value is left out, lest a pair be parted. Each
    connected part of the graph brings a singular value of 1. Where there are more than ⌊d/8⌋ parts,
    B is not unique, and may be of small parts alone: a fixed start of the SVD chooses.

    Cost: a sparse SVD of ⌊d/2⌋ triples, and n_users·n_items·d/8 multiply-adds; memory: blocks of
    256 users.

    Args:
        interactions: binary R [n_users, n_items].
        rank: d.
        threshold: the least modulus of an entry.

    Returns:
        float32 CSR [n_users + n_items, n_users + n_items], users first.
    """
    r = normalize(interactions).astype(np.float64)
    smaller = min(interactions.get_shape())
    n = max(1, min(rank // 2, smaller - 1))
    start = np.random.default_rng(0).standard_normal(smaller)
    u, s, vt = (np.asarray(part) for part in svds(r, k=n, v0=start))
    order, kept = np.argsort(-s), max(1, n // 4)
    first, last = order[:kept], order[-kept:]
    left, right = u[:, first] * (s[first] * s[last]), vt[first]
    blocks = []
    for row in range(0, len(left), _ROWS):
        block = left[row : row + _ROWS] @ right
        block[np.abs(block) < threshold] = 0.0
        blocks.append(sp.csr_matrix(block, dtype=np.float32))
    c = sp.vstack(blocks)
    return sp.csr_matrix(sp.bmat([[None, c], [c.T, None]], format="csr"))
