"""What DualGNN, DRAGON and MENTOR share: a convolution for each modality, and the users' graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import CooccurrenceGraph, SparseGraph, bipartite_graph, mean_propagation
from recbole_sigrec.graph.unit_rows import unit_rows
from recbole_sigrec.kernels.products import Linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import EmbeddingKeys, MultimodalRecommender, RawFeatures
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.losses import bpr_of_rows


class BranchKeys(EmbeddingKeys):
    """The keys of models with a convolution for each modality."""

    n_ui_layers: int = setting("L, layers on the user-item graph", ge=0)
    reg_weight: float = setting("λ, L2 of the batch's preferences and of the users' weights", ge=0)


B = TypeVar("B", bound=BranchKeys)


class ModalityBranch(nn.Module):
    """The parameters of one modality: users' preferences and a projection of the items' features.

    Attributes:
        preference: P [n_users, d].
        project: W₂ LeakyReLU(W₁ x + b₁) + b₂, from the features' width to 4d to d.
    """

    def __init__(self, n_users: int, width: int, d: int):
        super().__init__()
        self.preference = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_users, d)))
        self.project = nn.Sequential(Linear(width, 4 * d), nn.LeakyReLU(), Linear(4 * d, d))

    def forward(self, features: torch.Tensor, has: torch.Tensor | None = None) -> torch.Tensor:
        """Unit rows of the preferences and of the projected items, stacked.

        Shapes: features [n_items, width], has bool [n_items], the items that are not zero (default:
        all are not) → [n, d].
        """
        items = self.project(features)
        if has is not None:
            items = items.where(has[:, None], 0.0)
        return unit_rows(torch.cat([self.preference, items]))


class BranchRecommender(MultimodalRecommender[B]):
    """Base of the models that convolve each modality by itself.

    In modality m, x = unit([P; f]), f the items' projected features, and h = x + Âx + … + Â^L x on
    the normalised user-item graph. Tables of users and items are stacked, users first: [n, d].
    A user has a weight for each modality. An item that lacks a modality starts as zero in it, so
    that its h is what its users bring.

    Attributes:
        branch: modality name → :class:`ModalityBranch`.
        user_weight: a [n_users, M]; near 1/M at the start, then free.
    """

    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        self.graph = SparseGraph(bipartite_graph(self.interactions))
        self.raw = RawFeatures(self.features, trained=False)
        self.branch = self.branches()
        weight = nn.init.xavier_normal_(torch.empty(self.n_users, len(self.modalities), 1))
        self.user_weight = nn.Parameter(weight.softmax(dim=1).squeeze(2))

    def branches(self) -> nn.ModuleDict:
        """A new branch for each modality."""
        d = self.keys.embedding_size
        return nn.ModuleDict(
            {n: ModalityBranch(self.n_users, x.shape[1], d) for n, x in self.features.items()}
        )

    def starts(self, branch: nn.ModuleDict) -> list[torch.Tensor]:
        """x of each modality: M of [n, d]."""
        return [
            branch[name](self.raw[name], getattr(self, f"has_{name}")) for name in self.modalities
        ]

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """x + Âx + … + Â^L x: [n, d] → [n, d]."""
        n_layers = self.keys.n_ui_layers
        return (n_layers + 1) * mean_propagation(self.graph, x, n_layers)

    def convolved(self) -> list[torch.Tensor]:
        """h of each modality: M of [n, d]."""
        return [self.convolve(x) for x in self.starts(self.branch)]

    def split(self, parts: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The users of each modality's table [n, d], times their weights, and its items."""
        pairs = [self.users_and_items(part) for part in parts]
        weights = self.user_weight.split(1, dim=1)
        users = [a * users for a, (users, _) in zip(weights, pairs, strict=True)]
        return users, [items for _, items in pairs]

    def losses(
        self, users: torch.Tensor, items: torch.Tensor, interaction: Interaction
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(BPR with the logarithm to base 2, λ L2), or this process's share of them.

        L2 is the mean square of the preferences of the batch's users as drawn, summed over the
        modalities, plus that of all users' weights. Shapes: [n_users, c], [n_items, c].
        """
        n = len(interaction[self.USER_ID])
        share = self.share(n)
        fields = self.USER_ID, self.ITEM_ID, self.NEG_ITEM_ID
        u, i, j = (interaction[field][share] for field in fields)
        h_i, h_j = select_rows(items, torch.cat([i, j])).chunk(2)
        bpr = bpr_of_rows(select_rows(users, u), h_i, h_j, n) / math.log(2)
        l2 = self.equal_part(self.user_weight[1:].square().mean())
        for branch in self.branch.values():
            rows = select_rows(branch.get_parameter("preference"), u)
            l2 = l2 + rows.square().sum() / (n * rows.shape[1])
        return bpr, self.keys.reg_weight * l2


class UserGraphKeys(BranchKeys):
    """The keys of models that have a graph of co-occurring users beside it."""

    user_knn_k: int = setting("K, neighbours of a user on the user-user graph", ge=1)


U = TypeVar("U", bound=UserGraphKeys)


class UserGraphRecommender(BranchRecommender[U]):
    """Base of those that refine the users on the graph Q of co-occurring users: U = U⁰ + Q U⁰.

    Short lists of neighbours are filled up anew before each epoch. A subclass defines ``fuse()``.
    """

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        memory_mb: int = config["graph_memory_mb"]
        self.cooccurrence = CooccurrenceGraph(self.interactions, self.keys.user_knn_k, memory_mb)
        self.user_graph = self.drawn_graph = self.cooccurrence.expected()

    def on_epoch_start(self, epoch: int) -> None:
        self.drawn_graph = self.cooccurrence.draw().to(self.user_weight.device)

    def fuse(
        self, users: Sequence[torch.Tensor], items: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """U⁰ [n_users, c] and I [n_items, c] from the a h and the h of all modalities."""
        raise NotImplementedError

    def forward(self, user_graph: SparseGraph) -> tuple[torch.Tensor, torch.Tensor]:
        """U [n_users, c] and I [n_items, c]."""
        users, items = self.fuse(*self.split(self.convolved()))
        return users + user_graph(users), items

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward(self.user_graph)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """(BPR, λ L2)."""
        return self.losses(*self.forward(self.drawn_graph), interaction)
