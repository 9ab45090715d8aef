"""RecBole's LightGCN (arXiv 2002.02126) on our propagation."""

from __future__ import annotations

import torch
from recbole.model.general_recommender.lightgcn import LightGCN as RecBoleLightGCN

from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import SparseGraph, mean_propagation, mean_propagation_and_start
from recbole_sigrec.kernels.products import matmul_nt
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import DIVIDED_IDS
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.parallel import columns
from recbole_sigrec.recbole_repairs.models import NormalizedAdjacency


class LightGCN(NormalizedAdjacency, RecBoleLightGCN):
    """The same numbers in a fraction of the time.

    Parameters, loss, keys and random numbers are RecBole's; the products with the adjacency matrix,
    of which a batch needs its own nodes' rows, and with the items are done by
    :mod:`~recbole_sigrec.graph.adjacency` and :func:`~recbole_sigrec.kernels.products.matmul_nt`.
    """

    divided_tables = DIVIDED_IDS

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        self.register_load_state_dict_post_hook(_drop_restored)

    def get_norm_adj_mat(self) -> SparseGraph:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[n_users + n_items, n_users + n_items]; no tensor, and the methods below know that."""
        return SparseGraph(self.adjacency())

    def calculate_loss(self, interaction: Interaction) -> torch.Tensor:
        """RecBole's, of the representations of the batch's distinct nodes alone."""
        self.restore_user_e = self.restore_item_e = None
        batch = Batch.from_interaction(self, interaction)
        rows = torch.cat(batch.rows)  # gathered at once, so that their gradients come at once
        final, ego = mean_propagation_and_start(
            self.norm_adj_matrix, self.get_ego_embeddings(), self.n_layers, batch.nodes
        )
        u, i, j = select_rows(final, rows).chunk(3)
        squares = torch.stack([own.norm().square() for own in select_rows(ego, rows).chunk(3)])
        # Sums over the columns, of which each process may hold a part: in one message.
        sums = columns.total(torch.cat([(u * i).sum(dim=1), (u * j).sum(dim=1), squares]))
        positive, negative, squares = sums.split([len(u), len(u), 3])
        # RecBole's EmbLoss: the norms of the three tables, or half their squares.
        norms = squares / 2 if self.require_pow else squares.sqrt()
        norms = norms.sum(dim=0, keepdim=True) / len(u)  # [1], as RecBole's
        return self.mf_loss(positive, negative) + self.reg_weight * norms

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Users [n_users, d] and items [n_items, d]."""
        final = mean_propagation(self.norm_adj_matrix, self.get_ego_embeddings(), self.n_layers)
        users, items = final.split([self.n_users, self.n_items])
        return users, items

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of all items for each user: [batch · n_items]."""
        if self.restore_user_e is None or self.restore_item_e is None:
            self.restore_user_e, self.restore_item_e = self.forward()
        users = self.restore_user_e[interaction[self.USER_ID]]
        return matmul_nt(users, self.restore_item_e).view(-1)


def _drop_restored(model: LightGCN, _incompatible_keys: object) -> None:
    """Called by torch when parameters have been loaded: evaluation's representations are others."""
    model.restore_user_e = model.restore_item_e = None
