"""Collaborative signals: an item-item graph from training interactions."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.display.progress import progress
from recbole_sigrec.graph.cache import cached_graph

MEASURES = ("cosine", "jaccard", "count", "random_walk")
BYTES_PER_ENTRY = 64  # of a block of RᵀR while its top k are selected, if all are tied
EXACT_IN_FLOAT32 = 2**24  # all integers up to here

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, columns and values of a matrix."""


def collaborative_topk(
    interactions: sp.csr_matrix,
    k: int,
    measure: str = "cosine",
    symmetric: bool = True,
    memory_mb: float = 512,
) -> sp.csr_matrix:
    """The top-k collaborative item graph C of RᵀR without its diagonal, before normalisation.

    Source: the paper (arXiv 2508.06154) extracts collaborative signals from the user-item graph as
    a top-k item graph; the measure is our choice. With c_ij the number of users of both i and j and
    n_i those of i: ``cosine`` c_ij/√(n_i n_j), ``jaccard`` c_ij/(n_i + n_j − c_ij), ``count`` c_ij,
    ``random_walk`` Σ_u R_ui R_uj/(n_i d_u), the two-step walk from i through a user u of degree d_u
    to j (which also has its diagonal removed).

    The graph depends neither on ``memory_mb`` nor on the number of threads.

    Args:
        interactions: binary R [n_users, n_items] of the *training* interactions alone.
        k: neighbours kept per item; ties go to the smaller item id (``random_walk``, a sum of
            rounded numbers, is compared in float32; the others exactly).
        symmetric: keep an edge in both directions if either end has it (maximum of C and Cᵀ).
        memory_mb: bound on the blocks of RᵀR of all threads together, in MiB; a single row may
            exceed it.

    Returns:
        float32 CSR [n_items, n_items].

    Cost: Σ_u d_u² multiply-adds; memory: ``memory_mb``, and 8 bytes per interaction.

    Raises:
        ValueError: the measure is unknown or k is not positive.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure [{measure}] is unknown; use one of {', '.join(MEASURES)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    threads = torch.get_num_threads()  # blocks computed at a time
    right = sp.csr_matrix(interactions, dtype=np.float32)
    left = right.T.tocsr()  # [n_items, n_users]
    n_i = np.diff(left.indptr).astype(np.float64)  # users per item
    degree = np.diff(right.indptr).astype(np.float64)  # items per user
    # A row of RᵀR has at most as many entries as its users have items.
    entries = np.minimum(left @ degree, left.shape[0])
    bounds = _block_bounds(entries, memory_mb * 2**20 / BYTES_PER_ENTRY / threads)
    if measure == "random_walk":
        right = sp.csr_matrix(sp.diags(1.0 / np.maximum(degree, 1.0)) @ right)
    elif n_i.max(initial=0.0) > EXACT_IN_FLOAT32:
        right = right.astype(np.float64)

    def top(start: int, stop: int) -> Entries:
        return _top_of_block(sp.csr_matrix(left[start:stop] @ right), start, n_i, measure, k)

    with ThreadPoolExecutor(threads) as pool:  # SciPy and NumPy compute without Python's lock
        done, n = pool.map(top, bounds[:-1], bounds[1:]), len(bounds) - 1
        blocks = list(progress("common users", done, "blocks", total=n))
    row, column, value = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    graph = sp.csr_matrix((value, (row, column)), shape=(len(n_i), len(n_i)), dtype=np.float32)
    return graph.maximum(graph.T).tocsr() if symmetric else graph


def longest_history(interactions: sp.csr_matrix) -> int:
    """What ``collab_max_history: auto`` is: ten times the median number of items of a user.

    Users without items do not count. Our choice.

    Args:
        interactions: binary R [n_users, n_items].
    """
    degree = np.diff(interactions.indptr)
    return int(10 * np.median(degree[degree > 0]))


def without_long_histories(interactions: sp.csr_matrix, limit: int | None) -> sp.csr_matrix:
    """The rows (users) with at most ``limit`` entries; what is left out is logged. None: all.

    Our choice, for :func:`collaborative_topk`: a user of d_u items adds d_u² pairs, and who took
    nearly everything, as a crawler does, hardly tells items apart.
    """
    degree = np.diff(interactions.indptr)
    if limit is None or (degree <= limit).all():
        return interactions
    long = degree > limit
    logging.getLogger().warning(
        f"collaborative graph: {long.sum()} histories of more than {limit} are left out, "
        f"{degree[long].sum()} of {degree.sum()} training interactions"
    )
    return interactions[~long]


def _block_bounds(sizes: np.ndarray, limit: float) -> list[int]:
    """Bounds of consecutive blocks, each of at most ``limit`` in sum or of one element."""
    total = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(sizes):
        start = bounds[-1]
        before = total[start - 1] if start else 0.0
        bounds.append(max(start + 1, int(np.searchsorted(total, before + limit, side="right"))))
    return bounds


def _top_of_block(
    counts: sp.csr_matrix, start: int, n_i: np.ndarray, measure: str, k: int
) -> Entries:
    """The k best of each row of a block of RᵀR, as (row, column, value).

    Args:
        counts: the block's rows [block, n_items], ids ``start`` onwards; columns in any order.
        n_i: users of each item [n_items].
    """
    length = np.diff(counts.indptr)
    row = np.repeat(np.arange(start, start + len(length), dtype=np.int32), length)
    column, c = counts.indices, counts.data
    rank = _rank(c, n_i, row, column, measure)
    rank[row == column] = 0.0  # all others are positive
    threshold = np.zeros(len(length))  # the k-th best of each row that is longer
    for i in np.flatnonzero(length > k):
        values = rank[counts.indptr[i] : counts.indptr[i + 1]]
        threshold[i] = np.partition(values, len(values) - k)[len(values) - k]
    keep = rank >= np.repeat(threshold, length)
    keep &= rank > 0
    row, column, c, rank = row[keep], column[keep], c[keep].astype(np.float64), rank[keep]
    best = _top_per_row(row, column, rank, k)  # the k-th may be tied
    row, column, c = row[best], column[best], c[best]
    if measure == "cosine":
        c = c / np.sqrt(n_i[row] * n_i[column])
    elif measure == "jaccard":
        c = c / (n_i[row] + n_i[column] - c)
    elif measure == "random_walk":
        c = c / n_i[row]
    return row, column, c.astype(np.float32)


def _rank(
    c: np.ndarray, n_i: np.ndarray, row: np.ndarray, column: np.ndarray, measure: str
) -> np.ndarray:
    """Numbers that order a row as the measure does, and are equal where it is equal.

    One division of integers is rounded correctly, so equal quotients are equal numbers; hence the
    square of the cosine, without the n_i that is the same in the whole row.
    """
    if measure == "random_walk":
        return c.astype(np.float32)
    rank = c.astype(np.float64)
    if measure == "cosine":
        rank *= rank
        rank /= n_i[column]
    elif measure == "jaccard":
        union = n_i[row]
        union += n_i[column]
        union -= rank
        rank /= union
    return rank


def _top_per_row(row: np.ndarray, column: np.ndarray, rank: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest ranks of each row; ties to the smaller column."""
    order = np.lexsort((column, -rank, row))
    row = row[order]
    first = np.searchsorted(row, row, side="left")
    return order[np.arange(len(row)) - first < k]


def collaborative_graph(config: Any, interactions: sp.csr_matrix) -> sp.csr_matrix:
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
    limit = config["collab_max_history"]
    if limit == "auto":
        limit = longest_history(interactions)
    interactions = without_long_histories(interactions, limit)
    memory_mb = config["graph_memory_mb"]
    return cached_graph(
        config["graph_cache_dir"],
        "collaborative",
        {"interactions": interactions},
        parameters,
        lambda: collaborative_topk(interactions, memory_mb=memory_mb, **parameters),
    )
