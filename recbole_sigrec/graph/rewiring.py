"""Semantic graphs with wrong edges, to test how models stand them."""

from __future__ import annotations

import zlib

import numpy as np
import scipy.sparse as sp

_ROUNDS = 100  # of drawing a target again, before an edge is left as it is
_REWIRE = 2  # the random stream; other corruptions have 0 and 1


def rewire(graph: sp.csr_matrix, mask: np.ndarray, share: float, seed: int) -> sp.csr_matrix:
    """Let edges lead to another item; they keep their source and their weight.

    The new target is drawn from the items that have the modality, but not the source itself, nor
    an item to which it had, or has got, an edge. An edge for which there is none stays.

    Args:
        graph: [n, n].
        mask: bool [n], which items have the modality.
        share: of the edges.
        seed: decides with the graph on the edges and their targets.

    Returns:
        float32 CSR [n, n] with as many entries.
    """
    edges = graph.tocoo()
    row, column = edges.row.astype(np.int64), edges.col.astype(np.int64)
    rng = np.random.default_rng([seed, _REWIRE, zlib.crc32(column.tobytes())])
    moved = rng.permutation(len(row))[: round(share * len(row))]
    n = len(mask)
    known = row * n + column
    items, target = np.flatnonzero(mask), column.copy()
    left = moved
    for _ in range(_ROUNDS):
        target[left] = rng.choice(items, len(left))
        key = row[moved] * n + target[moved]
        first = np.zeros(len(moved), dtype=bool)
        first[np.unique(key, return_index=True)[1]] = True
        good = first & (target[moved] != row[moved]) & ~np.isin(key, known)
        left = moved[~good]
        if len(left) == 0:
            break
    target[left] = column[left]
    return sp.csr_matrix((edges.data, (row, target)), shape=graph.shape, dtype=np.float32)
