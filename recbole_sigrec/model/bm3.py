"""BM3: bootstrap latent representations for multimodal recommendation (arXiv 2207.05969).

Section and equation numbers are the paper's. Kept as published: no negatives, no item-item graph;
dropout makes the second view (Sec. 3.2), a linear predictor the first (Eq. 6-7), gradients stop at
the second.

Deviations from the paper, as in the authors' released code:

- The feature tables are trained (``train_features``).
- The multimodal terms have a weight of 2 (``cl_weight``), which the paper's Eq. 13 does not have.
- The regulariser is RecBole's EmbLoss, (‖h_u‖₂ + ‖h_i‖₂) / number of items, of the whole tables,
  rather than Σ‖E‖₂². [PAD]'s rows count neither in the norms nor in the divisor.

Deviation from the code: the dropout masks of Eq. 5 are drawn for each place of the batch; the code
draws one for each node, so that repetitions of a node in a batch share it. The expectation of the
loss is the same. Ours: any number of modalities; an item without one takes no part in that one's
terms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from recbole.model.loss import EmbLoss
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.kernels.products import Linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import EmbeddingKeys, LightGCNRecommender, RawFeatures
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.losses import cosine_distance


class BM3Keys(EmbeddingKeys):
    """The keys of BM3; their defaults are in ``properties/model/BM3.yaml``."""

    n_layers: int = setting("L, LightGCN layers on the user-item graph", ge=0)
    dropout: float = setting("p, share of entries dropped in the target views", ge=0, lt=1)
    cl_weight: float = setting("weight of the multimodal terms, L_align and L_mask", ge=0)
    reg_weight: float = setting("λ, regularisation of the representations", ge=0)
    train_features: bool = setting("whether the raw features are trained too")


class BM3(LightGCNRecommender[BM3Keys]):
    """The model; tables of users and items are stacked, users first: [n_users + n_items, d]."""

    Keys = BM3Keys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        self.predictor = Linear(d, d)
        nn.init.xavier_normal_(self.predictor.weight)
        self.raw = RawFeatures(self.features, keys.train_features)
        self.project = nn.ModuleDict()
        for name, features in self.features.items():
            self.project[name] = layer = Linear(features.shape[1], d)
            nn.init.xavier_normal_(layer.weight)
        self.reg_loss = EmbLoss()

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Eq. 2-4: LightGCN, its mean over layers, and the items' residual connection.

        Returns:
            users h_u [n_users, d], items h_i [n_items, d].
        """
        users, items = self.lightgcn(self.keys.n_layers)
        return users, items + self.item_embedding.weight

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Sec. 3.4: the score is the product of the predictor's outputs."""
        users, items = self.forward()
        return self.predictor(users), self.predictor(items)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Eq. 13 as its terms, already weighted: (L_rec, L_align, L_mask, regularisation)."""
        keys = self.keys
        u, i = interaction[self.USER_ID], interaction[self.ITEM_ID]
        n = len(u)
        share = self.share(n)
        users, items = self.forward()
        h_u, h_i = select_rows(users, u), select_rows(items, i)
        target_u, target_i = self._view(h_u), self._view(h_i)
        online_u, online_i = self.predictor(h_u[share]), self.predictor(h_i[share])
        # Eq. 8-9: each side's prediction against the other's target.
        rec = cosine_distance(online_u, target_i[share]).sum() / n
        rec = rec + cosine_distance(online_i, target_u[share]).sum() / n

        align = mask = rec.new_zeros(())
        for name in self.modalities:
            has = getattr(self, f"has_{name}")[i].nonzero().squeeze(1)  # rows of the batch
            n = len(has)
            if n == 0:
                continue
            share = self.share(n)
            rows = has[share]
            h_m = self.project[name](select_rows(self.raw[name], i[rows]))
            online_m = self.predictor(h_m)
            view_m = self._view(h_m, n, share)
            align = (
                align + cosine_distance(online_m, select_rows(target_i, rows)).sum() / n
            )  # Eq. 10-11
            mask = mask + cosine_distance(online_m, view_m).sum() / n  # Eq. 12
        # Of the whole tables but [PAD], in every process: each takes an equal part.
        reg = self.equal_part(keys.reg_weight * self.reg_loss(users[1:], items[1:]))
        return rec, keys.cl_weight * align, keys.cl_weight * mask, reg.reshape(())

    def _view(
        self, h: torch.Tensor, n: int | None = None, share: slice = slice(None)
    ) -> torch.Tensor:
        """Eq. 5: the dropout view, a target through which no gradient flows.

        h is the ``share`` of ``n`` rows (default: all of them), for which the noise is drawn.
        """
        noise = F.dropout(h.new_ones(len(h) if n is None else n, h.shape[1]), self.keys.dropout)
        return h.detach() * noise[share]
