"""The graph of the largest ridge weights into each item: from the inverse, or without it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.graph.cache import cached_graph
from recbole_sigrec.graph.ridge import largest_into_each, ridge_weights
from recbole_sigrec.graph.ridge_columns import largest_ridge_weights


def ridge_graph(
    folder: str | None,
    interactions: sp.csr_matrix,
    content: np.ndarray,
    k: int,
    max_items: int,
    **weights: float,
) -> sp.csr_matrix:
    """The k largest positive ridge weights into each item; see :func:`ridge_weights`.

    Args:
        folder: where the graphs are kept; ``None``: nowhere.
        interactions: binary R [n_users, n_items] of the training interactions.
        content: Z, float32 [n_items, d].
        max_items: up to so many items, [PAD] aside, the inverse of all items is held; with more,
            :func:`largest_ridge_weights` solves for some columns at a time.
        weights: ``content_weight`` and ``reg_weight`` of :func:`ridge_weights`.

    Returns:
        float32 CSR [n_items, n_items]; B_ji weighs item j of a history for item i.

    Raises:
        ValueError: the regression cannot be solved in float32.
    """
    many = len(content) - 1 > max_items

    def build() -> sp.csr_matrix:
        if many:
            return largest_ridge_weights(interactions, content, k, **weights)
        return largest_into_each(ridge_weights(interactions, content, **weights), k)

    return cached_graph(
        folder,
        "ridge_columns" if many else "ridge",
        {"interactions": interactions, "content": content},
        {"k": k, **weights},
        build,
    )
