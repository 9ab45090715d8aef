"""SMORE: spectrum-based modality representation fusion (arXiv 2412.14978, WSDM 2025).

1.  Spectrum fusion: x̂_i^m = F(W_m x_i^m + b_m), the Fourier transform along the d dimensions;
    each modality is filtered, x̃_i^m = F⁻¹(k_m ⊙ x̂_i^m), and all are fused, x̃_i^f =
    F⁻¹(k_f ⊙ ∏_m x̂_i^m), by learned complex filters k.
2.  Behavior b: LightGCN on the user-item graph, mean over layers.
3.  Views: S^m the k-NN graph of each modality, Ŝ^m = D^{-1/2} S^m D^{-1/2}; Ŝ^f the largest of the
    Ŝ^m, edge by edge. For v among the modalities and f: h_i^v = (Ŝ^v)^L (e_i ⊙ σ(U_v x̃_i^v + u_v)),
    e_i the item's own embedding; users h_u^v = Σ_{i ∈ N_u} h_i^v / √(|N_u| |N_i|).
4.  Modality-aware preferences: each view's part is gated by the behavior, that of a modality is
    also weighed by a = softmax(Q_m tanh(P_m h^f + p_m)) over its d dimensions:
    g^m = σ(V_m b + c_m) ⊙ a^m ⊙ h^m, g^f = σ(V_f b + c_f) ⊙ h^f; s = (Σ_m g^m + g^f) / (|M| + 1).
5.  e = b + s; score e_u · e_i; L = L_BPR + λ_cl (InfoNCE(s, b) of users and of items) + λ_reg L_2.

From the paper: the spectrum fusion, the three kinds of views, max-pooling of the graphs, the
preference module and the objective. As the authors' released code has them, where the paper is
silent or differs: softmax over the dimensions rather than over the modalities; σ(V b) on the
propagated b, with dropout; orthonormal transforms of real input; filters from a standard normal;
and all that :mod:`.mgcn` names: L_2 of the batch's propagated e, InfoNCE over the batch with its
repetitions, trained features, k neighbours that include the item, one-way edges, D of row sums, a
learning rate that decays by .96 every 50 epochs, negatives from items seen in training.

Ours: any number of modalities (the fused spectrum is the product of all). An item without one has
no edge in that one's graph, so that its h^m is zero, and its spectrum is no factor of the product.
The code tunes k for each modality; here all have ``knn_k``. Weights start Xavier-uniform, where the
code has torch's default. Negative similarities are no edges.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import SparseGraph, propagate
from recbole_sigrec.kernels.products import Linear
from recbole_sigrec.model.base import DIVIDED_IDS, RawFeatures, xavier_linear
from recbole_sigrec.model.item_graphs import item_graphs
from recbole_sigrec.model.layers import ColumnLinear
from recbole_sigrec.model.views import ViewKeys, ViewRecommender


class SMOREKeys(ViewKeys):
    """The keys of SMORE; their defaults are in ``properties/model/SMORE.yaml``."""

    dropout: float = setting("share of entries dropped in the preferences", ge=0, lt=1)


class SMORE(ViewRecommender[SMOREKeys]):
    """The model; its views are those of the modalities, in their order, and then the fused one."""

    Keys = SMOREKeys
    divided_tables = DIVIDED_IDS

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        d, n_views = self.keys.embedding_size, len(self.modalities) + 1
        graphs = list(item_graphs(config, self.features, self.mask).values())
        graphs.append(functools.reduce(lambda a, b: a.maximum(b), graphs))
        self.item_graph = nn.ModuleList(map(SparseGraph, graphs))
        self.raw = RawFeatures(self.features, self.keys.train_features)
        self.project = nn.ModuleDict()
        for name, features in self.features.items():
            self.project[name] = Linear(features.shape[1], d)
        self.filters = nn.Parameter(torch.randn(n_views, d // 2 + 1, 2))  # k, as real numbers
        self.gate = nn.ModuleList(ColumnLinear(d, d) for _ in range(n_views))
        # On the rows of a batch, whose number varies: torch's own products.
        self.query = nn.ModuleList(
            nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, d, bias=False))
            for _ in self.modalities
        )
        self.preference = nn.ModuleList(nn.Linear(d, d) for _ in range(n_views))
        xavier_linear(self)

    def spectrum_fusion(self) -> list[torch.Tensor]:
        """Step 1: x̃ of each view, each [n_items, d]."""
        spectra, product = [], 1.0
        for name in self.modalities:
            x = self.project[name](self.raw[name]).to(self.filters.dtype)  # no half precision
            spectrum = torch.fft.rfft(x, norm="ortho")  # [n_items, d/2 + 1]
            spectra.append(spectrum)
            product = product * self.masked(name, spectrum, otherwise=1.0)
        d = self.keys.embedding_size
        return [
            torch.fft.irfft(spectrum * torch.view_as_complex(k), n=d, norm="ortho")
            for spectrum, k in zip([*spectra, product], self.filters, strict=True)
        ]

    def views(self) -> list[torch.Tensor]:
        """Step 3: h^v of the items."""
        ids, layers = self.item_embedding.weight, self.keys.n_layers
        gated = [
            ids * torch.sigmoid(gate(x))
            for gate, x in zip(self.gate, self.spectrum_fusion(), strict=True)
        ]
        parts = [self.masked(name, x) for name, x in zip(self.modalities, gated)]
        return [
            propagate(graph, x, layers)
            for graph, x in zip(self.item_graph, [*parts, gated[-1]], strict=True)
        ]

    def fuse(self, behavior: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        """Step 4."""
        preferences = [
            F.dropout(torch.sigmoid(layer(behavior)), self.keys.dropout, self.training)
            for layer in self.preference
        ]
        fused = views[-1]
        side = preferences[-1] * fused
        for query, preference, h in zip(self.query, preferences, views[:-1]):
            side = side + preference * query(fused).softmax(dim=1) * h
        return side / len(views)
