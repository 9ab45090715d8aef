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

``item_score_weight: auto`` chooses γ at each validation: the one of a few with the best metric. The
largest leaves the order to s alone, so that a model is not behind its item graph. The value of the
best epoch is in its checkpoint and in the result. How λ, w and the modalities' weights are chosen
stands in :mod:`recbole_sigrec.model.automatic`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import scipy.sparse as sp
import torch

from recbole_sigrec.config import AUTO, Auto, Config, Keys, setting
from recbole_sigrec.data.dataset import MultimodalDataset, interactions_of
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import content_vectors, ridge_graph
from recbole_sigrec.kernels.graph_scores import scores_and_scales
from recbole_sigrec.kernels.held_out import HeldOut
from recbole_sigrec.kernels.products import matmul_nt

GRAPH_ALONE = 1000.0
"""A γ at which the learned scores order only what the item graph leaves equal."""

WEIGHTS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, GRAPH_ALONE)
"""The γ among which ``auto`` chooses."""

FIXED_VALUES: dict[str, Any] = {
    "item_score_weight": 0.25,
    "item_score_reg": 100.0,
    "item_score_content": 10.0,
    "modality_weights": None,
}
"""What ``auto`` is where nothing is chosen."""


def without_choice(key: str, value: Any) -> Any:
    """A key's value; its fixed one if it is still ``auto``."""
    return FIXED_VALUES[key] if value == AUTO else value


def validation_pairs(
    config: Config, interactions: sp.csr_matrix, valid: MultimodalDataset
) -> HeldOut:
    """The pairs of a validation part, as values are chosen by them.

    Args:
        interactions: binary R [n_users, n_items] of the training interactions.
    """
    seen = sp.csr_matrix(interactions.shape) if config["repeatable"] else interactions
    return HeldOut(seen, interactions_of(valid), config["valid_metric"])


class ItemScoreKeys(Keys):
    """The keys of a model that can add the scores of an item graph to its own."""

    item_score_weight: pydantic.NonNegativeFloat | Auto = setting(
        "γ, weight of the item graph's own scores (0: none; auto: chosen at each validation)"
    )
    item_score_k: int = setting("k, edges into each item of the graph that is scored", ge=1)
    item_score_reg: pydantic.PositiveFloat | Auto = setting(
        "λ, the ridge of that graph's regression (auto: chosen on the validation part)"
    )
    item_score_content: pydantic.NonNegativeFloat | Auto = setting(
        "w, weight of the content in that regression (auto: chosen on the validation part)"
    )
    item_score_max_items: int = setting(
        "up to so many items the regression inverts a matrix of all items, of 4n² bytes; with more "
        "it is solved in blocks, and λ and w are not chosen",
        ge=1,
    )


class ItemScores:
    """γ s_ui / σ_u(s), by SciPy on the CPU.

    Attributes:
        graph: B, float32 CSR [n_items, n_items].
        weight: γ, which changes from one validation to the next where it is automatic.

    Args:
        interactions: binary R [n_users, n_items] of the training interactions.
        graph: B.
        weight: γ, or ``auto``.
    """

    def __init__(self, interactions: sp.csr_matrix, graph: sp.csr_matrix, weight: float | Auto):
        self.interactions, self.graph = interactions, graph
        self.automatic = weight == AUTO
        self.weight: float = without_choice("item_score_weight", weight)
        # 1 / σ_u(s) of the users that were asked for: neither histories nor graph change.
        self._scale = np.full(interactions.get_shape()[0], np.nan, dtype=np.float32)

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
            ConfigError: the ridge is too small, or the content's weight too large.
        """
        if keys.item_score_weight == 0:
            return None
        content = content_vectors(features, mask, weights, center=True).numpy()
        reg, content_weight = (
            without_choice(key, getattr(keys, key))
            for key in ("item_score_reg", "item_score_content")
        )
        try:
            graph = ridge_graph(
                config["graph_cache_dir"],
                interactions,
                content,
                keys.item_score_k,
                keys.item_score_max_items,
                content_weight=content_weight,
                reg_weight=reg,
            )
        except ValueError as error:
            raise ConfigError(
                f"config keys [item_score_reg] = [{reg}] and [item_score_content] "
                f"= [{content_weight}]: {error}"
            ) from None
        return cls(interactions, graph, keys.item_score_weight)

    def by_weight(
        self,
        held_out: HeldOut,
        queries: torch.Tensor,
        items: torch.Tensor,
        deviation: torch.Tensor,
    ) -> dict[float, float]:
        """How well held-out items are ranked with each γ of :data:`WEIGHTS`: the mean metric.

        Args:
            queries: e of all users [n_users, d].
            items: e of all items [n_items, d].
            deviation: σ_u(e · e) of all users [n_users], see :func:`spread`.

        Cost: a full ranking of the held-out users for each of the eight.
        """
        totals = dict.fromkeys(WEIGHTS, 0.0)
        for block in held_out.blocks(items.device):
            users = torch.from_numpy(block.users).to(items.device)
            learned = block.of_pairs(block.mask(matmul_nt(queries[users], items)))
            own, factor = self.of_users(users, weight=1.0)
            own = block.of_pairs(own.mul_((deviation[users] * factor)[:, None]))
            scores = torch.empty_like(learned)
            for weight in WEIGHTS:
                totals[weight] += block.value(torch.add(learned, own, alpha=weight, out=scores))
        return {weight: total / max(1, len(held_out.users)) for weight, total in totals.items()}

    def of_pairs(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Of user-item pairs: int64 [n], int64 [n] → float32 [n]."""
        if not len(users):
            return torch.zeros(0, device=users.device)  # SciPy has a matrix for no pairs
        distinct, place = np.unique(users.cpu().numpy(), return_inverse=True)
        columns = items.cpu().numpy().copy()  # SciPy indexes by no array of a tensor's memory
        scores, scale = self._of_histories(self.interactions[distinct], self.weight)
        scores = np.asarray(scores[place, columns]).ravel() * scale[place]
        return torch.from_numpy(scores).to(users.device)

    def of_users(
        self, users: torch.Tensor, weight: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of all items for each user, as s and γ / σ_u(s); by default with the γ in use.

        Shapes: int64 [n] → (float32 [n, n_items], float32 [n]).
        """
        rows = users.cpu().numpy()
        histories = self.interactions[rows]
        new = np.isnan(self._scale[rows])
        if new.any():
            self._scale[rows[new]] = self._of_histories(histories[new], 1.0)[1]
        # The rows of B of a history side by side, in one row: made dense, equal columns are added.
        edges = self.graph[histories.indices]
        parts = edges.data, edges.indices, edges.indptr[histories.indptr]
        scores = sp.csr_matrix(parts, shape=histories.shape).toarray()
        scale = self._scale[rows] * np.float32(self.weight if weight is None else weight)
        return torch.from_numpy(scores).to(users.device), torch.from_numpy(scale).to(users.device)

    def _of_histories(
        self, histories: sp.csr_matrix, weight: float
    ) -> tuple[sp.csr_matrix, np.ndarray]:
        """s, CSR [n, n_items], and γ / σ_u(s), float32 [n]."""
        n_items = self.graph.get_shape()[0] - 1  # without [PAD]
        return scores_and_scales(histories, self.graph, weight, n_items)


def spread(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """σ_u(e · e): the deviation of each query's products with all items but [PAD], row 0.

    Shapes: queries [n, d], items [n_items, d] → [n].
    """
    centred = items[1:] - items[1:].mean(dim=0)
    covariance = centred.T @ centred / len(centred)
    return ((queries @ covariance) * queries).sum(dim=1).clamp(min=0.0).sqrt()
