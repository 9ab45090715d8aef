"""Small bundles made of arrays, for the tests of what is served."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.serving.bundle import Bundle
from recbole_sigrec.serving.new_users import fitted_maps
from recbole_sigrec.serving.recommender import Recommender

N_USERS, N_ITEMS, D = 30, 24, 5


def histories(seed: int = 0, n_users: int = N_USERS, n_items: int = N_ITEMS) -> sp.csr_matrix:
    """Random ones of 3 to 6 items."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((n_users, n_items), dtype=np.float32)
    for row in dense:
        row[rng.choice(n_items, rng.integers(3, 7), replace=False)] = 1
    return sp.csr_matrix(dense)


def normal(seed: int, *shape: int) -> np.ndarray:
    """Random numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def recommender(
    training: sp.csr_matrix,
    users: np.ndarray | None = None,
    items: np.ndarray | None = None,
    graph: np.ndarray | sp.csr_matrix | None = None,
    content: dict[str, np.ndarray] | None = None,
    **more: np.ndarray,
) -> Recommender:
    """That of users u0, u1, … and items i0, i1, …

    Args:
        training: binary [n_users, n_items].
        users, items: vectors.
        graph: the item graph, of weight 0.5.
        content: modality → the features; an item with a zero row lacks the modality.
        more: further arrays of the bundle, dots in their names as double underscores.
    """
    n_users, n_items = training.shape
    arrays: dict[str, Any] = {
        "items.count": np.asarray(training.sum(axis=0)).ravel().astype(np.int32),
        "training.indptr": training.indptr,
        "training.indices": training.indices,
        **{name.replace("__", "."): array for name, array in more.items()},
    }
    if users is not None and items is not None:
        fitted, *_ = fitted_maps(training, users, items, arrays["items.count"])
        arrays |= {"users.vectors": users, "items.vectors": items, "fold_in.map": fitted}
    if isinstance(graph, np.ndarray):
        arrays["graph.dense"] = graph
    elif graph is not None:
        names = ("data", "indices", "indptr")
        arrays |= {f"graph.{name}": getattr(graph, name) for name in names}
    content = content or {}
    for name, rows in content.items():
        has = rows.any(axis=1)
        arrays |= {f"content.{name}": rows, f"has.{name}": has}
        arrays[f"mean.{name}"] = rows[has].mean(axis=0)
    scoring = {
        "item_score_weight": 0.5,
        "history_parts": [],
        "modality_weights": {name: 1 / len(content) for name in content},
    }
    tokens = [f"u{n}" for n in range(n_users)], [f"i{n}" for n in range(n_items)]
    return Recommender(Bundle({"scoring": scoring}, *tokens, arrays))


def sparse_graph(seed: int = 3, n: int = N_ITEMS) -> sp.csr_matrix:
    """Random weights, most of them zero, and zeros on the diagonal."""
    dense = np.maximum(normal(seed, n, n) - 0.7, 0)
    np.fill_diagonal(dense, 0)
    return sp.csr_matrix(dense)
