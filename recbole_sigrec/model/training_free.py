"""What the training-free models share: items as content vectors, scores by item similarity."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from recbole.utils import ModelType
from torch import nn

from recbole_sigrec.model.base import MultimodalRecommender


class TrainingFree(MultimodalRecommender):
    """Scores R S: a user's items, each by its similarity to all items.

    A subclass sets ``similarity``, made from the training data whenever the model is, and so not
    part of a checkpoint. There is one pass over the data, without negatives, for RecBole's trainer;
    nothing is learned. Scores are computed by SciPy, on the CPU.

    Attributes:
        similarity: S [n_items, n_items], float32: a C-ordered array, or SciPy's CSR.
    """

    type = ModelType.TRADITIONAL

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.nothing = nn.Parameter(torch.zeros(1))  # an optimiser wants a parameter

    def calculate_loss(self, interaction) -> torch.Tensor:
        """Zero."""
        return 0.0 * self.nothing.sum()

    def predict(self, interaction):
        """Scores of user-item pairs: [batch]."""
        users, items = (interaction[key].cpu().numpy() for key in (self.USER_ID, self.ITEM_ID))
        history = self.interactions[users]
        pair = np.repeat(np.arange(len(users)), np.diff(history.indptr))
        entries = np.asarray(self.similarity[history.indices, items[pair]]).ravel()
        scores = np.bincount(pair, entries, minlength=len(users))
        return torch.from_numpy(scores.astype(np.float32)).to(self.device)

    def full_sort_predict(self, interaction):
        """Scores of all items for each user: [batch · n_items], as RecBole expects it."""
        scores = self.interactions[interaction[self.USER_ID].cpu().numpy()] @ self.similarity
        if not isinstance(scores, np.ndarray):
            scores = scores.toarray()
        return torch.from_numpy(scores).to(self.device).view(-1)


def content_vectors(
    features: dict[str, torch.Tensor],
    mask: dict[str, torch.Tensor],
    weights: dict[str, float],
    center: bool,
) -> torch.Tensor:
    """The modalities of each item side by side: z_i = ‖_m √α_m x_i^m / ‖x_i^m‖.

    So z_i · z_j = Σ_m α_m cos(x_i^m, x_j^m) over the modalities that both items have.

    Args:
        features: modality name → [n_items, d_m].
        mask: modality name → bool [n_items]; where an item lacks a modality, its part is zero.
        weights: modality name → α_m.
        center: take from each x^m the mean over the items that have it; a component that all items
            share says nothing, and can outweigh what tells them apart.

    Returns:
        float32 [n_items, Σ_m d_m].
    """
    parts = []
    for name, x in features.items():
        present = mask[name][:, None]
        if center:
            x = x - x[mask[name]].double().mean(dim=0).float()
        parts.append(weights[name] ** 0.5 * F.normalize(x, dim=1) * present)
    return torch.cat(parts, dim=1)
