"""REARM: refining contrastive learning and homography relations (arXiv 2508.13745, ACM MM 2025).

1.  Graphs of items, and of users alike. Similarity: the k largest cosines of x^m (of users: z^m,
    the mean of their training items' x^m), itself among them, over k, mixed over modalities.
    Co-occurrence: the k items with most users in common, weighed by the softmax of the numbers of
    these. G = w · co-occurrence + (1 − w) · similarity.
2.  Unit rows of G^{L_ii} (E_I ‖ W_m x^m + b_m …), and so of users from z^m: (i ‖ y^m …).
3.  Attention of items, each of the d dimensions a token, PR a PReLU, LN a layer norm, one for all:
    v^m = PR(LN(y^m + Att(y^m, y^m))), then h^m = PR(LN(v^m + Att(v^other, v^m))), where v^other
    asks. Of users h^m = PR(y^m).
4.  LightGCN of ids and of each h^m on the user-item graph, mean over layers: e and f^m.
5.  Meta-network, of users and of items: a personal low-rank map made of all f^m, applied to e
    (:class:`LowRankMap`), gives what modalities and behavior share: s.
6.  Score: the product of (PR(f^1) + e ‖ PR(f^2) + e … ‖ PR(s) + e). The loss is BPR,
    λ_c InfoNCE(f^1, f^2) over the distinct users, and items, of the batch, and λ_o times the
    :func:`overlap` of f^1 and f^2 of its users, and of its positives.

As in the authors' code: a list of fewer than k co-occurring ones is filled up by draws of its
members, once, and who has none takes the k most active; the raw features are trained, z^m is not;
dropout is of the attention's weights; L2 is AdamW's decay of all parameters (``weight_decay``).

Deviations from the code: a negative is any item outside the user's training. The code spares the
items of validation and test too, and counts these in for the most active users: both leak.

Ours: any number of modalities. Att of h^m, and both terms of the loss, are means over the other
modalities, and over pairs; with one there is none. An item without a modality has no edge in its
similarity, a zero projection and no part in z^m: its y^m is its neighbours'. Negative cosines are
no edges. [PAD] has no part in means.
"""

from __future__ import annotations

import itertools

import scipy.sparse as sp
import torch
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import mean_propagation
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import LightGCNKeys, LightGCNRecommender, RawFeatures
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.dimension_attention import Refinement
from recbole_sigrec.model.homogeneous import Homogeneous, homogeneous_graph, interests
from recbole_sigrec.model.layers import LowRankMap
from recbole_sigrec.model.losses import info_nce, overlap
from recbole_sigrec.model.modality_weights import weights_of_modalities

ITEM_WEIGHTS, USER_WEIGHTS = {"image": 0.0, "text": 1.0}, {"image": 0.2, "text": 0.8}
"""α of similarities, as published for Baby."""


class REARMKeys(LightGCNKeys):
    """The keys of REARM; their defaults are in ``properties/model/REARM.yaml``."""

    n_item_layers: int = setting("L_ii, layers on the items' graph", ge=0)
    n_user_layers: int = setting("L_uu, layers on the users' graph", ge=0)
    knn_k: int = setting("k of the items' graph", ge=1)
    user_knn_k: int = setting("k of the users' graph", ge=1)
    cooccurrence_weight: float = setting("w, co-occurrence in the items' graph", ge=0, le=1)
    user_cooccurrence_weight: float = setting("w, co-occurrence in the users' graph", ge=0, le=1)
    modality_weights: dict[str, float] | None = setting("{modality: its share of similarity}")
    user_modality_weights: dict[str, float] | None = setting("those of the users' graph")
    rank: int = setting("r, the rank of the meta-network's maps", ge=1)
    self_dropout: float = setting("dropout of attention within a modality", ge=0, le=1)
    cross_dropout: float = setting("dropout of attention across modalities", ge=0, le=1)
    cl_weight: float = setting("λ_c, weight of InfoNCE across modalities", ge=0)
    temperature: float = setting("τ of the InfoNCE", gt=0)
    orthogonal_weight: float = setting("λ_o, weight of the overlap of modalities", ge=0)
    train_features: bool = setting("whether the raw features are trained too")


class REARM(LightGCNRecommender[REARMKeys]):
    """The model; tables have the ids' d columns, then each modality's: [n, (M + 1) d]."""

    Keys = REARMKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        for table in (self.user_embedding, self.item_embedding):
            nn.init.normal_(table.weight, std=0.1)
        self.interests = interests(self.interactions, self.features, self.mask)
        self.raw = RawFeatures(self.features, keys.train_features)
        self.taken = RawFeatures(self.interests[0], False)
        of_users, of_items = self.graphs(config)
        self.users = Homogeneous(of_users, *self.interests, d, keys.n_user_layers)
        self.items = Homogeneous(of_items, self.features, self.mask, d, keys.n_item_layers)
        names, width = self.modalities, len(self.modalities) * d
        self.refine = Refinement(names, d, keys.self_dropout, keys.cross_dropout)
        self.user_map, self.item_map = (LowRankMap(width, d, keys.rank) for _ in range(2))

    def graphs(self, config: Config) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """Step 1: G of users and of items."""
        keys, names = self.keys, self.modalities
        r, share = self.interactions, keys.user_cooccurrence_weight
        weights = weights_of_modalities(
            names, keys.user_modality_weights, USER_WEIGHTS, "user_modality_weights"
        )
        users = r, *self.interests, weights, keys.user_knn_k, share
        r, share = sp.csr_matrix(r.T), keys.cooccurrence_weight
        weights = weights_of_modalities(names, keys.modality_weights, ITEM_WEIGHTS)
        items = r, self.features, self.mask, weights, keys.knn_k, share
        return homogeneous_graph(config, *users), homogeneous_graph(config, *items)

    def forward(self) -> torch.Tensor:
        """Steps 2-4: (e ‖ f^1 ‖ f^2 …) of users, then of items."""
        d = self.keys.embedding_size
        users = self.users(self.user_embedding.weight, self.taken)
        items = self.items(self.item_embedding.weight, self.raw)
        users = torch.cat([users[:, :d], self.refine.activation(users[:, d:])], dim=1)
        items = torch.cat([items[:, :d], self.refine(items[:, d:])], dim=1)
        return mean_propagation(self.graph, torch.cat([users, items]), self.keys.n_ui_layers)

    def final(self, table: torch.Tensor, batch: Batch | None = None) -> torch.Tensor:
        """Steps 5-6, what scores are the products of: of all nodes, or of a batch's."""
        d, found = self.keys.embedding_size, []
        chosen = (None, None) if batch is None else (batch.users, batch.items)
        maps = self.user_map, self.item_map
        for personal, side, rows in zip(maps, self.users_and_items(table), chosen):
            own = side if rows is None else select_rows(side, rows)
            e = own[:, :d]
            shared = personal(e, side[:, d:], rows)
            parts = self.refine.activation(torch.cat([own[:, d:], shared], dim=1))
            found.append(parts + e.repeat(1, len(self.modalities) + 1))
        return torch.cat(found)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.users_and_items(self.final(self.forward()))

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """The terms, already weighted: (BPR, InfoNCE, overlap)."""
        keys, batch = self.keys, Batch.from_interaction(self, interaction)
        table = self.forward()
        bpr = batch.bpr(self.final(table, batch))
        features = select_rows(table, batch.nodes)[:, keys.embedding_size :]
        pairs = list(itertools.combinations(features.chunk(len(self.modalities), dim=1), 2))
        cl = alike = bpr.new_zeros(())
        sizes = len(batch.users), len(batch.items)
        for one, two in pairs:
            for a, b in zip(one.split(sizes), two.split(sizes)) if keys.cl_weight > 0 else ():
                share = self.share(len(a))
                cl = cl + info_nce(a, b, keys.temperature, share=share) / len(pairs)
            for rows in batch.rows[:2]:
                alike = alike + overlap(select_rows(one, rows), select_rows(two, rows)) / len(pairs)
        return bpr, keys.cl_weight * cl, self.equal_part(keys.orthogonal_weight * alike)
