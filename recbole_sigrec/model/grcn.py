"""GRCN: graph-refined convolutional network (ACM MM 2020, DOI 10.1145/3394171.3413556).

Implicit feedback has false positives. Content tells which of a user's items fit the user's taste,
and so weighs the edges over which the ids are propagated.

1.  Content: in each modality m items f = unit(LeakyReLU(W_m x^m + b_m)), users p = unit(P^m).
2.  Routing of preferences: n times p_u ← unit(p_u + Σ_{i ∈ N_u} a_ui f_i), with a the softmax of
    p_u · f_i over the items of u.
3.  Attention: z = (p, f); of each directed edge j → i, α_ij = softmax of z_i · z_j over the
    neighbours j of i. So a user's weights over items add up to 1, and an item's over users too.
    r^m_i = z_i + Σ_j α_ij z_j.
4.  Refined edges: w_ij = max_m α^m_ij C_jm, with a learned confidence C of each node in each
    modality, the sender's; pruned, max(w, 0).
5.  Ids: x^(0) = unit(E), x^(l+1) = w x^(l) with no other normalisation; h = x^(0) + x^(1) + x^(2).
6.  Representation h ‖ r^1 ‖ r^2 …, one part for each modality; scores are products.
7.  L = BPR + λ (mean of E_u² + E_i² + mean of each (P^m_u)²), over the batch, in which each user
    stands with its positive and with its negative; means are over rows and entries.

Where the paper and the authors' released code differ, the code is followed: the weights of an edge
are combined by step 4's maximum, W_m is trained and C is not in L. Step 2 does nothing in the
code, whose messages go to the items alone: ``n_routings: 0``; the paper has 3. Edges are pruned by
default, as MMRec does; all of the authors' commands switch it off (``prune: False``). W_m starts
Xavier-normal, as MMRec's, whose grid has the rates 1e-3 and 1e-4; the authors' is 1e-4.

Deviations from the code: evaluation computes the representations anew, where MMRec's has those of
the last training batch. MMRec's additional penalty of all users' P of images is left out.

Ours: any number of modalities. An item without one has no edge in its attention and f = 0 there,
so that its r^m is zero; an edge takes its maximum over the modalities that its item has, and weighs
nothing if there is none. Negatives come from the items seen in training (``negative_items``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import EdgeGraph
from recbole_sigrec.graph.unit_rows import unit_rows
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import (
    EmbeddingKeys,
    MultimodalRecommender,
    RawFeatures,
    projections,
)
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.losses import bpr_of_rows, l2_loss

_N_LAYERS = 2  # of step 5


class GRCNKeys(EmbeddingKeys):
    """The keys of GRCN; their defaults are in ``properties/model/GRCN.yaml``."""

    feature_size: int = setting("the size of preferences and of projected features", ge=1)
    n_routings: int = setting("routings of the preferences (0: none, as released)", ge=0)
    prune: bool = setting("cut the edges of negative weight")
    reg_weight: float = setting("λ, L2 of the batch's ids and preferences", ge=0)
    train_features: bool = setting("whether the raw features are trained too")


class GRCN(MultimodalRecommender[GRCNKeys]):
    """The model; tables of users and items are stacked, users first: n = n_users + n_items."""

    Keys = GRCNKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, n = self.keys, self.n_users + self.n_items
        self.edges = EdgeGraph(self.interactions)
        self.raw = RawFeatures(self.features, keys.train_features)
        self.project = projections(self.features, keys.feature_size)  # W_m
        self.ids = nn.Parameter(torch.empty(n, keys.embedding_size))  # E
        self.confidence = nn.Parameter(torch.empty(n, len(self.modalities)))  # C
        shape = self.n_users, keys.feature_size
        self.preference = nn.ParameterDict(  # P
            {name: nn.Parameter(torch.empty(shape)) for name in self.modalities}
        )
        weights = [layer.get_parameter("weight") for layer in self.project.values()]
        for table in (self.ids, self.confidence, *self.preference.values(), *weights):
            nn.init.xavier_normal_(table)

    def content(self, name: str) -> tuple[torch.Tensor, ...]:
        """Steps 1-3 in one modality: r of users and of items; α of edges to users and to items."""
        edges, has = self.edges, getattr(self, f"has_{name}")[self.edges.col]
        f = F.leaky_relu(self.project[name](self.raw[name]))
        f = self.masked(name, unit_rows(f))
        p = unit_rows(self.preference[name])
        for _ in range(self.keys.n_routings):
            p = unit_rows(p + edges.product(edges.softmax(edges.dots(p, f), has), f))
        logits = edges.dots(p, f)
        to_users, to_items = (edges.softmax(logits, has, turned) for turned in (False, True))
        r_u, r_i = p + edges.product(to_users, f), f + edges.product(to_items, p, transposed=True)
        return r_u, r_i, to_users, to_items

    def refined(self, alpha: list[torch.Tensor], sender: torch.Tensor) -> torch.Tensor:
        """Step 4: w [n_edges] of each modality's α [n_edges] and C of the senders [n_edges, M]."""
        weight = torch.stack(alpha, dim=1) * sender
        has = [getattr(self, f"has_{name}")[self.edges.col] for name in self.modalities]
        has = torch.stack(has, dim=1)
        weight = weight.where(has, -torch.inf).amax(dim=1).where(has.any(dim=1), 0.0)
        return weight.relu() if self.keys.prune else weight

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        r_u, r_i, to_users, to_items = map(list, zip(*map(self.content, self.modalities)))
        edges, (c_u, c_i) = self.edges, self.users_and_items(self.confidence)
        to_users = self.refined(to_users, select_rows(c_i, edges.col))
        to_items = self.refined(to_items, select_rows(c_u, edges.row))
        users, items = h_u, h_i = self.users_and_items(unit_rows(self.ids))
        for _ in range(_N_LAYERS):
            users, items = (
                edges.product(to_users, items),
                edges.product(to_items, users, transposed=True),
            )
            h_u, h_i = h_u + users, h_i + items
        return torch.cat([h_u, *r_u], dim=1), torch.cat([h_i, *r_i], dim=1)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """(BPR, L2)."""
        keys, n = self.keys, len(interaction)
        share = self.share(n)
        fields = self.USER_ID, self.ITEM_ID, self.NEG_ITEM_ID
        u, i, j = (interaction[field][share] for field in fields)
        users, items = self.representations()
        h_u, h_i, h_j = select_rows(users, u), select_rows(items, i), select_rows(items, j)
        bpr = bpr_of_rows(h_u, h_i, h_j, n)
        e_u, e_i = self.users_and_items(self.ids)
        own = [select_rows(e_u, u)] * 2 + [select_rows(e_i, rows) for rows in (i, j)]
        l2 = l2_loss(*own, n=n) / keys.embedding_size
        for table in self.preference.values():
            l2 = l2 + 2 * l2_loss(select_rows(table, u), n=n) / keys.feature_size
        return bpr, keys.reg_weight * l2
