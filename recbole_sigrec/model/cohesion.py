"""COHESION: composite graph convolutional network with dual-stage fusion (arXiv 2504.04452).

Known of the paper (SIGIR 2025) is its abstract's level: an early fusion that refines all modalities
by the id embedding, a late fusion of their representations, a composite network of user-item,
user-user and item-item graphs, and an adaptive optimisation that keeps the modalities balanced
[paper]. Neither its equations nor the authors' code were at hand: the forms below are ours, the
simplest that do what the abstract says, after works it builds on [ours: DRAGON's and FREEDOM's
graphs, MGCN's purifier]. Results are this model's, not the paper's.

1.  Early fusion [paper]: x̃_i^m = e_i ⊙ σ(W₂ (W₁ x_i^m + b₁) + b₂), e_i the item's embedding
    [form ours: MGCN's purifier].
2.  Heterogeneous graph [paper]: a channel c for the ids and one for each modality; LightGCN, mean
    over layers, from users p_u^c and items e_i or x̃_i^m: h^c. The p_u^c are embeddings of their own
    for each channel [ours, as in MMGCN and DRAGON].
3.  Late fusion [paper]: the channels side by side, h = [h^id, h^1, …, h^M], so that a score is the
    sum of the channels' scores [form ours].
4.  Homogeneous graphs [paper]: e_u = h_u + A_uu^L h_u and e_i = h_i + A_ii^L' h_i. A_uu: the k
    users with most items in common, weighted by their number, rows of sum 1 [ours; DRAGON takes
    the softmax of the numbers]. A_ii: the mean over modalities of the normalised k-NN graphs
    D^{-1/2} S^m D^{-1/2} of the raw features, frozen [ours; FREEDOM has a weight].
5.  L = L_BPR + λ_a Σ_c γ_c L_BPR^c + λ_reg L_2: L_BPR^c is the BPR of channel c's scores alone,
    γ = softmax_c(L_BPR^c) without gradient, so that the channel that ranks worst is trained most
    [adaptive balance: paper; form ours]; L_2 is ½ Σ‖e‖²/batch of the batch's e [ours].

Any number of modalities. An item without one has no edge in that one's graph, where the mean is
over those that it has, and starts its channel at zero: it is what its users make it.
"""

from __future__ import annotations

import functools
import operator
from typing import Literal

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import (
    SparseGraph,
    collaborative_graph,
    mean_propagation,
    normalize,
    propagate,
)
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import RawFeatures, xavier_embedding, xavier_linear
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.item_graphs import item_graphs
from recbole_sigrec.model.layers import Purifier
from recbole_sigrec.model.losses import bpr_loss
from recbole_sigrec.model.views import GraphKeys, GraphRecommender


class COHESIONKeys(GraphKeys):
    """The keys of COHESION; their defaults are in ``properties/model/COHESION.yaml``."""

    train_features: bool = setting("whether the raw features are trained too")
    adaptive_weight: float = setting("λ_a, weight of the channels' own BPR", ge=0)
    reg_weight: float = setting("λ_reg, L2 of the batch's representations", ge=0)
    n_user_layers: int = setting("L, layers on the user-user graph", ge=1)
    n_item_layers: int = setting("L', layers on the item-item graph", ge=1)
    collab_knn_k: int = setting("k of the user-user graph, which knn_symmetric is for too", ge=1)
    collab_measure: Literal["cosine", "jaccard", "count", "random_walk"] = setting(
        "edge weights of the user-user graph"
    )
    collab_max_history: int | None = setting(
        "items of more users are left out of the user-user graph; none given: none", ge=1
    )


class COHESION(GraphRecommender[COHESIONKeys]):
    """The model; its channels are the ids' and then the modalities', in their order."""

    Keys = COHESIONKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        d = self.keys.embedding_size
        users = collaborative_graph(config, self.interactions.T.tocsr())
        self.user_graph = SparseGraph(normalize(users, "row"))
        n_modalities = torch.stack(list(self.mask.values())).sum(dim=0).clamp(min=1)
        graphs = item_graphs(config, self.features, self.mask)
        total = functools.reduce(operator.add, graphs.values())
        self.item_graph = SparseGraph(sp.diags(1 / n_modalities.numpy()) @ total)
        self.raw = RawFeatures(self.features, self.keys.train_features)
        self.purify, self.preference = nn.ModuleDict(), nn.ModuleDict()
        for name, features in self.features.items():
            self.purify[name] = Purifier(features.shape[1], d)
            self.preference[name] = xavier_embedding(self.n_users, d)
        xavier_linear(self)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Steps 1-4: users [n_users, C·d] and items [n_items, C·d], channels side by side."""
        keys, ids = self.keys, self.item_embedding.weight
        users, items = [self.user_embedding.weight], [ids]
        for name in self.modalities:
            users.append(self.preference.get_parameter(f"{name}.weight"))
            items.append(self.masked(name, self.purify[name](ids, self.raw[name])))
        ego = torch.cat([torch.cat(users, dim=1), torch.cat(items, dim=1)])
        h = mean_propagation(self.graph, ego, keys.n_ui_layers)
        users, items = h.split([self.n_users, self.n_items])
        users = users + propagate(self.user_graph, users, keys.n_user_layers)
        return users, items + propagate(self.item_graph, items, keys.n_item_layers)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 5 as its terms, already weighted: (L_BPR, Σ_c γ_c L_BPR^c, L_2)."""
        keys, batch = self.keys, Batch.from_interaction(self, interaction)
        final = batch.gather(*self.representations())
        u, i, j = (select_rows(final, rows) for rows in batch.rows)
        margins = (u * (i - j)).view(batch.n, -1, keys.embedding_size).sum(dim=2)  # [batch, C]
        channels = F.softplus(-margins)
        balance = channels.detach().mean(dim=0).softmax(dim=0)  # γ, of the whole batch
        share, zero = self.share(batch.n), margins.new_zeros(())
        bpr = bpr_loss(margins[share].sum(dim=1), zero, batch.n)
        adaptive = channels[share].sum(dim=0) @ balance / batch.n
        return bpr, keys.adaptive_weight * adaptive, keys.reg_weight * batch.l2(final)
