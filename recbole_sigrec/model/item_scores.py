"""Scores of an item graph itself, added to those of the learned representations.

Representations of d dimensions cannot keep every pair of items that users take together. An
item-item matrix B can: a user's items speak for their neighbours directly. With B the k largest
positive ridge weights into each item, by interactions and content together
(:mod:`recbole_sigrec.graph.ridge`): collaborative signals infused into the items' semantic
similarity, in closed form,

    s_ui = Σ_j R_uj B_ji,    score_ui = e_u · e_i + γ σ_u(e · e) / σ_u(s) s_ui,

σ_u the deviation over all items, so that γ is a share of the spread of the learned scores, however
long they have been trained. Ours, not the paper's. The loss does not see s, which holds the answer
to each training pair; validation, and so the choice of the epoch, does.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.config import Keys, setting
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import content_vectors, ridge_graph
from recbole_sigrec.graph.ridge import cost


class ItemScoreKeys(Keys):
    """The keys of a model that can add the scores of an item graph to its own."""

    item_score_weight: float = setting("γ, weight of the item graph's own scores (0: none)", ge=0)
    item_score_k: int = setting("k, edges into each item of the graph that is scored", ge=1)
    item_score_reg: float = setting("λ, the ridge of that graph's regression", gt=0)
    item_score_content: float = setting("w, weight of the content in that regression", ge=0)
    item_score_max_items: int = setting("more items are refused: n items need 4n² bytes", ge=1)


class ItemScores:
    """γ s_ui / σ_u(s), by SciPy on the CPU.

    Attributes:
        graph: B, float32 CSR [n_items, n_items].

    Args:
        interactions: binary R [n_users, n_items] of the training interactions.
        graph: B.
        weight: γ.
    """

    def __init__(self, interactions: sp.csr_matrix, graph: sp.csr_matrix, weight: float):
        self.interactions, self.graph, self.weight = interactions, graph, weight

    @classmethod
    def of(cls, model, config, weights: dict[str, float]) -> ItemScores | None:
        """Those of a model with :class:`ItemScoreKeys`; none where γ is zero.

        Args:
            weights: modality → its share of the content.

        Raises:
            ConfigError: there are too many items, or the ridge is too small.
        """
        keys, n = model.keys, model.n_items
        if keys.item_score_weight == 0:
            return None
        if n - 1 > keys.item_score_max_items:
            raise ConfigError(
                f"config key [item_score_max_items] = [{keys.item_score_max_items}]: the item "
                f"graph that is scored is a regression on all items, and {config['dataset']} has "
                f"{n - 1}, which need {cost(n)}, once. Raise the key if that is there, or give "
                f"item_score_weight=0"
            )
        content = content_vectors(model.features, model.mask, weights, center=True).numpy()
        try:
            graph = ridge_graph(
                config["graph_cache_dir"],
                model.interactions,
                content,
                keys.item_score_k,
                content_weight=keys.item_score_content,
                reg_weight=keys.item_score_reg,
            )
        except ValueError as error:
            raise ConfigError(
                f"config keys [item_score_reg] = [{keys.item_score_reg}] and [item_score_content] "
                f"= [{keys.item_score_content}]: {error}"
            ) from None
        return cls(model.interactions, graph, keys.item_score_weight)

    def of_pairs(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Of user-item pairs: int64 [n], int64 [n] → float32 [n]."""
        if not len(users):
            return torch.zeros(0, device=users.device)  # SciPy has a matrix for no pairs
        distinct, place = np.unique(users.cpu().numpy(), return_inverse=True)
        items = items.cpu().numpy().copy()  # SciPy indexes by no array of a tensor's memory
        scores = self._of_users(distinct)[0][place, items]
        return torch.from_numpy(np.asarray(scores).ravel()).to(users.device)

    def of_users(self, users: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of all items for each user, where they are not zero.

        Shapes: int64 [n] → (place in ``users`` int64 [m], item int64 [m], score float32 [m]).
        """
        scores, row = self._of_users(users.cpu().numpy())
        parts = row, scores.indices.astype(np.int64), scores.data
        return tuple(torch.from_numpy(part).to(users.device) for part in parts)

    def _of_users(self, users: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
        """The scores [n, n_items], and the row of each entry, int64 [m]."""
        scores = self.interactions[users] @ self.graph
        count = np.diff(scores.indptr)
        n_items = scores.shape[1] - 1  # without [PAD]
        mean = _row_sums(scores, scores.data) / n_items
        square = _row_sums(scores, scores.data * scores.data) / n_items
        variance = square - mean**2
        spread_out = variance > 1e-6 * square  # else it is what rounding leaves of equal scores
        scale = np.zeros(len(users), dtype=np.float32)
        scale[spread_out] = self.weight / np.sqrt(variance[spread_out])
        scores.data *= np.repeat(scale, count)
        return scores, np.repeat(np.arange(len(users)), count)


def _row_sums(matrix: sp.csr_matrix, data: np.ndarray) -> np.ndarray:
    """Sums over the rows of a matrix with ``data`` in place of its entries: float64 [n]."""
    sums = np.zeros(matrix.shape[0])
    some = np.diff(matrix.indptr) > 0
    sums[some] = np.add.reduceat(data, matrix.indptr[:-1][some], dtype=np.float64)
    return sums


def spread(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """σ_u(e · e): the deviation of each query's products with all items but [PAD], row 0.

    Shapes: queries [n, d], items [n_items, d] → [n].
    """
    centred = items[1:] - items[1:].mean(dim=0)
    covariance = centred.T @ centred / len(centred)
    return ((queries @ covariance) * queries).sum(dim=1).clamp(min=0.0).sqrt()
