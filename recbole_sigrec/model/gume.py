"""GUME: graphs and user modalities enhancement (arXiv 2407.12338, CIKM 2024).

MGCN (:mod:`.mgcn`) with edges between items in the user-item graph, for items of few users, and
with a table of the users for each modality, which the losses align with the rest.

1.  Item graphs: S^m_ij = cos(x_i^m, x_j^m), top k per row, Ŝ^m = D^{-1/2} S^m D^{-1/2}.
2.  Extended graph: Â = D^{-1/2} [[0, R], [Rᵀ, Q]] D^{-1/2}, D the row sums; Q_ij = 1 where j ≠ i is
    among the top k of i in every modality.
3.  Explicit features: h_i^m = (Ŝ^m)^L (e_i ⊙ σ(W₂ (W₁ x_i^m + b₁) + b₂)), e_i the item's own
    embedding; users h_u^m from their items, by the user-item block of Â.
4.  Behavior b: LightGCN over Â from the embeddings, mean over layers.
5.  Extended features x: the mean over m of LightGCN over Â from [V^m; h_i^m], with V^m a table of
    the users. One propagation of the mean is the same.
6.  s = MGCN's behavior-aware fusion of the h^m; e = b + s; score e_u · e_i.
7.  L = L_BPR + λ_cl (InfoNCE(s, b) of users and of items) + λ_um L_um + λ_vt L_vt + λ_1 L_2(e)
    + λ_2 L_2(x of the positives). L_um, of users: InfoNCE(x, s) + InfoNCE(s', s'') +
    InfoNCE(x', x''), where each prime is noise of its own, e' = e + ε sign(e) ⊙ n/‖n‖₂ with
    n ~ U(0, 1)^d. L_vt = |var h^v − var h^t| + |mean h^v − mean h^t| over all users and items.

Followed where the paper and the authors' released code differ: the code, in all that
:mod:`.mgcn` names; Q has one-way edges, and Â, normalised by its row sums, is not symmetric; the
extended features serve the losses alone. λ_cl and its τ (``cl_weight``, ``temperature``) are the
code's ``bm_loss`` and ``bm_temp``, λ_um and its τ ``um_loss`` and ``um_temp``, λ_vt ``vt_loss``.
The defaults are the released ones for Baby. The others have ``n_layers`` 1 and τ .2; λ_um, its τ
and λ_vt are .01, .1, .01 for Sports, .1, .2, .001 for Clothing, .1, .2, .1 for Electronics.

Deviations from the code:

- Q intersects the lists of k neighbours; the code cuts them at the wrong places if k is not 10.
- L_2 is divided by the rows of the batch, in the code by the configured size, also in a last batch.

Ours: any number of modalities: Q takes the edges that all have, L_vt is the mean over pairs of
modalities. An item without one has no edge in its graph and none in Q, so that its h^m is zero, and
is not counted in that one's mean and variance. Negative similarities are no edges; negatives are
drawn from the items seen in training (``negative_items``).
"""

from __future__ import annotations

import functools
import itertools

import scipy.sparse as sp
import torch
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import SparseGraph, common_edges, mean_propagation, normalize, propagate
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import RawFeatures, xavier_embedding
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.item_graphs import item_graphs
from recbole_sigrec.model.layers import BehaviorAwareFusion, Purifier, perturb
from recbole_sigrec.model.losses import l2_loss, moment_distance
from recbole_sigrec.model.views import GraphKeys, GraphRecommender, by_view, with_users


class GUMEKeys(GraphKeys):
    """The keys of GUME; their defaults are in ``properties/model/GUME.yaml``."""

    n_layers: int = setting("L, layers on each item graph", ge=0)
    train_features: bool = setting("whether the raw features are trained too")
    cl_weight: float = setting("λ_cl, weight of the InfoNCE of side and behavior (0: off)", ge=0)
    temperature: float = setting("τ of that InfoNCE", gt=0)
    user_cl_weight: float = setting("λ_um, weight of the users' InfoNCE terms (0: off)", ge=0)
    user_temperature: float = setting("τ of the users' InfoNCE terms", gt=0)
    perturbation_eps: float = setting("ε, the strength of the noise", ge=0)
    align_weight: float = setting("λ_vt, weight of the alignment of modalities (0: off)", ge=0)
    reg_weight: float = setting("λ_1, L2 of the batch's representations", ge=0)
    extended_reg_weight: float = setting("λ_2, L2 of the positives' extended features", ge=0)


class GUME(GraphRecommender[GUMEKeys]):
    """The model; see the module's text for its steps. n = n_users + n_items, or a batch's nodes."""

    Keys = GUMEKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        d = self.keys.embedding_size
        graphs = item_graphs(config, self.features, self.mask)
        self.item_graph = nn.ModuleDict({name: SparseGraph(graphs[name]) for name in graphs})
        r, q = self.interactions, common_edges(graphs.values())
        extended = normalize(sp.csr_matrix(sp.bmat([[None, r], [r.T, q]])), "out")
        self.graph = SparseGraph(extended)
        self.user_graph = SparseGraph(extended[: self.n_users, self.n_users :])
        self.raw = RawFeatures(self.features, self.keys.train_features)
        self.purify, self.extended_user = nn.ModuleDict(), nn.ParameterDict()
        for name, features in self.features.items():
            self.purify[name] = Purifier(features.shape[1], d)
            self.extended_user[name] = xavier_embedding(self.n_users, d).weight
        self.fusion = BehaviorAwareFusion(len(self.modalities), d)

    def explicit(self) -> torch.Tensor:
        """Step 3: h^m of all nodes, [M, n, d]."""
        items = []
        for name in self.modalities:
            x = self.masked(name, self.purify[name](self.item_embedding.weight, self.raw[name]))
            items.append(propagate(self.item_graph[name], x, self.keys.n_layers))
        rows = with_users(self.user_graph, torch.cat(items, dim=1))
        return by_view(rows, len(items))

    def extended(self, h: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Step 5: x of a batch's nodes, from h of all: [M, n, d] → [n, d]."""
        users = torch.stack([self.extended_user[name] for name in self.modalities]).mean(dim=0)
        ego = torch.cat([users, h[:, self.n_users :].mean(dim=0)])
        return mean_propagation(self.graph, ego, self.keys.n_ui_layers, batch.nodes)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        behavior = self.behavior()
        return self.users_and_items(behavior + self.fusion(behavior, self.explicit()))

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 7 as its terms, already weighted: (BPR, InfoNCE, L_um, L_vt, both L2)."""
        keys, batch = self.keys, Batch.from_interaction(self, interaction)
        h, behavior = self.explicit(), self.behavior(batch)
        side = self.fusion(behavior, select_rows(h, batch.nodes, dim=1))
        extended, final = self.extended(h, batch), behavior + side
        bpr = batch.bpr(final)
        cl = um = vt = bpr.new_zeros(())
        if keys.cl_weight > 0:
            cl = batch.info_nce(side, behavior, keys.temperature)
        if keys.user_cl_weight > 0:
            um = self.user_loss(side, extended, batch)
        if keys.align_weight > 0:
            vt = self.equal_part(self.alignment(h))
        l2 = l2_loss(select_rows(extended, batch.triples[1]), n=batch.n)
        reg = keys.reg_weight * batch.l2(final) + keys.extended_reg_weight * l2
        return bpr, keys.cl_weight * cl, keys.user_cl_weight * um, keys.align_weight * vt, reg

    def user_loss(self, side: torch.Tensor, extended: torch.Tensor, batch: Batch) -> torch.Tensor:
        """L_um from s and x of a batch's nodes. A user's noise is the same wherever it stands."""
        users, tau = next(batch.sides()), self.keys.user_temperature
        s, x = (select_rows(table, users.rows) for table in (side, extended))
        noise = functools.partial(perturb, strength=self.keys.perturbation_eps, kind="uniform")
        pairs = (x, s), (noise(s), noise(s)), (noise(x), noise(x))
        return torch.stack([users.info_nce(*pair, tau) for pair in pairs]).sum()

    def alignment(self, h: torch.Tensor) -> torch.Tensor:
        """L_vt from h^m of all nodes: [M, n, d] → scalar."""
        tables = []
        for name, part in zip(self.modalities, h, strict=True):
            tables.append(select_rows(part, self.nodes_with(name).nonzero().squeeze(1)))
        distances = [moment_distance(*pair) for pair in itertools.combinations(tables, 2)]
        return torch.stack(distances).mean() if distances else h.new_zeros(())
