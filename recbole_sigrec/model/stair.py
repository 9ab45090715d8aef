"""STAIR: stepwise graph convolutions for e-commerce recommendation (arXiv 2412.11729, AAAI 2025).

Column j of the embeddings, of d, has the weight γ_j = .1 + .9 (j/d)^g in the items' steps and
β_j = 1 − γ_j in the user-item graph: the first columns are collaborative, the last keep content.
Neu(M, X; b) = Σ_l b^l ⊙ M^l X / Σ_l b^l, l = 0..L, with b by column.

1.  Item graph: an edge from an item to each of its n_m nearest by the cosine in modality m, itself
    left out; W adds up the modalities, W_ij = max(W_ij, W_ji), S = D^{-1/2} W D^{-1/2}.
2.  Start: the features of each modality whitened, that is centred and reduced to their d leading
    left singular vectors times √(n_items/d); items take their mean with the weights n_m, users the
    mean of their training items.
3.  Forward stepwise convolution: [U; I] = Neu(D^{-1/2} A D^{-1/2}, [E_U; E_I]; β).
4.  Scores U_u · I_i; the loss is BPR.
5.  Backward stepwise convolution: AdamW's step δ of the items, without its weight decay, becomes
    Neu(S, δ; γ). What users teach an item its neighbours learn too, cold ones among them.

As in the authors' code, the step is smoothed, not the gradient, so that AdamW's moments are those
of the plain gradient; negatives are drawn from all items (``negative_items``). The code's other
optimiser, with L2 in the gradient, is ``learner: adam``; any of RecBole's can be taken. The best
epoch is chosen by Recall@20; the code takes NDCG@20 (``valid_metric``).

Ours: any number of modalities: n_m is ``knn_k``, or that of ``modality_knn_k``. An item without a
modality has no part in its mean and its singular vectors and no edge of it; it starts from the
modalities that it has, or from zero. Columns for which no modality has a direction left start as
N(0, 1/d); the code refuses features of fewer than d dimensions. A singular vector's sign is
arbitrary, and the modalities are added: its largest entry is made positive.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import pydantic
import scipy.sparse as sp
import torch
from torch.optim import AdamW, Optimizer

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import SparseGraph, decaying_propagation, normalize, semantic_graph
from recbole_sigrec.model.base import DIVIDED_IDS, EmbeddingKeys, LightGCNRecommender
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.whitening import whitened
from recbole_sigrec.parallel import columns


class STAIRKeys(EmbeddingKeys):
    """The keys of STAIR; their defaults are in ``properties/model/STAIR.yaml``."""

    n_layers: int = setting("L, layers of both convolutions", ge=0)
    gamma: float = setting("g, how the weights of the columns rise", gt=0)
    knn_k: int = setting("n_m, neighbours of an item in each modality", ge=1)
    modality_knn_k: dict[str, pydantic.PositiveInt] | None = setting(
        "{modality: its n_m}, of modalities with another number than knn_k"
    )


class STAIR(LightGCNRecommender[STAIRKeys]):
    """The model; see the module's text for its steps.

    Attributes:
        n_near: modality name → n_m.
        beta, gamma: the weights of the columns, [d].
    """

    Keys = STAIRKeys
    loss_in_shares = True
    divided_tables = DIVIDED_IDS
    beta: torch.Tensor
    gamma: torch.Tensor

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        given = keys.modality_knn_k or {}
        self.n_near = {name: given.get(name, keys.knn_k) for name in self.modalities}
        self.item_graph = SparseGraph(self._item_graph(config))
        gamma = 0.1 + 0.9 * (torch.arange(d) / d) ** keys.gamma
        self.register_buffer("gamma", gamma, persistent=False)
        self.register_buffer("beta", 1 - gamma, persistent=False)
        white = {name: whitened(x, self.mask[name], d) for name, x in self.features.items()}
        self.start(white)

    def _item_graph(self, config: Config) -> sp.csr_matrix:
        """Step 1: S."""
        fixed = {"include_self": False, "weight": "binary", "symmetric": False}
        graphs = [
            semantic_graph(config, x, self.mask[name], k=self.n_near[name], **fixed)
            for name, x in self.features.items()
        ]
        graph = functools.reduce(operator.add, graphs)
        return normalize(sp.csr_matrix(graph.maximum(graph.T)))

    @torch.no_grad()
    def start(self, white: Mapping[str, torch.Tensor]) -> None:
        """Step 2, from the whitened features of each modality, float64 [n_items, d]."""
        total = weight = torch.zeros(self.n_items, self.keys.embedding_size, dtype=torch.float64)
        for name, x in white.items():
            total = total + self.n_near[name] * x
            weight = weight + self.n_near[name] * (self.mask[name][:, None] & x.any(dim=0))
        items = total / weight.clamp_min(1)
        rest = ~weight.any(dim=0)  # columns for which no modality has a direction
        items[1:, rest] = torch.randn_like(items[1:, rest]) / self.keys.embedding_size**0.5
        users = normalize(self.interactions, "row") @ items.numpy()
        self.item_embedding.weight.copy_(items)
        self.user_embedding.weight.copy_(torch.from_numpy(users))

    def on_optimizer(self, optimizer: Optimizer) -> None:
        """Step 5, at each step of the trainer's optimiser."""
        table = self.item_embedding.weight
        decayed = torch.empty(0)

        @torch.no_grad()
        def keep(*_: Any) -> None:
            nonlocal decayed
            decay = 0.0
            for group in optimizer.param_groups if isinstance(optimizer, AdamW) else ():
                if any(own is table for own in group["params"]):
                    decay = group["lr"] * group["weight_decay"]
            decayed = table * (1 - decay)

        @torch.no_grad()
        def smooth(*_: Any) -> None:
            step, n_layers = table - decayed, self.keys.n_layers
            step = decaying_propagation(self.item_graph, step, self._own(self.gamma), n_layers)
            table.copy_(decayed + step)

        optimizer.register_step_pre_hook(keep)
        optimizer.register_step_post_hook(smooth)

    def forward(self, nodes: torch.Tensor | None = None) -> torch.Tensor:
        """Step 3: users, then items, or some rows of them: [n, d]."""
        beta, n_layers = self._own(self.beta), self.keys.n_layers
        h = decaying_propagation(self.graph, self.ego(), beta, n_layers, nodes)
        return columns.whole(h, self.keys.embedding_size)

    def _own(self, weights: torch.Tensor) -> torch.Tensor:
        """The weights [d] of the columns that this process holds."""
        return weights[columns.own(len(weights))]

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.users_and_items(self.forward())

    def calculate_loss(self, interaction: Interaction) -> torch.Tensor:
        """Step 4: BPR."""
        batch = Batch.from_interaction(self, interaction)
        return batch.bpr(self.forward(batch.nodes))
