"""LATTICE: mining latent structures for multimedia recommendation (arXiv 2104.09036, ACM MM 2021).

1.  Initial item graph of each modality: the cosines of the raw features, the k largest of each row,
    S̃^m = D^{-1/2} S^m D^{-1/2} with D the row sums.
2.  Learned item graph of each modality: the same top k of the cosines of x̃^m = W_m x^m + b_m.
3.  α = softmax of one number for each modality; the item graph is
    A = λ Σ_m α_m S̃^m + (1 − λ) D^{-1/2} (Σ_m α_m A^m) D^{-1/2}.
4.  h = A^L i; LightGCN gives ū and ī, the mean over L_ui layers; h_u = ū, h_i = ī + h / ‖h‖₂.
5.  Scores h_u · h_i; the loss is BPR and L2 of the batch's representations.

Where the paper and the authors' released code differ, the code is followed: the learned graphs are
mixed before they are normalised (the paper normalises each), an item is its own neighbour, the raw
features are trained (``train_features``), and A is built anew, with a gradient to W, b, α and x,
for the first batch of an epoch alone. The other batches take that graph as constant; evaluation
builds its own. The learning rate decays by .96 every 50 epochs.

Deviations from the code:

- The user-item graph of step 4 is LightGCN's D^{-1/2} A D^{-1/2}. The code has D^{-1} (A + I), D
  the row sums of A + I; ``ui_graph: authors`` takes that one.
- W, b, α and x rest while they have no gradient (the code's old Adam let its momentum move them).

Ours: any number of modalities; an item without one has no edge in its graphs; negative cosines are
dropped, lest a row sum be negative; of the paper's backbones, LightGCN; negatives are drawn from
the items seen in training (``negative_items``). Exact, but never n × n: the top k are chosen
without a gradient, and the k kept cosines of each row computed again with one.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import (
    SparseGraph,
    bipartite_graph,
    infuse,
    kept_cosines,
    normalize,
    propagate,
    semantic_graph,
)
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import LightGCNKeys, LightGCNRecommender, RawFeatures, projections
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.losses import bpr_of_rows, l2_loss

ItemGraph = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""α [M], and the learned part's columns and entries [n_items, M·k]."""


class LATTICEKeys(LightGCNKeys):
    """The keys of LATTICE; their defaults are in ``properties/model/LATTICE.yaml``."""

    initial_weight: float = setting("λ, the share of the initial item graph", ge=0, le=1)
    reg_weight: float = setting("L2 of the batch's representations", ge=0)
    feature_size: int = setting("the size of the projected features", ge=1)
    train_features: bool = setting("whether the raw features are trained too")
    knn_k: int = setting("k of the item graphs", ge=1)
    knn_self: bool = setting("count an item as its own neighbour")
    n_item_layers: int = setting("L, layers on the item graph", ge=1)
    ui_graph: Literal["symmetric", "authors"] = setting(
        "user-item graph: LightGCN's D^-1/2 A D^-1/2, or the authors' code's D^-1 (A + I)"
    )


class LATTICE(LightGCNRecommender[LATTICEKeys]):
    """The model; see the module's text for its steps."""

    Keys = LATTICEKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys = self.keys
        if keys.ui_graph == "authors":
            self.graph = SparseGraph(bipartite_graph(self.interactions, "row", self_loops=True))
        self.raw = RawFeatures(self.features, keys.train_features)
        self.project = projections(self.features, keys.feature_size)
        self.modal_logit = nn.Parameter(torch.zeros(len(self.modalities)))
        self.memory_mb: int = config["graph_memory_mb"]
        self._initial: list[sp.csr_matrix] = []  # the S̃^m of step 1
        for name, features in self.features.items():
            cosines = semantic_graph(
                config, features, self.mask[name], weight="cosine", symmetric=False
            )
            self._initial.append(normalize(cosines, "out"))
        self.initial_graphs = nn.ModuleList(map(SparseGraph, self._initial))
        self._epoch_graph: SparseGraph | None = None  # A as the epoch's first batch had it

    def on_epoch_start(self, epoch: int) -> None:
        self._epoch_graph = None

    def item_graph(self) -> ItemGraph:
        """Steps 2-3, with a gradient."""
        keys, alpha = self.keys, self.modal_logit.softmax(dim=0)
        columns, values = [], []
        for a, name in zip(alpha, self.modalities, strict=True):
            x = self.project[name](self.raw[name])
            with torch.autocast(x.device.type, enabled=False):  # a choice of the exact cosines
                x = x.to(torch.promote_types(x.dtype, torch.float32))
                near, cosine = kept_cosines(
                    x, self.mask[name], keys.knn_k, keys.knn_self, self.memory_mb
                )
            columns.append(near)
            values.append(a * cosine)
        columns, values = torch.cat(columns, dim=1), torch.cat(values, dim=1)
        degree = values.sum(dim=1)
        scale = degree.masked_fill(degree <= 0, torch.inf).rsqrt()
        return alpha, columns, scale[:, None] * values * scale[columns]

    def _product(self, graph: ItemGraph, h: torch.Tensor) -> torch.Tensor:
        """A h with a gradient to A: [n_items, d] → [n_items, d]."""
        alpha, columns, values = graph
        learned = F.embedding_bag(columns, h, per_sample_weights=values, mode="sum")
        parts = [a * part(h) for a, part in zip(alpha, self.initial_graphs, strict=True)]
        initial = functools.reduce(operator.add, parts)
        return self.keys.initial_weight * initial + (1.0 - self.keys.initial_weight) * learned

    def _constant(self, graph: ItemGraph) -> SparseGraph:
        """The same A without a gradient, for faster products."""
        alpha, columns, values = (part.detach().cpu().numpy() for part in graph)
        n, width = columns.shape
        rows = np.repeat(np.arange(n), width)
        learned = sp.csr_matrix((values.ravel(), (rows, columns.ravel())), shape=(n, n))
        parts = [a * part for a, part in zip(alpha, self._initial, strict=True)]
        initial = functools.reduce(operator.add, parts)
        mixed = infuse(learned, initial, self.keys.initial_weight)
        return SparseGraph(mixed).to(self.modal_logit.device)

    def forward(
        self, item_product: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 4: h_u [n_users, d] and h_i [n_items, d]."""
        h = propagate(item_product, self.item_embedding.weight, self.keys.n_item_layers)
        users, items = self.lightgcn(self.keys.n_ui_layers)
        return users, items + F.normalize(h, dim=1)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward(functools.partial(self._product, self.item_graph()))

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 5: (BPR, L2)."""
        if self._epoch_graph is None:
            graph = self.item_graph()
            self._epoch_graph = self._constant(graph)
            product = functools.partial(self._product, graph)
        else:
            product = self._epoch_graph
        n = len(interaction)
        share = self.share(n)
        users, items = self.forward(product)
        u = select_rows(users, interaction[self.USER_ID][share])
        pairs = [interaction[self.ITEM_ID][share], interaction[self.NEG_ITEM_ID][share]]
        i, j = select_rows(items, torch.cat(pairs)).chunk(2)
        return bpr_of_rows(u, i, j, n), self.keys.reg_weight * l2_loss(u, i, j, n=n)
