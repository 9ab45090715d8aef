"""LGMRec: local and global graph learning for multimodal recommendation (arXiv 2312.16400).

1.  Local, collaborative: b = LightGCN on the user-item graph, mean over layers.
2.  Local, modality: items x_i^m W_m, users the mean over their items that have m; l^m is the last
    of L_m layers on the user-item graph.
3.  Global: items depend on K hyperedges by x_i^m V_m, users by the sum of their items':
    H_i = softmax((X^m V_m + g)/τ), H_u = softmax((R X^m V_m + g')/τ), row by row, g Gumbel noise.
    From E_0 = b of the items, with dropout D: E_{h+1} = D(H_i) D(H_i)ᵀ E_h, and of the users
    D(H_u) D(H_i)ᵀ E_h; the last layer is the global embedding t^m.
4.  e = b + Σ_m l^m/‖l^m‖ + α t/‖t‖, t = Σ_m t^m; score e_u · e_i.
5.  L = L_BPR + λ_cl Σ_{m < m'} HCL + λ_reg (‖E_u‖ + ‖E_i‖ + ‖E_j‖)/batch; HCL is the InfoNCE from
    t^m to t^m', users and positive items, each against all users or items.

Where the paper (AAAI 2024) and the authors' released code differ, the code is followed: Gumbel
noise (the paper's is log δ − log(1 − δ)), one draw of dropout for both uses of D(H_i), HCL summed
over the batch's users and positives with their repetitions rather than over all nodes, norms that
are not squared, of the batch's e, and negatives from items seen in training. Raw features are
constant.

Ours:

- At evaluation no noise is drawn, H = softmax(·/τ); the released code draws it there too, so that
  its scores vary from one call to the next.
- Any number of modalities: HCL for each pair, in their order (with one modality, none).
- An item without a modality has x_i^m = 0 and no dependency, H_i = 0 (it gets l_i^m from its
  users), and is neither anchor nor candidate of that modality's HCL. [PAD] is no candidate.
- All t^m lie in the span of K vectors each, so HCL takes its products in 2K dimensions: the same
  loss and gradient.
"""

from __future__ import annotations

import functools
import itertools
import operator

import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import SparseGraph, propagate
from recbole_sigrec.kernels.products import Linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import LightGCNKeys, RawFeatures, xavier_linear
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.views import GraphRecommender, by_view


class LGMRecKeys(LightGCNKeys):
    """The keys of LGMRec; their defaults are in ``properties/model/LGMRec.yaml``."""

    n_mm_layers: int = setting("L_m, layers of the modality embeddings, on the same graph", ge=0)
    n_hyper_layers: int = setting("layers of the hypergraphs", ge=1)
    n_hyperedges: int = setting("K, hyperedges of each modality", ge=1)
    dropout: float = setting("share of dependencies on hyperedges dropped in training", ge=0, lt=1)
    global_weight: float = setting("α, weight of the global embedding", ge=0)
    temperature: float = setting("τ of the dependencies and of HCL", gt=0)
    cl_weight: float = setting("λ_cl, weight of HCL (0: off)", ge=0)
    reg_weight: float = setting("λ_reg, of the norms of the batch's representations", ge=0)


class LGMRec(GraphRecommender[LGMRecKeys]):
    """The model; tables of users and items are stacked, users first, [n, d]."""

    Keys = LGMRecKeys
    loss_in_shares = True
    present: torch.Tensor
    n_having: torch.Tensor

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys = self.keys
        self.user_items = SparseGraph(self.interactions)  # R
        present = torch.ones(self.n_users + self.n_items, len(self.modalities), dtype=torch.bool)
        present[0] = False  # [PAD]
        self.project, self.hyperedges = nn.ModuleDict(), nn.ModuleDict()
        for m, (name, x) in enumerate(self.features.items()):
            present[self.n_users :, m] = self.mask[name]
            self.project[name] = Linear(x.shape[1], keys.embedding_size, bias=False)  # W_m
            self.hyperedges[name] = Linear(x.shape[1], keys.n_hyperedges, bias=False)  # V_m
        self.register_buffer("present", present, persistent=False)  # which nodes have m: [n, M]
        n_having = torch.from_numpy(self.interactions @ present[self.n_users :].float().numpy())
        self.register_buffer("n_having", n_having.clamp_(min=1), persistent=False)  # [n_users, M]
        masked = {name: self.masked(name, x) for name, x in self.features.items()}
        self.raw = RawFeatures(masked, trained=False)
        xavier_linear(self)

    def modality_parts(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Steps 2 and 3: l^m side by side [n, M·d]; for each m, H of users and items [n, K]."""
        raw = [self.raw[name] for name in self.modalities]
        x, logits = (
            torch.cat([layer(r) for layer, r in zip(layers.values(), raw)], dim=1)
            for layers in (self.project, self.hyperedges)
        )
        users = self.user_items(torch.cat([x, logits], dim=1))
        of_users, user_logits = users.split([x.shape[1], logits.shape[1]], dim=1)
        means = by_view(of_users, len(raw)) / self.n_having.T[..., None]
        local = torch.cat([torch.cat(list(means), dim=1), x])
        local = propagate(self.graph, local, self.keys.n_mm_layers)
        logits = torch.cat([user_logits, logits]).split(self.keys.n_hyperedges, dim=1)
        return local, [self._depend(part) * self.present[:, [m]] for m, part in enumerate(logits)]

    def _depend(self, logits: torch.Tensor) -> torch.Tensor:
        """D(H): rows of sum 1; noise and dropout in training alone."""
        if not self.training:
            return (logits / self.keys.temperature).softmax(dim=1)
        noisy = F.gumbel_softmax(logits, self.keys.temperature, dim=1)
        return F.dropout(noisy, self.keys.dropout)

    def hyperedge_embeddings(
        self, behavior: torch.Tensor, dependency: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Step 3: for each m, D(H_i)ᵀ E_h of the last layer [K, d]; t^m is H times it."""
        edges = []
        for h in dependency:
            h, e = h[self.n_users :], behavior[self.n_users :]
            for _ in range(self.keys.n_hyper_layers - 1):
                e = h @ (h.T @ e)
            edges.append(h.T @ e)
        return edges

    def combine(
        self,
        behavior: torch.Tensor,
        local: torch.Tensor,
        dependency: list[torch.Tensor],
        edges: list[torch.Tensor],
    ) -> torch.Tensor:
        """Step 4 for any n nodes: b [n, d], l [n, M·d], H [n, K] and [K, d] of each m → e."""
        local = F.normalize(by_view(local, len(edges)), dim=2).sum(dim=0)
        total = functools.reduce(operator.add, [h @ e for h, e in zip(dependency, edges)])  # t
        return behavior + local + self.keys.global_weight * F.normalize(total, dim=1)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        behavior, (local, dependency) = self.behavior(), self.modality_parts()
        edges = self.hyperedge_embeddings(behavior, dependency)
        final = self.combine(behavior, local, dependency, edges)
        return self.users_and_items(final)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 5 as its terms, already weighted: (L_BPR, HCL, norms)."""
        keys, batch = self.keys, Batch.from_interaction(self, interaction)
        behavior, (local, dependency) = self.behavior(), self.modality_parts()
        edges = self.hyperedge_embeddings(behavior, dependency)
        rows = [select_rows(h, batch.nodes) for h in dependency]
        final = self.combine(
            select_rows(behavior, batch.nodes), select_rows(local, batch.nodes), rows, edges
        )
        # The norms are of the whole batch, in every process: each takes an equal part.
        norms = functools.reduce(
            operator.add, [select_rows(final, part).norm() for part in batch.rows]
        )
        reg = self.equal_part(keys.reg_weight * (norms / batch.n))
        hcl = reg.new_zeros(())
        pairs = itertools.combinations(range(len(edges)), 2) if keys.cl_weight > 0 else ()
        for one, two in pairs:
            # All t of the two lie in this span; a basis of it is constant for the gradient.
            span = torch.cat([edges[one], edges[two]]).detach().to(behavior.dtype)  # [2K, d]
            basis = torch.linalg.qr(span.T).Q  # [d, min(d, 2K)]
            t_one, t_two = (dependency[m] @ (edges[m] @ basis) for m in (one, two))
            allowed = self.present[:, [one, two]].all(dim=1)
            hcl = hcl + batch.info_nce_among_all(t_one, t_two, keys.temperature, allowed)
        return batch.bpr(final), keys.cl_weight * hcl, reg
