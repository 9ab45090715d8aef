"""MGCN: multi-view graph convolutional network for multimedia recommendation (arXiv 2308.03588).

The sections are the paper's (ACM MM 2023).

1.  Behavior-guided purifier (3.2): ẍ_i^m = e_i ⊙ σ(W₂ (W₁ x_i^m + b₁) + b₂), e_i the item's own
    embedding.
2.  User-item view (3.3.1): b = LightGCN, mean over layers.
3.  Item-item views (3.3.2): S^m_ij = cos(x_i^m, x_j^m), top k per row, Ŝ^m = D^{-1/2} S^m D^{-1/2};
    h_i^m = (Ŝ^m)^L ẍ_i^m; users h_u^m = Σ_{i ∈ N_u} h_i^m / √(|N_u| |N_i|).
4.  Behavior-aware fuser (3.4): c = Σ_m a_m h^m with a = softmax_m(qᵀ tanh(W₃ h^m + b₃)); each
    modality's own part σ(W_m b + b_m) ⊙ (h^m − c) is added to it: s.
5.  e = b + s; score e_u · e_i; L = L_BPR + λ_cl (InfoNCE(s, b) of users and of items) + λ_reg L_2.

Where the paper and the authors' released code differ, the code is followed:

- s = (c + Σ_m own part) / (|M| + 1); the paper adds the mean of the own parts to c.
- The gates σ(W_m b) see the propagated b, not the embeddings.
- L_2 is ½ Σ‖e‖² / batch of the batch's propagated e, not of the parameters.
- InfoNCE runs over the batch as drawn: a node counts as often as it occurs.
- The raw features are trained (``train_features``); an item is among its own k neighbours, edges
  weigh their cosine and go one way, D holds the row sums.
- The learning rate decays by .96 every 50 epochs; negatives come from items seen in training.

Ours: any number of modalities. An item without one has no edge in its graph, so that its h^m is
zero. Negative similarities are no edges. All weight matrices start Xavier-uniform, where the code
has torch's default. The one number of layers of the code's item graphs is a key.
"""

from __future__ import annotations

import torch
from torch import nn

from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import SparseGraph, propagate
from recbole_sigrec.model.base import DIVIDED_IDS, RawFeatures, xavier_linear
from recbole_sigrec.model.item_graphs import item_graphs
from recbole_sigrec.model.layers import BehaviorAwareFusion, Purifier
from recbole_sigrec.model.views import ViewKeys, ViewRecommender


class MGCNKeys(ViewKeys):
    """The keys of MGCN; their defaults are in ``properties/model/MGCN.yaml``."""


class MGCN(ViewRecommender[MGCNKeys]):
    """The model; see the module's text for its equations and ``MGCNKeys`` for its keys."""

    Keys = MGCNKeys
    divided_tables = DIVIDED_IDS

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        d = self.keys.embedding_size
        graphs = item_graphs(config, self.features, self.mask)
        self.item_graph = nn.ModuleDict({name: SparseGraph(graphs[name]) for name in graphs})
        self.raw = RawFeatures(self.features, self.keys.train_features)
        sizes = {name: features.shape[1] for name, features in self.features.items()}
        self.purify = nn.ModuleDict({name: Purifier(sizes[name], d) for name in sizes})
        self.fusion = BehaviorAwareFusion(len(self.modalities), d)
        xavier_linear(self)

    def views(self) -> list[torch.Tensor]:
        """Steps 1 and 3: h^m of the items."""
        ids, layers = self.item_embedding.weight, self.keys.n_layers
        return [
            propagate(self.item_graph[name], self.purified(name, ids), layers)
            for name in self.modalities
        ]

    def purified(self, name: str, ids: torch.Tensor) -> torch.Tensor:
        """Step 1: ẍ^m [n_items, d]."""
        return self.masked(name, self.purify[name](ids, self.raw[name]))

    def fuse(self, behavior: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        """Step 4."""
        return self.fusion(behavior, views)
