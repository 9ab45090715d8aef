"""Ranking with a FAISS index and an item graph, as the model does.

Why the ranking is exact. Let S be the items whose graph score has a term for the user (the entries
of the sparse product g_u B), and X = S ∪ seen. An item outside S scores by its dense product alone.
The candidates are all items of S that are not seen, and the k best items outside X by the dense
product, which the index finds with X filtered out. Take an item that is not seen and no candidate.
It is not in S, hence outside X, and there k items score no lower than it: it need not be among the
best k. Nothing is assumed of the graph scores' signs. An index that cannot filter gives the same
from its best k + |X|, of which at most |X| are in X.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError
from typing_extensions import Self

from recbole_sigrec.errors import DataError
from recbole_sigrec.extras import need
from recbole_sigrec.serving.ranked_lists import Ranking
from recbole_sigrec.serving.token_rows import Tokens
from recbole_sigrec.tensor_files import csr_of, map_tensors
from recbole_sigrec.vector_export.existing import kind
from recbole_sigrec.vector_export.vector_form import entries

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class FaissIndex:
    """Ranks for known users as the model does, with FAISS.

    Attributes:
        index: of the item vectors v.
        users, items: the tokens.
        user_vectors: q, float32 [n_users, d].
        graph, graph_queries, seen: B, g and what is left out, CSR.
    """

    index: Any
    users: Tokens
    items: Tokens
    user_vectors: np.ndarray
    graph: sp.csr_matrix
    graph_queries: sp.csr_matrix
    seen: sp.csr_matrix

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder of ``recbole-sigrec export --to faiss``.

        Raises:
            DataError: it is none, or a file is damaged.
        """
        faiss, path = need("faiss", "FaissIndex"), Path(folder)
        if kind(path) != "faiss":
            raise DataError(f"{path} is no folder of recbole-sigrec export --to faiss")
        try:
            users, items = (
                Tokens(name, json.loads((path / f"{name}s.json").read_text("utf-8")))
                for name in ("user", "item")
            )
            arrays = map_tensors(path / "arrays.safetensors")
            index = faiss.read_index(str(path / "items.faiss"))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DataError(f"{path} cannot be read: {error}; export it again") from None

        sizes = {"graph": len(items), "graph_queries": len(users), "seen": len(users)}
        matrices: Any = (csr_of(arrays, name, (n, len(items))) for name, n in sizes.items())
        return cls(index, users, items, arrays["users.vectors"], *matrices)

    def search(self, users: Iterable[Any], k: int = 10) -> pd.DataFrame:
        """The best items of users that they have not seen.

        Returns:
            As :meth:`recbole_sigrec.serving.recommender.Recommender.recommend`.

        Raises:
            DataError: a user is unknown, or k is not from 1 to the number of items.
        """
        if not 1 <= k <= len(self.items):
            raise DataError(f"k = [{k}]: give a whole number from 1 to {len(self.items)} (items)")
        rows = self.users.find(users)
        found = Ranking(self.users.names[rows].tolist(), [], [])
        graph_scores = sp.csr_matrix(self.graph_queries[rows] @ self.graph)
        for place, row in enumerate(rows):
            items, scores = self._best(row, *entries(graph_scores, place), k)
            found.items.append(self.items.names[items])
            found.scores.append(scores)
        return found.frame()

    def _best(
        self, user: int, reached: np.ndarray, graph_scores: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of the best items, see the module's text; ``reached`` is S."""
        faiss = need("faiss", "FaissIndex")
        vector, seen = self.user_vectors[[user]], entries(self.seen, user)[0]
        outside = np.ones(len(self.items), dtype=bool)
        outside[reached] = outside[seen] = False
        bitmap = faiss.IDSelectorBitmap(np.packbits(outside, bitorder="little"))
        filtered = faiss.SearchParameters(sel=bitmap)
        dense, others = self.index.search(vector, k, params=filtered)
        there = others[0] >= 0  # FAISS fills up with -1
        new = ~np.isin(reached, seen)
        reached, graph_scores = reached[new], graph_scores[new]
        scores = self.index.reconstruct_batch(reached) @ vector[0] + graph_scores
        items = np.concatenate([others[0][there], reached])
        scores = np.concatenate([dense[0][there], scores])
        best = np.lexsort((items, -scores))[:k]
        return items[best], scores[best]
