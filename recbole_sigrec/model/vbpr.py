"""VBPR: visual Bayesian personalised ranking from implicit feedback (AAAI 2016, arXiv 1510.01784).

Equation numbers are the paper's. A user's score of an item is (Eq. 2-4)

    x_ui = β_i + γ_uᵀ γ_i + θ_uᵀ (E f_i) + β'ᵀ f_i,

with the features f_i constant and E [d, d_m] learned by BPR (Eq. 5-7). The global offset and the
users' biases of Eq. 2 cancel in BPR.

Followed where the paper and the field's later comparisons differ: those, since they are what VBPR's
published numbers on today's data sets are. There, E has an offset; β_i and β' are left out (the
paper's with ``biases: True``); the regulariser is RecBole's EmbLoss, Σ‖E‖₂ / rows over the batch's
representations, of one weight, rather than Σ‖Θ‖₂² of three. Ours: any number of modalities, whose
features stand side by side in f_i, and those that an item lacks are zero there; negatives are drawn
from the items seen in training (``negative_items``); the features may be trained
(``train_features``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from recbole.model.loss import EmbLoss
from torch import nn

from recbole_sigrec.config import Config, Keys, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.kernels.products import Linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import MultimodalRecommender, RawFeatures, xavier_embedding
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.losses import bpr_of_rows


class VBPRKeys(Keys):
    """The keys of VBPR; their defaults are in ``properties/model/VBPR.yaml``."""

    embedding_size: int = setting("d, the size of γ and of θ each", ge=1)
    biases: bool = setting("the paper's item bias β_i and visual bias β'ᵀ f_i")
    reg_weight: float = setting("λ, regularisation of the batch's representations", ge=0)
    train_features: bool = setting("whether the raw features are trained too")


class VBPR(MultimodalRecommender[VBPRKeys]):
    """The model; only the rows of the batch are computed in training."""

    Keys = VBPRKeys

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        self.user_embedding = xavier_embedding(self.n_users, 2 * d)  # γ_u and θ_u
        self.item_embedding = xavier_embedding(self.n_items, d)  # γ_i
        self.raw = RawFeatures(self.features, keys.train_features)
        width = sum(features.shape[1] for features in self.features.values())
        self.project = Linear(width, d)  # E
        nn.init.xavier_normal_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        if keys.biases:
            self.item_bias = nn.Parameter(torch.zeros(self.n_items, 1))  # β_i
            self.visual_bias = nn.Parameter(torch.zeros(width, 1))  # β'
        self.reg_loss = EmbLoss()

    def users(self, rows: torch.Tensor) -> torch.Tensor:
        """γ_u ‖ θ_u, and with ``biases`` a one: [n, 2d] or [n, 2d + 1]."""
        users = select_rows(self.user_embedding.weight, rows)
        return F.pad(users, (0, 1), value=1.0) if self.keys.biases else users

    def items(self, rows: torch.Tensor) -> torch.Tensor:
        """γ_i ‖ E f_i, and with ``biases`` β_i + β'ᵀ f_i: [n, 2d] or [n, 2d + 1]."""
        parts = (
            self.masked(name, select_rows(self.raw[name], rows), rows) for name in self.modalities
        )
        f = torch.cat(list(parts), dim=1)
        parts = [select_rows(self.item_embedding.weight, rows), self.project(f)]
        if self.keys.biases:
            parts.append(select_rows(self.item_bias, rows) + f @ self.visual_bias)
        return torch.cat(parts, dim=1)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.user_embedding.weight.device
        n_users, n_items = (torch.arange(n, device=device) for n in (self.n_users, self.n_items))
        return self.users(n_users), self.items(n_items)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """(BPR, regularisation)."""
        u = self.users(interaction[self.USER_ID])
        pairs = torch.cat([interaction[self.ITEM_ID], interaction[self.NEG_ITEM_ID]])
        i, j = self.items(pairs).chunk(2)
        bpr = bpr_of_rows(u, i, j)
        gamma_theta = u[:, : 2 * self.keys.embedding_size]
        return bpr, self.keys.reg_weight * self.reg_loss(gamma_theta, i, j).reshape(())
