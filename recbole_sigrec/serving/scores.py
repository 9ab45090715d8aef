"""Scores of all items for users, by vectors, an item graph, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from typing_extensions import Self

from recbole_sigrec.kernels.graph_scores import scores_and_scales
from recbole_sigrec.serving.new_items import lengthened, unit, with_added
from recbole_sigrec.tensor_files import csr_of


@dataclasses.dataclass(frozen=True)
class Queries:
    """Those for whom items are scored.

    Attributes:
        names: who they are.
        vectors: float32 [n, d], where the model has vectors.
        histories: binary CSR [n, n_items], what the item graph scores with.
        seen: binary CSR [n, n_items], what they took in any part.
        popular: bool [n]; those of whom nothing is known, who get the most popular items.
    """

    names: list[Any]
    vectors: np.ndarray | None
    histories: sp.csr_matrix | None
    seen: sp.csr_matrix | None
    popular: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice) -> Queries:
        if rows.start == 0 and rows.stop >= len(self):
            return self

        def part(whole: Any) -> Any:
            return None if whole is None else whole[rows]

        parts = part(self.vectors), part(self.histories), part(self.seen)
        return Queries(self.names[rows], *parts, self.popular[rows])


@dataclasses.dataclass(frozen=True)
class Scorer:
    """What scores: score_ui = e_u · e_i + c_i + (γ σ_u(e · e) / σ_u(s)) s_ui, s the item graph's.

    Attributes:
        item_vectors: float32 [n_items, d], or None: the model is an item-item matrix alone, and its
            scores are not scaled.
        parts: name → float32 [n_items, d], addends of the vectors.
        history_parts: names of the parts whose sum over a user's training items, each by
            1/√(|h| c_j), is in the user's vector.
        graph: B, CSR or a dense array [n_items, n_items], or None.
        weight: γ.
        offset: c, float32 [n_items], or None.
        item_counts: training interactions of each item.
        fold_in_map: W of :mod:`recbole_sigrec.serving.new_users`.
        n_trained: the items of which the deviations are taken: those of the training, not added.
    """

    item_vectors: np.ndarray | None
    parts: dict[str, np.ndarray]
    history_parts: tuple[str, ...]
    graph: sp.csr_matrix | np.ndarray | None
    weight: float
    offset: np.ndarray | None
    item_counts: np.ndarray
    fold_in_map: np.ndarray | None
    n_trained: int

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], n_items: int, how: Mapping[str, Any]) -> Self:
        """That of a bundle's arrays and of its manifest's ``scoring``."""
        graph: sp.csr_matrix | np.ndarray | None = arrays.get("graph.dense")
        if graph is None:
            graph = csr_of(arrays, "graph", (n_items, n_items))
        parts = {n.removeprefix("parts."): a for n, a in arrays.items() if n.startswith("parts.")}
        return cls(
            item_vectors=arrays.get("items.vectors"),
            parts=parts,
            history_parts=tuple(how["history_parts"]),
            graph=graph,
            weight=how["item_score_weight"],
            offset=arrays.get("items.offset"),
            item_counts=arrays["items.count"],
            fold_in_map=arrays.get("fold_in.map"),
            n_trained=n_items,
        )

    @cached_property
    def unit_item_vectors(self) -> np.ndarray:
        """The item vectors with norm one."""
        assert self.item_vectors is not None
        return unit(self.item_vectors)

    @cached_property
    def _covariance(self) -> np.ndarray:
        assert self.item_vectors is not None
        trained = self.item_vectors[: self.n_trained]
        centred = trained - trained.mean(axis=0)
        return centred.T @ centred / len(centred)

    def spread(self, vectors: np.ndarray) -> np.ndarray:
        """σ_u(e · e) over the trained items. Shapes: float32 [n, d] → [n]."""
        return np.sqrt(np.maximum(((vectors @ self._covariance) * vectors).sum(axis=1), 0))

    def graph_scores(
        self, vectors: np.ndarray | None, histories: sp.csr_matrix
    ) -> tuple[sp.csr_matrix, np.ndarray]:
        """What a sparse item graph adds [n, n_items], and the factor of each row's s, [n]."""
        assert isinstance(self.graph, sp.csr_matrix)
        if vectors is None:
            scores = sp.csr_matrix(histories @ self.graph)
            return scores, np.ones(len(scores.indptr) - 1, dtype=np.float32)
        found = scores_and_scales(
            histories, self.graph, self.weight, self.n_trained, self.n_trained
        )
        scores, scale = found
        factor = self.spread(vectors) * scale
        scores.data *= np.repeat(factor, np.diff(scores.indptr))
        return scores, factor

    def scores(self, queries: Queries) -> np.ndarray:
        """Float32 [n, n_items]; new memory.

        Cost: n · n_items · d multiply-adds, and for the item graph the edges of the histories.
        """
        vectors, histories = queries.vectors, queries.histories
        if vectors is not None and self.item_vectors is not None:
            found = vectors @ self.item_vectors.T
        else:
            found = np.zeros((len(queries), len(self.item_counts)), dtype=np.float32)
        if self.offset is not None:
            found += self.offset
        if isinstance(self.graph, np.ndarray):
            found += histories @ self.graph
        elif self.graph is not None and histories is not None:
            more, _ = self.graph_scores(vectors, histories)
            found += more.toarray()
        if queries.popular.any():
            found[queries.popular] = self.item_counts
        return found

    def graph_block(self, rows: np.ndarray, columns: np.ndarray | slice) -> np.ndarray:
        """A block of the item graph: int64 [n], int64 [m] → float32 [n, m]; new memory."""
        assert self.graph is not None
        block = self.graph[rows][:, columns]
        return np.array(block) if isinstance(block, np.ndarray) else block.toarray()

    def extended(self, weights: sp.csr_matrix) -> Scorer:
        """With further items, from the weights of those there: CSR [n_new, n_items]."""
        vectors, parts = self.item_vectors, self.parts
        if vectors is not None:
            added = weights @ vectors
            longer = lengthened(vectors, weights, added)
            vectors = np.concatenate([vectors, longer * added])
            more = {name: longer * (weights @ rows) for name, rows in parts.items()}
            parts = {name: np.concatenate([rows, more[name]]) for name, rows in parts.items()}
        offset = self.offset
        nobody = np.zeros(len(weights.indptr) - 1, dtype=self.item_counts.dtype)
        return dataclasses.replace(
            self,
            item_vectors=vectors,
            parts=parts,
            graph=None if self.graph is None else with_added(self.graph, weights),
            offset=None if offset is None else np.concatenate([offset, weights @ offset]),
            item_counts=np.concatenate([self.item_counts, nobody]),
        )
