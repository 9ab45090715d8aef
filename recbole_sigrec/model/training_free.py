"""What the training-free models share: scores by item similarity."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from recbole.utils import ModelType
from torch import nn

from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.model.base import K, MultimodalRecommender
from recbole_sigrec.model.batch import Interaction


class TrainingFree(MultimodalRecommender[K]):
    """Scores R S: a user's items, each by its similarity to all items.

    A subclass sets ``similarity``, made from the training data whenever the model is, and so not
    part of a checkpoint. There is one pass over the data, without negatives, for RecBole's trainer;
    nothing is learned. Scores are computed by SciPy, on the CPU.

    Attributes:
        similarity: S [n_items, n_items], float32: a C-ordered array, or SciPy's CSR.
    """

    type = ModelType.TRADITIONAL
    similarity: np.ndarray | sp.csr_matrix

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        self.nothing = nn.Parameter(torch.zeros(1))  # an optimiser wants a parameter

    def calculate_loss(self, interaction: Interaction) -> torch.Tensor:
        """Zero."""
        return 0.0 * self.nothing.sum()

    def predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of user-item pairs: [batch]."""
        users, items = (interaction[key].cpu().numpy() for key in (self.USER_ID, self.ITEM_ID))
        history = self.interactions[users]
        pair = np.repeat(np.arange(len(users)), np.diff(history.indptr))
        entries = np.asarray(self.similarity[history.indices, items[pair]]).ravel()
        scores = np.bincount(pair, entries, minlength=len(users))
        return torch.from_numpy(scores.astype(np.float32)).to(self.device)

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of all items for each user: [batch · n_items], as RecBole expects it."""
        scores = self.interactions[interaction[self.USER_ID].cpu().numpy()] @ self.similarity
        if not isinstance(scores, np.ndarray):
            scores = scores.toarray()
        return torch.from_numpy(scores).to(self.device).view(-1)
