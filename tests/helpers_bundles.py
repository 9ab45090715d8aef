"""Small bundles of random arrays, and their scores computed the slow, obvious way."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.serving.bundle import Bundle
from recbole_sigrec.serving.new_users import fitted_maps

N_USERS, N_ITEMS, D = 30, 40, 6
MODALITIES = {"image": 5, "text": 4}


def csr(name, matrix, data=False):
    matrix = sp.csr_matrix(matrix)
    arrays = {
        f"{name}.indptr": matrix.indptr.astype(np.int64),
        f"{name}.indices": matrix.indices.astype(np.int32),
    }
    return {**arrays, f"{name}.data": matrix.data.astype(np.float32)} if data else arrays


def random_bundle(
    kind: str = "vectors and graph", seed: int = 0, n_users: int = N_USERS, n_items: int = N_ITEMS
) -> Bundle:
    """A bundle of a model of some kind.

    Args:
        kind: ``vectors``, ``vectors and graph``, ``graph``, ``dense graph``, or ``dense and
            offset``.
    """
    rng = np.random.default_rng(seed)
    taken = rng.permuted(np.arange(n_users * n_items) % 7 == 0).reshape(n_users, n_items)
    taken[:, 0] = True  # nobody's history is empty
    valid = rng.permuted(np.arange(n_users * n_items) % 23 == 0).reshape(n_users, n_items) & ~taken
    arrays = {**csr("training", taken), **csr("validation", valid)}
    counts = taken.sum(axis=0).astype(np.int32)
    arrays["items.count"] = counts
    scoring = {"item_score_weight": 0.5, "history_parts": [], "modality_weights": {}}
    if "vectors" in kind:
        parts = {name: rng.normal(size=(n_items, D)) for name in ("behavior", *MODALITIES)}
        parts = {name: rows.astype(np.float32) for name, rows in parts.items()}
        items = sum(parts.values())
        sizes = taken.sum(axis=1)[:, None] * np.maximum(counts, 1)[None, :]
        of_history = (taken / np.sqrt(sizes)) @ (parts["image"] + parts["text"])
        users = (rng.normal(size=(n_users, D)) + of_history).astype(np.float32)
        arrays |= {"users.vectors": users, "items.vectors": items}
        arrays |= {f"parts.{name}": rows for name, rows in parts.items()}
        histories = sp.csr_matrix(taken.astype(np.float32))
        arrays["fold_in.map"] = fitted_maps(histories, users, items, counts)[0]
        scoring["history_parts"] = list(MODALITIES)
    if "graph" in kind or "dense" in kind:
        graph = rng.uniform(size=(n_items, n_items)).astype(np.float32)
        graph[graph < 0.7] = 0
        np.fill_diagonal(graph, 0)
        arrays |= {"graph.dense": graph} if "dense" in kind else csr("graph", graph, data=True)
    if "offset" in kind:
        arrays["items.offset"] = rng.normal(size=n_items).astype(np.float32)
    for name, width in MODALITIES.items():
        rows = rng.normal(size=(n_items, width)).astype(np.float32)
        has = np.arange(n_items) % 9 != len(name)
        rows[~has] = 0
        arrays |= {f"content.{name}": rows, f"has.{name}": has, f"mean.{name}": rows[has].mean(0)}
        scoring["modality_weights"][name] = 0.5
    manifest = {"model": "SIGRec", "dataset": "random", "scoring": scoring}
    columns = {
        "title": [f"Title <b>{n}</b> & more" for n in range(n_items)],
        "kind": [["toy", "book", "film"][n % 3] for n in range(n_items)],
    }
    users = [f"user {n}" for n in range(n_users)]
    return Bundle(manifest, users, [f"item {n}" for n in range(n_items)], arrays, columns)


def dense(bundle: Bundle, name: str) -> np.ndarray:
    """A matrix of a bundle, [users or items, items]."""
    arrays, n = bundle.arrays, len(bundle.items)
    indptr, indices = arrays[f"{name}.indptr"], arrays[f"{name}.indices"]
    data = arrays.get(f"{name}.data", np.ones(len(indices)))
    return sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, n)).toarray()


def slow_scores(bundle: Bundle) -> np.ndarray:
    """score_ui of all users and items, in float64, one user at a time."""
    arrays, n_items = bundle.arrays, len(bundle.items)
    training = dense(bundle, "training")
    scores = np.zeros((len(bundle.users), n_items))
    graph = None
    if "graph.dense" in arrays:
        graph = arrays["graph.dense"].astype(float)
    elif "graph.indptr" in arrays:
        graph = dense(bundle, "graph").astype(float)
    for user in range(len(bundle.users)):
        product = np.zeros(n_items)
        if "users.vectors" in arrays:
            product = arrays["items.vectors"].astype(float) @ arrays["users.vectors"][user]
        scores[user] = product + arrays.get("items.offset", 0)
        if graph is not None:
            s = sum((graph[j] for j in np.flatnonzero(training[user])), np.zeros(n_items))
            if "users.vectors" in arrays:
                weight = bundle.manifest["scoring"]["item_score_weight"]
                s = weight * product.std() / s.std() * s
            scores[user] += s
    return scores


def slow_top(scores, left_out, k):
    """The k best of one user's items that are not left out, best first."""
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))
    return [item for item in order if item not in left_out][:k]
