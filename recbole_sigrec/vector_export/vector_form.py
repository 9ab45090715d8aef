"""A model's scores as inner products of vectors that are partly sparse.

The product of the learned vectors alone is not the score where an item graph has a share in it, see
:class:`recbole_sigrec.serving.scores.Scorer`. With f_u the factor of the graph's scores, this is:

    score_ui = q_u · v_i + g_u · B_:,i,    q_u = [e_u, 1],  v_i = [e_i, c_i],  g_u = f_u h_u,

h_u the user's history as a vector of zeros and ones, and B_:,i the graph's weights into item i. The
1 and c_i are there if the model has offsets c. A model without vectors and offsets has one zero in
their place, and one without an item graph an empty B.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from recbole_sigrec import __version__
from recbole_sigrec.serving.recommender import Recommender

FORMULA = (
    "score(user, item) = dot(user vector, item vector) "
    "+ factor of the user * sum of the item's graph weights at the items of the user's history"
)
_BATCH = 1024  # users whose factors are found at a time


@dataclasses.dataclass(frozen=True)
class VectorForm:
    """What scores, and whom and what.

    Attributes:
        users, items: tokens; their places are the rows below.
        user_vectors: q, float32 [n_users, d].
        item_vectors: v, float32 [n_items, d].
        graph: B, float32 CSC [n_items, n_items].
        histories: h, binary CSR [n_users, n_items].
        factors: f, float32 [n_users].
        seen: CSR [n_users, n_items], what is not recommended to them.
        columns: what is known of each item.
        about: model, data set, and how they are exported.
    """

    users: list[str]
    items: list[str]
    user_vectors: np.ndarray
    item_vectors: np.ndarray
    graph: sp.csc_matrix
    histories: sp.csr_matrix
    factors: np.ndarray
    seen: sp.csr_matrix
    columns: list[dict[str, Any]]
    about: dict[str, Any]

    @cached_property
    def graph_queries(self) -> sp.csr_matrix:
        """g, float32 CSR [n_users, n_items]."""
        scaled = sp.csr_matrix(sp.diags(self.factors) @ self.histories, dtype=np.float32)
        scaled.eliminate_zeros()
        return scaled

    def manifest(self, target: str, ranking: str) -> dict[str, Any]:
        """What an export says of itself.

        Args:
            target: its kind, ``parquet`` and so on.
            ranking: how one ranks with it.
        """
        return {"export": target, **self.about, "formula": FORMULA, "ranking": ranking}


def vector_form(recommender: Recommender) -> VectorForm:
    """That of a bundle.

    Raises:
        DataError: the bundle was exported without histories, and the model scores with them.

    Cost: the graph's edges of all histories, in batches; memory: a copy of the vectors.
    """
    scorer, queries = recommender.scorer, recommender.known_users(np.arange(len(recommender.users)))
    n_users, n_items = len(queries), len(recommender.items)
    nobody = sp.csr_matrix((n_users, n_items), dtype=np.float32)
    histories = nobody if queries.histories is None else queries.histories
    factors = np.ones(n_users, dtype=np.float32)
    if isinstance(scorer.graph, sp.csr_matrix):
        for start in range(0, n_users, _BATCH):
            part = queries[start : start + _BATCH]
            assert part.histories is not None
            factors[start : start + _BATCH] = scorer.graph_scores(part.vectors, part.histories)[1]
    elif scorer.graph is None:
        histories = nobody
    graph = (n_items, n_items) if scorer.graph is None else scorer.graph
    graph = sp.csc_matrix(graph, dtype=np.float32)
    graph.sum_duplicates()  # and sorts
    offset = scorer.offset
    ones = None if offset is None else np.ones(n_users)
    names, manifest = recommender.items.names, recommender.manifest
    about = {
        "made_by": f"recbole_sigrec {__version__}",
        "model": manifest["model"],
        "dataset": manifest["dataset"],
        "n_users": n_users,
        "n_items": n_items,
        "exact": True,
        "left_out": "what a user took in the training and validation parts"
        if queries.seen is not None
        else "nothing: the bundle was exported without histories, so that it is not known",
    }
    return VectorForm(
        users=queries.names,
        items=names.tolist(),
        user_vectors=_joined(queries.vectors, ones, n_users),
        item_vectors=_joined(scorer.item_vectors, offset, n_items),
        graph=graph,
        histories=histories,
        factors=factors,
        seen=nobody if queries.seen is None else queries.seen,
        columns=[dict(zip(recommender.columns, row)) for row in _rows(recommender)],
        about=about,
    )


def _joined(vectors: np.ndarray | None, last: np.ndarray | None, n: int) -> np.ndarray:
    """Vectors and one more column, where they are there; never without columns."""
    parts = [] if vectors is None else [vectors]
    parts += [] if last is None else [last[:, None]]
    return np.ascontiguousarray(np.hstack(parts or [np.zeros((n, 1))]), dtype=np.float32)


def _rows(recommender: Recommender) -> list[tuple[Any, ...]]:
    columns = recommender.columns
    return list(zip(*columns.values())) if columns else [()] * len(recommender.items)


def entries(matrix: sp.csr_matrix | sp.csc_matrix, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and data of a row of CSR, or of a column of CSC."""
    part = slice(matrix.indptr[place], matrix.indptr[place + 1])
    return matrix.indices[part], matrix.data[part]
