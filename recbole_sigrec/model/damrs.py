"""DA-MRS: denoising and aligning content and feedback (KDD 2024, DOI 10.1145/3637528.3671703).

This is the paper's "DA-MRS + LightGCN".

1.  Denoised item graphs: C^m the cosines of the raw features. A pair of items is kept if in every
    modality its cosine is at least the mean of C^m; of the kept ones each item has at most k
    neighbours by C^m, of weight 1. S^m = D^{-1/2} S D^{-1/2} with D the row sums.
2.  Behaviour graph S^b: each item itself and the two others that share most users with it in
    training, at least two; weight 1, normalised in the same way.
3.  U and I⁰ from LightGCN, mean over layers; h^v = (S^v)^L E_I of the item embeddings, for the
    views v, which are the modalities and b; h̄ their mean. Items I = I⁰ + h̄; score U_u · I_i.
4.  Denoised feedback: with p_v = σ(U_u · h_i^v/‖h_i^v‖) of a positive, p̄, p_max and var over the
    views, and n̄ the mean of the negatives' over views and batch,

        L_rec = mean( w⁺ softplus(−δ) + w⁻ softplus(δ) ),  δ = U_u · I_i − U_u · I_j,

    w⁺ = min(p̄ exp(−2 var), 1), and w⁻ = p_max − n̄ within [0, 1] where p̄ < n̄, else 0: what looks
    like noise is pushed the other way too. The weights are constant for the gradient.
5.  Aligned items: L_nb of :func:`pseudo_neighbor_loss`, a mean over the batch's items and views.
6.  Aligned interests: L_KL = mean of KL(a, c) + KL(c, a) over the batch's users × items, of
    a = σ(U_u · I⁰_i/‖I⁰_i‖) and c = σ(U_u · h̄_i/‖h̄_i‖).
7.  L = L_rec + λ_nb L_nb + λ_KL L_KL; no L2.

The released code is followed. Its cosines have the diagonal in their mean; an item is its own
neighbour; n̄ depends on the batch; the features make the graphs alone.

Deviations from the code: ties of the behaviour graph go to the smaller item. The sum of both KL is
(a − c)(logit a − logit c), which is the same and finite everywhere.

Ours: any number of modalities. The others judge a pair of which an item lacks one; that item has
its self loop alone there, as one that is similar to none, so that its h^m is its embedding. [PAD]
is in no graph and no softmax; negatives come from items seen in training (``negative_items``).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import (
    SparseGraph,
    agreement_graphs,
    collaborative_topk,
    normalize,
    propagate,
)
from recbole_sigrec.kernels.products import linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import LightGCNKeys
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.pseudo_neighbors import pseudo_neighbor_loss
from recbole_sigrec.model.views import GraphRecommender


class DAMRSKeys(LightGCNKeys):
    """The keys of DA-MRS; their defaults are in ``properties/model/DAMRS.yaml``."""

    n_layers: int = setting("L, layers on each item graph", ge=0)
    knn_k: int = setting("k of the denoised item graphs", ge=1)
    collab_knn_k: int = setting("neighbours of an item in the behaviour graph", ge=1)
    collab_min_users: int = setting("users that two items of the behaviour graph share", ge=1)
    neighbor_weight: float = setting("λ_nb, weight of L_nb (0: off)", ge=0)
    n_neighbors: int = setting("pseudo-neighbours of an item in each of the two sets", ge=1)
    temperature: float = setting("τ of L_nb", gt=0)
    kl_weight: float = setting("λ_KL, weight of L_KL (0: off)", ge=0)


class DAMRS(GraphRecommender[DAMRSKeys]):
    """The model; see the module's text for its steps."""

    Keys = DAMRSKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys = self.keys
        graphs = agreement_graphs(config, self.features, self.mask)
        self.item_graph = nn.ModuleDict({name: _with_loops(graphs[name]) for name in graphs})
        shared = collaborative_topk(
            self.interactions, keys.collab_knn_k, "count", False, config["graph_memory_mb"]
        )
        shared.data = (shared.data >= keys.collab_min_users).astype(np.float32)
        self.behavior_graph = _with_loops(shared, everywhere=True)

    def views(self) -> torch.Tensor:
        """h^v of the items: [V, n_items, d]."""
        ids, graphs = self.item_embedding.weight, (*self.item_graph.children(), self.behavior_graph)
        return torch.stack([propagate(graph, ids, self.keys.n_layers) for graph in graphs])

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        users, items = self.users_and_items(self.behavior())
        return users, items + self.views().mean(dim=0)

    def weights(
        self, batch: Batch, users: torch.Tensor, unit: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 4: w⁺ and w⁻ of all triples of a batch, each [n].

        Shapes: U of the batch's users [n, d]; h^v/‖h^v‖ of its items [V, n, d].
        """
        u, i, j = batch.rows
        users = select_rows(users, u)
        positive, negative = (
            (users * select_rows(unit, rows - len(batch.users), dim=1)).sum(dim=2).sigmoid()
            for rows in (i, j)
        )
        mean, noise = positive.mean(dim=0), negative.mean()
        sure = (mean * (-2 * positive.var(dim=0)).exp()).clamp(0, 1)
        unsure = (positive.amax(dim=0) - noise).clamp(0, 1)
        return sure, unsure.where(mean < noise, 0.0)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """The terms, already weighted: (L_rec, L_nb, L_KL)."""
        keys, batch = self.keys, Batch.from_interaction(self, interaction)
        users, items = self.behavior(batch).split([len(batch.users), len(batch.items)])
        views = self.views()
        unit = F.normalize(views, dim=2)
        content = select_rows(views, batch.items, dim=1).mean(dim=0)
        with torch.no_grad():
            weights = self.weights(batch, users, select_rows(unit, batch.items, dim=1))
        final = torch.cat([users, items + content])
        u, i, j = (select_rows(final, rows) for rows in batch.triples)
        delta = (u * i).sum(dim=1) - (u * j).sum(dim=1)
        sure, unsure = (weight[self.share(batch.n)] for weight in weights)
        rec = (sure * F.softplus(-delta) + unsure * F.softplus(delta)).sum() / batch.n
        neighbor, kl = rec.new_zeros(()), rec.new_zeros(())
        if keys.neighbor_weight > 0:
            anchors = batch.items[self.share(len(batch.items))] - 1  # [PAD] is no candidate
            total = pseudo_neighbor_loss(unit[:, 1:], anchors, keys.n_neighbors, keys.temperature)
            neighbor = total / (len(views) * len(batch.items))
        if keys.kl_weight > 0:
            of = users[self.share(len(users))]
            a, c = (linear(of, F.normalize(side, dim=1), None) for side in (items, content))
            kl = ((a.sigmoid() - c.sigmoid()) * (a - c)).sum() / (len(users) * len(items))
        return rec, keys.neighbor_weight * neighbor, keys.kl_weight * kl


def _with_loops(graph: sp.csr_matrix, everywhere: bool = False) -> SparseGraph:
    """A graph normalised, with a self loop of each row without an edge, or of all, but [PAD]'s."""
    loops = np.ones(len(graph.indptr) - 1, np.float32)
    if not everywhere:
        loops = (np.diff(graph.indptr) == 0).astype(np.float32)
    loops[0] = 0.0
    return SparseGraph(normalize(graph + sp.diags(loops), "out"))
