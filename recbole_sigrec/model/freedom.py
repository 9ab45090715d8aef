"""FREEDOM: a tale of two graphs, freezing and denoising (arXiv 2211.06924, ACM MM 2023).

1.  Frozen item graph: the k most similar items of each by the cosine of the raw features, edges of
    weight 1, S̃^m = D^{-1/2} S^m D^{-1/2} with D the row sums, S = Σ_m α_m S̃^m, made once. (Each
    row of the directed graph has k edges, so that S̃ is the mean over the neighbours.)
2.  Degree-sensitive edge pruning: before each epoch (1 − ρ) of the user-item edges are drawn
    without replacement, edge (u, i) with a probability proportional to 1/√(d_u d_i); their graph is
    normalised anew. Training propagates over it, evaluation over the whole graph.
3.  ĩ = S^{L_ii} i; LightGCN gives ū and ī, the mean over L_ui layers; h_u = ū, h_i = ī + ĩ.
4.  Scores h_u · h_i; the loss is BPR on them, plus λ times the BPR of h_u · (W_m x_i^m + b_m) for
    each modality m.

Followed where the paper and the authors' released code differ: the code, in which the raw features
are trained in step 4 (``train_features``) while the graph of step 1 stays that of the given ones,
an item is its own neighbour (``knn_self``), and nothing else is regularised. Ours: any number of
modalities (α is .1 for image and .9 for text if these are the two, as published, else equal); an
item without a modality has no edge in its graph, and a pair with such an item no part in its BPR
term; kept edges are drawn by exponential keys, which is the same distribution; negatives are drawn
from the items seen in training (``negative_items``).
"""

from __future__ import annotations

import torch

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import PrunedGraph, SparseGraph, propagate
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import DIVIDED_IDS, LightGCNKeys, RawFeatures, projections
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.item_graphs import MixedItemGraphKeys, mixed_item_graph
from recbole_sigrec.model.losses import bpr_of_rows
from recbole_sigrec.model.views import GraphRecommender
from recbole_sigrec.parallel import columns


class FREEDOMKeys(LightGCNKeys, MixedItemGraphKeys):
    """The keys of FREEDOM; their defaults are in ``properties/model/FREEDOM.yaml``."""

    train_features: bool = setting("whether the raw features are trained too")
    edge_dropout: float = setting("ρ, the share of user-item edges pruned", ge=0, lt=1)
    modal_weight: float = setting("λ, weight of the modalities' BPR terms", ge=0)


class FREEDOM(GraphRecommender[FREEDOMKeys]):
    """The model; see the module's text for its steps."""

    Keys = FREEDOMKeys
    loss_in_shares = True
    divided_tables = DIVIDED_IDS

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        self.item_graph = mixed_item_graph(config, self.features, self.mask)
        self.pruned_graph = self.graph
        self.pruning = PrunedGraph(self.interactions, self.keys.edge_dropout)
        self.raw = RawFeatures(self.features, self.keys.train_features)
        self.project = projections(self.features, self.keys.embedding_size)

    def on_epoch_start(self, epoch: int) -> None:
        """Step 2."""
        if self.keys.edge_dropout > 0:
            self.pruned_graph = self.pruning.draw().to(self.user_embedding.weight.device)

    def forward(self, graph: SparseGraph) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 3: h_u [n_users, d] and h_i [n_items, d], or this process's columns of them."""
        users, items = self.lightgcn(self.keys.n_ui_layers, graph)
        h = propagate(self.item_graph, self.item_embedding.weight, self.keys.n_item_layers)
        return users, items + h

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward(self.graph)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 4 as its terms, already weighted: (BPR, the modalities' BPR)."""
        users, items = self.forward(self.pruned_graph)
        i, j = interaction[self.ITEM_ID], interaction[self.NEG_ITEM_ID]
        n = len(i)
        share = self.share(n)
        rows = select_rows(users, interaction[self.USER_ID]), select_rows(items, torch.cat([i, j]))
        h_u, h_i, h_j = columns.whole(torch.cat(rows), self.keys.embedding_size).chunk(3)
        bpr = bpr_of_rows(h_u[share], h_i[share], h_j[share], n)
        modal = bpr.new_zeros(())
        for name in self.modalities if self.keys.modal_weight > 0 else ():
            has = getattr(self, f"has_{name}")
            rows = (has[i] & has[j]).nonzero().squeeze(1)
            n = len(rows)
            rows = rows[self.share(n)]
            h_m = self.project[name](select_rows(self.raw[name], torch.cat([i[rows], j[rows]])))
            h_i, h_j = h_m.chunk(2)
            modal = modal + bpr_of_rows(select_rows(h_u, rows), h_i, h_j, max(n, 1))
        return bpr, self.keys.modal_weight * modal
