"""A score as a sum of addends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recbole_sigrec.serving.new_users import EXPONENT, weighted
from recbole_sigrec.serving.scores import Queries, Scorer

if TYPE_CHECKING:
    import pandas as pd

LEARNED = -1
"""The source that is no item of the history."""


def addends(scorer: Scorer, query: Queries, items: np.ndarray, is_new: bool) -> pd.DataFrame:
    """The addends of one user's scores.

    Args:
        query: of one user.
        items: int64 [n], rows of items.
        is_new: whether the user's vector is folded in, not trained.

    Returns:
        A table with the columns item (place in ``items``), part, source (row of an item of the
        history, or ``LEARNED``) and addend.
    """
    import pandas as pd

    history = query.histories
    taken = np.empty(0, np.int64) if history is None else history.indices.astype(np.int64)
    none = {"item": [], "part": [], "source": [], "addend": np.empty(0, np.float32)}
    tables = [pd.DataFrame(none)]

    def add(part: str, sources: np.ndarray, values: np.ndarray) -> None:
        """``values`` [sources, items]."""
        place, item = (index.ravel() for index in np.indices(values.shape))
        columns = {"item": item, "part": part, "source": sources[place], "addend": values.ravel()}
        tables.append(pd.DataFrame(columns))

    if query.vectors is not None and scorer.item_vectors is not None:
        sources, vectors = _by_source(scorer, query, taken, is_new)
        for name, rows in (scorer.parts or {"vector": scorer.item_vectors}).items():
            add(name, sources, vectors @ rows[items].T)
    if scorer.offset is not None:
        add("offset", np.array([LEARNED]), scorer.offset[None, items])
    if scorer.graph is not None and len(taken):
        values = scorer.graph_block(taken, items)
        if not isinstance(scorer.graph, np.ndarray) and history is not None:
            values = values * scorer.graph_scores(query.vectors, history)[1]
        add("item graph", taken, values)
    tables = tables[1:] or tables
    return pd.concat(tables, ignore_index=True).sort_values("item", kind="stable")


def _by_source(
    scorer: Scorer, query: Queries, taken: np.ndarray, is_new: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The sources int64 [s], and what each gives of the user's vector, float32 [s, d]."""
    vector, history = query.vectors, query.histories
    assert vector is not None and scorer.item_vectors is not None
    if history is None or not len(taken):
        return np.array([LEARNED]), vector
    if is_new:  # linear in the history
        weights = weighted(history, scorer.item_counts, EXPONENT).data[:, None]
        return taken, weights * (scorer.item_vectors[taken] @ scorer.fold_in_map)
    if not scorer.history_parts:
        return np.array([LEARNED]), vector
    rows = sum(scorer.parts[name][taken] for name in scorer.history_parts)
    of_items = weighted(history, scorer.item_counts).data[:, None] * rows
    rest = vector - of_items.sum(axis=0)
    return np.array([LEARNED, *taken]), np.concatenate([rest, of_items])
