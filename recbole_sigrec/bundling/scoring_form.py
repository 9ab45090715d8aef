"""The form in which a model scores: a product of vectors, an item-item matrix, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.model.base import MultimodalRecommender
from recbole_sigrec.model.training_free import TrainingFree


@dataclasses.dataclass
class ScoringForm:
    """score_ui = e_u · e_i + c_i + the item graph's; [PAD] is row 0 everywhere.

    Attributes:
        users, items: float32 [n_users, d], [n_items, d], or None.
        graph: B, CSR or dense float32 [n_items, n_items], or None.
        weight: γ, if the graph's scores are scaled, as beside vectors they are.
        offset: c, float32 [n_items], or None.
        parts: name → float32 [n_items, d], addends of ``items``.
        history_parts: see :class:`recbole_sigrec.serving.scores.Scorer`.
    """

    users: np.ndarray | None = None
    items: np.ndarray | None = None
    graph: np.ndarray | sp.csr_matrix | None = None
    weight: float = 1.0
    offset: np.ndarray | None = None
    parts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    history_parts: tuple[str, ...] = ()


def check_form(model: type) -> None:
    """See that models of a class can be exported, as far as the class tells it.

    Raises:
        SIGRecError: they cannot.
    """
    if not issubclass(model, MultimodalRecommender):
        if model.__name__ not in _PRODUCTS | _MATRICES:
            raise SIGRecError(
                f"model [{model.__name__}] cannot be exported: it scores neither by a product of "
                f"vectors nor by an item-item matrix. These can: this plugin's, and RecBole's "
                f"{', '.join(sorted([*_PRODUCTS, *_MATRICES]))}"
            )


def scoring_form(model: AbstractRecommender) -> ScoringForm:
    """The form of a trained model, which is in evaluation mode.

    Raises:
        SIGRecError: the model has no such form.
    """
    check_form(type(model))
    kind = type(model).__name__
    with torch.no_grad():
        if isinstance(model, TrainingFree):
            return ScoringForm(graph=model.similarity)
        if isinstance(model, MultimodalRecommender):
            return _of_ours(model)
        if kind in _PRODUCTS:
            users, items = (_array(part) for part in _PRODUCTS[kind](model))
            return ScoringForm(users, items)
        return _MATRICES[kind](model)


def _array(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(torch.as_tensor(tensor).detach().cpu().numpy(), dtype=np.float32)


def _of_ours(model: MultimodalRecommender) -> ScoringForm:
    users, items = (_array(part) for part in model.representations())
    form = ScoringForm(users, items)
    if model.item_scores is not None and model.item_scores.weight > 0:
        form.graph, form.weight = model.item_scores.graph, model.item_scores.weight
    parts = model.item_parts()
    form.parts = {name: _array(rows) for name, rows in parts.items()}
    form.history_parts = model.history_parts
    return form


def _forward(model: Any) -> tuple[Any, Any]:
    users, items, *_ = model.forward()
    return users, items


_PRODUCTS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "BPR": lambda model: (model.user_embedding.weight, model.item_embedding.weight),
    "DGCF": _forward,
    "LightGCN": _forward,
    "LINE": lambda model: (model.user_embedding.weight, model.item_embedding.weight),
    "NCEPLRec": lambda model: (model.user_embeddings, model.item_embeddings.T),
    "NCL": _forward,
    "NGCF": _forward,
    "SGL": lambda model: model.forward(model.train_graph),
    "ENMF": lambda model: (
        model.user_embedding.weight * model.H_i.weight.ravel(),
        model.item_embedding.weight,
    ),
}
"""RecBole's models that score by a product of vectors → the users' and the items'."""


def _admm_slim(model: Any) -> ScoringForm:
    matrix = np.asarray(model.item_similarity, dtype=np.float32)
    if not model.center_columns:
        return ScoringForm(graph=matrix)
    means = model.item_means
    return ScoringForm(graph=matrix, offset=(means - means @ matrix).astype(np.float32))


def _item_knn(model: Any) -> ScoringForm:
    if model.w.shape[0] != model.n_items:
        raise SIGRecError("model [ItemKNN] with knn_method: user cannot be exported")
    return ScoringForm(graph=_sparse(model.w))


def _sparse(matrix: Any) -> sp.csr_matrix:
    return sp.csr_matrix(matrix, dtype=np.float32)


_MATRICES: dict[str, Callable[[Any], ScoringForm]] = {
    "ADMMSLIM": _admm_slim,
    "EASE": lambda model: ScoringForm(graph=np.asarray(model.item_similarity, dtype=np.float32)),
    "ItemKNN": _item_knn,
    "SLIMElastic": lambda model: ScoringForm(graph=_sparse(model.item_similarity)),
}
"""RecBole's models that score by an item-item matrix."""
