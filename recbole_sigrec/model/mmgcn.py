"""MMGCN: multi-modal graph convolution network for micro-video recommendation (ACM MM 2019).

In each modality m a user has a preference vector and an item its features; with x^(0) their unit
vectors, layer l + 1 of the paper (DOI 10.1145/3343031.3351034) has

    h = LeakyReLU(mean over the neighbours of W_1 x^(l))                      aggregation layer
    x̂ = LeakyReLU(W_2 x^(l) + b_2) + id                                       combination layer
    x^(l+1) = LeakyReLU(W_3 h + b_3 + x̂), or LeakyReLU(W_3 (h ‖ x̂) + b_3)

with one id embedding for all modalities; a node's representation joins its x^(L) of all modalities,
and scores are products. The loss is BPR and L2 of id and preference.

Where the paper and the authors' released code differ, the code is followed: the representation is
the mean over modalities (the paper's is the sum); features of more than ``latent_size`` dimensions
are first reduced to it by a linear layer (the code's 256, there for images); aggregation is the
mean (the paper has the maximum too); features are constant; L2 is a mean over the entries of the
batch's ids and of the preferences.

Deviations from the code:

- Combination is by addition and there are two layers. The code concatenates and has three:
  ``concat: True``, ``n_layers: 3``.
- The ids and the preferences are trained. The code makes them plain tensors, which its optimizer
  does not know, so that they keep their random start.
- L2 is of the preferences of all modalities; the code's is of the first modality's alone.

Ours: any number of modalities; an item without one has no edge in its graph and zero features
there, so that it brings its id alone; negatives are drawn from the items seen in training
(``negative_items``); the features may be trained (``train_features``); [PAD] has no part in L2. The
last layer is computed for the rows of the batch alone.
"""

from __future__ import annotations

import functools
import operator

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, Keys, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import SparseGraph, bipartite_graph
from recbole_sigrec.graph.unit_rows import unit_rows
from recbole_sigrec.kernels.products import Linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import MultimodalRecommender, RawFeatures
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.losses import bpr_of_rows, l2_loss


class MMGCNKeys(Keys):
    """The keys of MMGCN; their defaults are in ``properties/model/MMGCN.yaml``."""

    embedding_size: int = setting("d, the size of ids and of all layers' outputs", ge=1)
    concat: bool = setting("combine by concatenation, not by addition")
    n_layers: int = setting("L, layers on the user-item graph of each modality", ge=1)
    reg_weight: float = setting("λ, L2 of the batch's ids and of the preferences", ge=0)
    latent_size: int = setting("features of more dimensions are reduced to so many", ge=1)
    train_features: bool = setting("whether the raw features are trained too")


class Layer(nn.Module):
    """One layer of one modality."""

    def __init__(self, width: int, d: int, concat: bool):
        super().__init__()
        self.concat = concat
        self.aggregate = Linear(width, width, bias=False)  # W_1
        self.combine = Linear(width + d if concat else width, d)  # W_3
        self.own = Linear(width, d)  # W_2
        for linear in (self.aggregate, self.combine, self.own):
            nn.init.xavier_normal_(linear.weight)

    def forward(
        self,
        graph: SparseGraph,
        x: torch.Tensor,
        ids: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x^(l) [n, width], ids [n, d] → x^(l+1) of some rows (default: all): [len(rows), d]."""
        h = graph(self.aggregate(x))
        if rows is not None:
            h, x, ids = (select_rows(table, rows) for table in (h, x, ids))
        h, own = F.leaky_relu(h), F.leaky_relu(self.own(x)) + ids
        if self.concat:
            return F.leaky_relu(self.combine(torch.cat([h, own], dim=1)))
        return F.leaky_relu(self.combine(h) + own)


class MMGCN(MultimodalRecommender[MMGCNKeys]):
    """The model; tables of users and items are stacked, users first: n = n_users + n_items."""

    Keys = MMGCNKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        self.reduce, self.layers, self.graphs = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.ids = nn.Parameter(torch.empty(self.n_users + self.n_items, d))
        self.preference = nn.ParameterDict()
        self.raw = RawFeatures(self.features, keys.train_features)
        for name, features in self.features.items():
            width = features.shape[1]
            if width > keys.latent_size:
                self.reduce[name] = Linear(width, keys.latent_size)
                width = keys.latent_size
            self.preference[name] = nn.Parameter(torch.empty(self.n_users, width))
            widths = [width] + [d] * (keys.n_layers - 1)
            self.layers[name] = nn.ModuleList(Layer(w, d, keys.concat) for w in widths)
            having = sp.diags(self.mask[name].numpy().astype("float32"))
            r = sp.csr_matrix(self.interactions @ having)
            self.graphs[name] = SparseGraph(bipartite_graph(r, "row"))
        for table in (self.ids, *self.preference.values()):
            nn.init.xavier_normal_(table)

    def forward(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The representations of some rows (default: all): [len(rows), d]."""
        parts = []
        for name in self.modalities:
            features = self.raw[name]
            if name in self.reduce:
                features = self.reduce[name](features)
            x = torch.cat([self.preference[name], self.masked(name, features)])
            x = unit_rows(x)
            *first, last = self.layers[name].children()
            for layer in first:
                x = layer(self.graphs[name], x, self.ids)
            parts.append(last(self.graphs[name], x, self.ids, rows))
        return functools.reduce(operator.add, parts) / len(parts)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.users_and_items(self.forward())

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """(BPR, L2)."""
        keys, n = self.keys, len(interaction)
        share = self.share(n)
        users = interaction[self.USER_ID][share]
        pairs = [interaction[key][share] + self.n_users for key in (self.ITEM_ID, self.NEG_ITEM_ID)]
        rows = torch.cat([users, *pairs])
        h_u, h_i, h_j = self.forward(rows).chunk(3)
        bpr = bpr_of_rows(h_u, h_i, h_j, n)
        u, i, j = select_rows(self.ids, rows).chunk(3)
        l2 = l2_loss(u, u, i, j, n=n) / keys.embedding_size
        squares = [table[1:].square().mean() for table in self.preference.values()]
        own = functools.reduce(operator.add, squares)
        return bpr, keys.reg_weight * (l2 + self.equal_part(own))
