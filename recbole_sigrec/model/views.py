"""What the models share that add item-item views to LightGCN: MGCN and its followers."""

from __future__ import annotations

from typing import TypeVar

import torch

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import SparseGraph, mean_propagation, normalize
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import LightGCNKeys, LightGCNRecommender
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.item_graphs import ItemGraphKeys
from recbole_sigrec.model.item_scores import ItemScoreKeys, ItemScores
from recbole_sigrec.model.modality_weights import weights_of_modalities
from recbole_sigrec.parallel import columns


class GraphKeys(LightGCNKeys, ItemGraphKeys):
    """The keys of LightGCN and of the semantic graphs."""


L = TypeVar("L", bound=LightGCNKeys)


class GraphRecommender(LightGCNRecommender[L]):
    """Base of the models that add semantic graphs to LightGCN, over a batch's distinct nodes.

    Tables of users and items are stacked, users first: [n_users + n_items, d] = [n, d]. Those of a
    batch hold its nodes alone; no product is made for the others where it need not be.
    """

    def behavior(self, batch: Batch | None = None) -> torch.Tensor:
        """LightGCN, mean over layers, of all nodes or of a batch's: [n, d]."""
        nodes = None if batch is None else batch.nodes
        behavior = mean_propagation(self.graph, self.ego(), self.keys.n_ui_layers, nodes)
        return columns.whole(behavior, self.keys.embedding_size)


class ViewKeys(GraphKeys, ItemScoreKeys):
    """What the keys of MGCN and its followers have in common."""

    n_layers: int = setting("L, layers on each item graph", ge=0)
    train_features: bool = setting("whether the raw features are trained too")
    cl_weight: float = setting("λ_cl, weight of the InfoNCE of side and behavior (0: off)", ge=0)
    temperature: float = setting("τ of the InfoNCE", gt=0)
    reg_weight: float = setting("λ_reg, L2 of the batch's representations", ge=0)


V = TypeVar("V", bound=ViewKeys)


class ViewRecommender(GraphRecommender[V]):
    """Base of the models whose representation is e = b + s, behavior b and side s.

    A subclass defines ``views()``, representations of the items in item-item views, which users
    take over from their items by R, the user-item block of the normalised bipartite graph, and
    ``fuse()``, which makes s of them. L = L_BPR + λ_cl L_cl + λ_reg L_2 with L_cl the InfoNCE from
    s to b, over the batch's users and positives with their repetitions, and L_2 of the batch's e.
    """

    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        self.user_graph = SparseGraph(normalize(self.interactions))
        weights = weights_of_modalities(self.modalities, None)
        self.item_scores = ItemScores.from_config(
            config, self.keys, self.interactions, self.features, self.mask, weights
        )

    def views(self) -> list[torch.Tensor]:
        """The items in each view, each [n_items, d], or this process's columns of it."""
        raise NotImplementedError

    def fuse(self, behavior: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        """s [n, d] of any n nodes, from their b [n, d] and views [V, n, d]."""
        raise NotImplementedError

    def forward(self, batch: Batch | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """b and s, each [n, d], of all nodes, or of a batch's."""
        behavior = self.behavior(batch)
        views = self.views()
        rows = with_users(self.user_graph, torch.cat(views, dim=1), batch)
        views = columns.whole(by_view(rows, len(views)), self.keys.embedding_size)
        return behavior, self.fuse(behavior, views)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        behavior, side = self.forward()
        return self.users_and_items(behavior + side)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """The terms, already weighted: (L_BPR, L_cl, L_2)."""
        keys, batch = self.keys, Batch.from_interaction(self, interaction)
        behavior, side = self.forward(batch)
        final = behavior + side
        bpr, l2 = batch.bpr(final), batch.l2(final)
        cl = bpr.new_zeros(())
        if keys.cl_weight > 0:
            cl = batch.info_nce(side, behavior, keys.temperature)
        return bpr, keys.cl_weight * cl, keys.reg_weight * l2


def with_users(
    user_graph: SparseGraph, items: torch.Tensor, batch: Batch | None = None
) -> torch.Tensor:
    """Users by aggregation of their items, stacked on the items: of all nodes or of a batch's.

    Shapes: user_graph [n_users, n_items], items [n_items, c], all of them → [n, c].
    """
    if batch is None:
        return torch.cat([user_graph(items), items])
    return torch.cat([user_graph(items, batch.users), select_rows(items, batch.items)])


def by_view(rows: torch.Tensor, n_views: int) -> torch.Tensor:
    """Views side by side as views one after the other: [n, V·d] → [V, n, d]."""
    return rows.view(len(rows), n_views, -1).transpose(0, 1).contiguous()
