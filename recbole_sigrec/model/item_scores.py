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

from recbole_sigrec.config import Config, Keys, setting
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import content_vectors, ridge_graph
from recbole_sigrec.graph.ridge import cost
from recbole_sigrec.kernels.graph_scores import scores_and_scales


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
    def from_config(
        cls,
        config: Config,
        keys: ItemScoreKeys,
        interactions: sp.csr_matrix,
        features: dict[str, torch.Tensor],
        mask: dict[str, torch.Tensor],
        weights: dict[str, float],
    ) -> ItemScores | None:
        """Those that a model's keys ask for; none where γ is zero.

        Args:
            interactions, features, mask: of the model.
            weights: modality → its share of the content.

        Raises:
            ConfigError: there are too many items, or the ridge is too small.
        """
        n = len(next(iter(mask.values())))
        if keys.item_score_weight == 0:
            return None
        if n - 1 > keys.item_score_max_items:
            raise ConfigError(
                f"config key [item_score_max_items] = [{keys.item_score_max_items}]: the item "
                f"graph that is scored is a regression on all items, and {config['dataset']} has "
                f"{n - 1}, which need {cost(n)}, once. Raise the key if that is there, or give "
                f"item_score_weight=0"
            )
        content = content_vectors(features, mask, weights, center=True).numpy()
        try:
            graph = ridge_graph(
                config["graph_cache_dir"],
                interactions,
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
        return cls(interactions, graph, keys.item_score_weight)

    def of_pairs(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Of user-item pairs: int64 [n], int64 [n] → float32 [n]."""
        if not len(users):
            return torch.zeros(0, device=users.device)  # SciPy has a matrix for no pairs
        distinct, place = np.unique(users.cpu().numpy(), return_inverse=True)
        columns = items.cpu().numpy().copy()  # SciPy indexes by no array of a tensor's memory
        scores = self._of_users(distinct)[0][place, columns]
        return torch.from_numpy(np.asarray(scores).ravel()).to(users.device)

    def of_users(self, users: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of all items for each user, where they are not zero.

        Shapes: int64 [n] → (place in ``users`` int64 [m], item int64 [m], score float32 [m]).
        """
        scores, row = self._of_users(users.cpu().numpy())
        parts = row, scores.indices.astype(np.int64), scores.data
        place, item, score = (torch.from_numpy(part).to(users.device) for part in parts)
        return place, item, score

    def _of_users(self, users: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
        """The scores [n, n_items], and the row of each entry, int64 [m]."""
        histories = self.interactions[users]
        n_items = histories.shape[1] - 1  # without [PAD]
        scores, scale = scores_and_scales(histories, self.graph, self.weight, n_items)
        sizes = np.diff(scores.indptr)
        scores.data *= np.repeat(scale, sizes)
        return scores, np.repeat(np.arange(len(users)), sizes)


def spread(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """σ_u(e · e): the deviation of each query's products with all items but [PAD], row 0.

    Shapes: queries [n, d], items [n_items, d] → [n].
    """
    centred = items[1:] - items[1:].mean(dim=0)
    covariance = centred.T @ centred / len(centred)
    return ((queries @ covariance) * queries).sum(dim=1).clamp(min=0.0).sqrt()
