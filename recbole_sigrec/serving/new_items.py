"""What the model needs of items that nobody has taken, from their content.

The neighbours of a new item are the k trained items of most similar content; w_n are the cubes of
their cosines, divided by their sum. The item's vector is Σ_n w_n e_n, lengthened to Σ_n w_n ‖e_n‖:
a mean of vectors that differ is short, and would rank the item behind all others. So is its column
of the item graph, Σ_n w_n (b_n + a max(b_n) 1_n), lengthened to Σ_n w_n ‖b_n‖, where 1_n lets a
neighbour speak for the item itself, and its row, with the rows in place of the columns. Ours.

Tried on TikTok and Baby, by the training and validation items that were left out: k from 3 to 100
(TikTok prefers 5, Baby 20), cosines and their third and sixth powers, a from 0 to 12, neighbours of
each modality for its part; and, all worse or no better: a ridge regression of the vectors on the
content, or of the interactions on both; content cosines, or the item graph's regression solved for
the new item, as its column.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import norm as sparse_norm

from recbole_sigrec.errors import DataError, did_you_mean, some
from recbole_sigrec.kernels.top import first_of_equals

Graph = sp.csr_matrix | np.ndarray

NEIGHBOURS = 10
_OWN = 10.0  # a: what a neighbour itself adds, over the largest edge into it


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of norm one, of whatever scale; zero rows stay zero. Shapes: float32 [n, d] → [n, d]."""
    # The squares of a row that is divided by a power of two do not leave float32's range.
    exponent = np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1]
    rows = np.ldexp(rows, -exponent)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


@dataclasses.dataclass(frozen=True)
class Content:
    """The items' features.

    Attributes:
        features: modality → float32 [n_items, d_m].
        has: modality → bool [n_items], which items have the modality.
        mean: modality → float32 [d_m], of the items that were trained.
        weights: modality → its share of the content; they add up to one.
    """

    features: dict[str, np.ndarray]
    has: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]
    weights: dict[str, float]
    _centred: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, init=False)

    @property
    def modalities(self) -> list[str]:
        """Their names."""
        return list(self.features)

    def centred(self, modality: str) -> np.ndarray:
        """A modality's rows less their mean, of norm one; zero where an item lacks it. Kept."""
        if modality not in self._centred:
            rows = self.features[modality] - self.mean[modality]
            self._centred[modality] = unit(rows * self.has[modality][:, None]).astype(np.float32)
        return self._centred[modality]

    @cached_property
    def joined(self) -> np.ndarray:
        """The modalities side by side, so that z_i · z_j = Σ_m α_m cos(x_i^m, x_j^m)."""
        parts = (self.weights[name] ** 0.5 * self.centred(name) for name in self.modalities)
        return np.concatenate(list(parts), axis=1)

    def read_new(self, tokens: Sequence[str], given: Mapping[str, Any]) -> Content:
        """The features of new items, checked.

        Raises:
            DataError: see :meth:`recbole_sigrec.serving.recommender.Recommender.add_items`.
        """
        stray = [name for name in given if name not in self.features]
        if stray or not self.features:
            raise DataError(
                f"the model knows no modality [{', '.join(stray)}]."
                f"{did_you_mean(stray[0], self.features) if stray else ''} It knows: "
                f"{', '.join(self.features) or 'none, so that new items cannot be added'}"
            )
        n, features, has = len(tokens), {}, {}
        for name, known in self.features.items():
            width = known.shape[1]
            try:
                rows = np.asarray(given.get(name, np.zeros((n, width))), dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise DataError(f"modality [{name}]: give rows of numbers ({error})") from None
            if rows.shape != (n, width):
                raise DataError(
                    f"modality [{name}] has the shape {rows.shape}; expected ({n}, {width}): a row "
                    f"for each item, from the encoder that the model was trained with"
                )
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise DataError(f"modality [{name}] is not finite in row(s) {some(bad)}")
            features[name], has[name] = rows, rows.any(axis=1)
        without = np.flatnonzero(~np.any(list(has.values()), axis=0))
        if len(without):
            raise DataError(
                f"item(s) {some(np.array(tokens)[without])} have no content: all rows are zero"
            )
        return Content(features, has, self.mean, self.weights)

    def extended(self, added: Content) -> Content:
        """With the features of further items."""
        features, has = (
            {name: np.concatenate([ours[name], theirs[name]]) for name in ours}
            for ours, theirs in ((self.features, added.features), (self.has, added.has))
        )
        return Content(features, has, self.mean, self.weights)


def read_content(arrays: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> Content:
    """The content of a bundle's arrays.

    Args:
        weights: modality → its share.
    """
    features = {name: arrays[f"content.{name}"] for name in weights}
    has = {name: np.asarray(arrays[f"has.{name}"]) for name in weights}
    mean = {name: arrays[f"mean.{name}"] for name in weights}
    return Content(features, has, mean, dict(weights))


def added_rows(
    content: Content, added: Content, trained: np.ndarray, k: int = NEIGHBOURS
) -> sp.csr_matrix:
    """The weights w of each new item's neighbours.

    Args:
        trained: bool [n_items], which items may be neighbours.

    Returns:
        float32 CSR [n_new, n_items]; an empty row where no cosine is positive.
    """
    cosines = np.where(trained, added.joined @ content.joined.T, 0)
    top = first_of_equals(cosines, min(k, cosines.shape[1]))
    weights = np.maximum(np.take_along_axis(cosines, top, axis=1), 0) ** 3
    total = weights.sum(axis=1, keepdims=True)
    weights = weights / np.where(total > 0, total, 1)
    row = np.repeat(np.arange(len(cosines)), top.shape[1])
    made = sp.csr_matrix((weights.ravel(), (row, top.ravel())), shape=cosines.shape)
    made.eliminate_zeros()
    return made


def lengthened(rows: np.ndarray, weights: sp.csr_matrix, added: np.ndarray) -> np.ndarray:
    """The new items' vectors over the means of their neighbours': float32 [n_new, 1].

    Shapes: rows [n_items, d], weights CSR [n_new, n_items], added [n_new, d], the means.
    """
    return _over(weights, norms(rows, 1), norms(added, 1))[:, None]


def with_added(graph: Graph, weights: sp.csr_matrix) -> Graph:
    """The item graph with the new items.

    Between two new items are the edges that the one's neighbours have to the other.

    Shapes: graph [n, n], weights CSR [m, n] → [n + m, n + m].
    """
    columns, rows = _added_columns(weights, graph), _added_columns(weights, graph.T).T
    corner = weights @ columns
    if isinstance(graph, np.ndarray):
        np.fill_diagonal(corner, 0)
        return np.block([[graph, columns], [rows, corner]])
    corner -= sp.diags(corner.diagonal())
    return sp.csr_matrix(sp.bmat([[graph, columns], [rows, corner]]), dtype=np.float32)


def _added_columns(weights: sp.csr_matrix, graph: Any) -> Any:
    dense = isinstance(graph, np.ndarray)
    largest = graph.max(axis=0) if dense else graph.max(axis=0).toarray().ravel()
    own = sp.diags(_OWN * np.maximum(largest, 0)) @ weights.T
    added = graph @ weights.T + (own.toarray() if dense else own)
    return added @ sp.diags(_over(weights, norms(graph, 0), norms(added, 0)))


def norms(matrix: Graph, axis: int) -> np.ndarray:
    """The norms of a matrix's columns (axis 0) or rows (axis 1)."""
    norm: Any = np.linalg.norm if isinstance(matrix, np.ndarray) else sparse_norm
    return norm(matrix, axis=axis)


def _over(weights: sp.csr_matrix, lengths: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Σ_n w_n ‖e_n‖ over ‖Σ_n w_n e_n‖, of each new item; 0 over 0 is 0."""
    return (weights @ lengths / np.where(means > 0, means, 1)).astype(np.float32)
