"""PGL: principal graph learning for multimedia recommendation (AAAI 2025).

The paper's doi is 10.1609/aaai.v39i12.33429.

1.  Principal subgraph of the user-item graph, for training alone. ``mode: local``: before each
    epoch a share of the edges is drawn without replacement, edge (u, i) with a probability
    proportional to 1/√(d_u d_i); their graph is normalised by its own degrees. ``mode: global``,
    once: of the first d singular values of Â the top quarter, each times one of the last quarter,
    with the top vectors (:func:`.spectral_subgraph`).
2.  Items x_i = ‖_m unit(W_m x_i^m + b_m); users p_u = ‖_m p_u^m, learned. No ids.
3.  LightGCN over the subgraph, from p and x, gives h_u and h_i, the mean over layers.
4.  Item graph: S = Σ_m α_m S^m, S^m the mean over the k items most like each by the cosine of the
    raw features; h_i ← h_i + S^L x_i.
5.  Scores h_u · h_i, over the whole user-item graph Â in evaluation.
6.  L = L_BPR + λ/2 (InfoNCE of users + InfoNCE of positives), each between two views of the batch's
    h, made by dropout.

Followed where the paper and the authors' released code differ: the code, in which 30 % is the share
of edges that is kept, not pruned (there fixed; here 1 − ``edge_dropout``), the raw features are
trained (``train_features``) while S stays that of the given ones, an item is its own neighbour,
nothing else is regularised, and InfoNCE runs over the batch as drawn, so that two rows of one user
are each other's negatives. The learning rate decays by .96 every 50 epochs. λ is ``cl_weight``, in
the code ``reg_weight``. The defaults are those of the authors' logs for Baby: λ .05, ``dropout`` .2
(the released settings say λ = 0). Sports has .1 and .05, Clothing .5 and .1.

Deviation from the code: where ⌊d/4⌋ is odd, ``mode: global`` takes one singular value fewer.

Ours: any number of modalities (α is .1 for image and .9 for text if these are the two, as
published, else equal); an item without one has zeros in its part of x and no edge in its graph;
kept edges are drawn by exponential keys, which is the same distribution; negatives are drawn from
the items seen in training (``negative_items``).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import (
    PrunedGraph,
    SparseGraph,
    bipartite_graph,
    mean_propagation,
    propagate,
    spectral_graph,
)
from recbole_sigrec.graph.unit_rows import unit_rows
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import (
    LightGCNKeys,
    MultimodalRecommender,
    RawFeatures,
    projections,
    xavier_embedding,
)
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.item_graphs import MixedItemGraphKeys, mixed_item_graph
from recbole_sigrec.model.losses import bpr_of_rows, info_nce


class PGLKeys(LightGCNKeys, MixedItemGraphKeys):
    """The keys of PGL; their defaults are in ``properties/model/PGL.yaml``."""

    mode: Literal["local", "global"] = setting("the subgraph: of drawn edges, or of the spectrum")
    edge_dropout: float = setting("share of edges that a subgraph of mode local lacks", ge=0, lt=1)
    train_features: bool = setting("whether the raw features are trained too")
    dropout: float = setting("share of entries dropped in the contrastive views", ge=0, lt=1)
    cl_weight: float = setting("λ, weight of the InfoNCE of the two views (0: off)", ge=0)
    temperature: float = setting("τ of the InfoNCE", gt=0)


class PGL(MultimodalRecommender[PGLKeys]):
    """The model; see the module's text for its steps. d' = M·d is the size of all modalities."""

    Keys = PGLKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        self.graph = SparseGraph(bipartite_graph(self.interactions))
        self.principal_graph = self.graph
        self.pruning = PrunedGraph(self.interactions, keys.edge_dropout)
        if keys.mode == "global":
            self.principal_graph = SparseGraph(spectral_graph(config, self.interactions, d))
        self.item_graph = mixed_item_graph(config, self.features, self.mask)
        self.preference = nn.ParameterDict()
        for name in self.modalities:
            self.preference[name] = xavier_embedding(self.n_users, d).weight
        self.raw = RawFeatures(self.features, keys.train_features)
        self.project = projections(self.features, d)

    def on_epoch_start(self, epoch: int) -> None:
        """Step 1, ``mode: local``."""
        if self.keys.mode == "local" and self.keys.edge_dropout > 0:
            self.principal_graph = self.pruning.draw().to(self.raw[self.modalities[0]].device)

    def items(self) -> torch.Tensor:
        """Step 2: x [n_items, d']."""
        return torch.cat(
            [
                self.masked(name, unit_rows(self.project[name](self.raw[name])))
                for name in self.modalities
            ],
            dim=1,
        )

    def forward(self, graph: SparseGraph) -> tuple[torch.Tensor, torch.Tensor]:
        """Steps 2 to 4: h_u [n_users, d'] and h_i [n_items, d']."""
        keys, x = self.keys, self.items()
        p = torch.cat([self.preference[name] for name in self.modalities], dim=1)
        h = mean_propagation(graph, torch.cat([p, x]), keys.n_ui_layers)
        users, items = self.users_and_items(h)
        return users, items + propagate(self.item_graph, x, keys.n_item_layers)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward(self.graph)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 6 as its terms, already weighted: (BPR, InfoNCE)."""
        users, items = self.forward(self.principal_graph)
        h_u = select_rows(users, interaction[self.USER_ID])
        h_i = select_rows(items, interaction[self.ITEM_ID])
        n = len(h_u)
        share = self.share(n)
        h_j = select_rows(items, interaction[self.NEG_ITEM_ID][share])
        bpr = bpr_of_rows(h_u[share], h_i[share], h_j, n)
        weight, cl = self.keys.cl_weight, bpr.new_zeros(())
        if weight > 0:
            cl = self.between_views(h_u) + self.between_views(h_i)
        return bpr, weight / 2 * cl

    def between_views(self, h: torch.Tensor) -> torch.Tensor:
        """InfoNCE of two views of a batch's rows, or this process's share of it: [n, d'] → scalar.

        The rows are not made distinct: each has a mask of its own.
        """
        one, two = (F.dropout(h, self.keys.dropout) for _ in range(2))
        return info_nce(one, two, self.keys.temperature, share=self.share(len(h)))
