"""DiffMM: multi-modal diffusion model for recommendation (arXiv 2406.11781, ACM MM 2024).

N(Y), for pairs Y of users and items, is their graph with self-loops, D^{-1/2} (A + I) D^{-1/2};
Â = N(R). The items have t^m = leaky(X^m T^m), or a linear map of X^m (``feature_map``).

1.  Before each epoch a denoiser of each modality learns to restore users' rows x₀ of R by diffusion
    (:mod:`recbole_sigrec.model.diffusion`): its loss is the evidence lower bound plus λ_0 times the
    mean of (x̂₀ t^m − x₀ E_I)², t^m and E_I being constant; each has an Adam of its own.
2.  Then it denoises each user's row, to which no noise is added. Y^m are the k largest items of
    each user, and R^m is N(Y^m), each directed entry dropped with probability p, else over 1 − p.
3.  a = Â [E_U; unit(t^m)]; a' = Â [a_users; E_I]; h^m = a + a' + μ R^m [E_U; E_I];
    h = Σ_m w_m h^m, w a softmax of learned numbers; e = Σ_{l ≤ L} Â^l h + λ_r unit(h).
4.  Views: v^m = Σ_{l ≤ L} Â^l (R^m [E_U; unit(t^m)]).
5.  Scores e_u · e_i; the loss is BPR + λ_cl C + λ_reg (‖E_U‖² + ‖E_I‖²), of whole tables. C is the
    InfoNCE, among all users and among all items, from v^m to v^m' for m < m' (``contrast: pairs``),
    or from e to each v^m (``main``).

Where the paper and the authors' released code differ, the code is followed: dropped entries leave
R^m asymmetric, and the bound has weight 1 at step 0 beside hundreds or thousands at the others.

Deviations from the code: BPR is the mean over the batch (an epoch's last one has the configured
size as divisor there); the best epoch is that of validation (there: the best on the test part of
50 epochs, always trained); the sampling steps and noise of step 2, off by default, are left out.

Ours: any number of modalities (``mixed``: image is leaky, the others linear; one has no pairs). An
item without m has t^m = 0, is not generated in Y^m, and is neither anchor nor candidate of v^m.
[PAD] counts nowhere. A checkpoint keeps R^m; before the first epoch Y^m is empty.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import GeneratedGraphs, SparseGraph, bipartite_graph, mean_propagation
from recbole_sigrec.graph.unit_rows import unit_rows
from recbole_sigrec.kernels.products import Linear, matmul_nt
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import LightGCNKeys, LightGCNRecommender, RawFeatures
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.diffusion import Diffusion, DiffusionKeys
from recbole_sigrec.parallel import distributed


class DiffMMKeys(LightGCNKeys, DiffusionKeys):
    """The keys of DiffMM; their defaults are in ``properties/model/DiffMM.yaml``."""

    feature_map: Literal["leaky", "linear", "mixed"] = setting(
        "t: leaky_relu of a map without bias, a linear layer, or leaky for image alone"
    )
    diffusion_batch_size: int = setting("users in a batch of the diffusion", ge=1)
    rebuild_k: int = setting("k, items generated for each user", ge=1)
    edge_dropout: float = setting("p, share of a generated graph's entries dropped", ge=0, lt=1)
    generated_weight: float = setting("μ, weight of the generated graphs", ge=0)
    residual_weight: float = setting("λ_r, weight of unit(h) in e", ge=0)
    contrast: Literal["pairs", "main"] = setting(
        "InfoNCE of the modalities' views with one another, or of e with each"
    )
    cl_weight: float = setting("λ_cl, weight of the InfoNCE (0: off)", ge=0)
    temperature: float = setting("τ of the InfoNCE", gt=0)
    reg_weight: float = setting("λ_reg, of the squares of all embeddings", ge=0)


class DiffMM(LightGCNRecommender[DiffMMKeys]):
    """The model; tables of users and items are stacked, users first, [n, d]."""

    Keys = DiffMMKeys
    loss_in_shares = True
    kept_buffers = ("generated.items", "generated.kept")

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, n_modalities = self.keys, len(self.modalities)
        self.graph = SparseGraph(bipartite_graph(self.interactions, self_loops=True))
        self.raw = RawFeatures(self.features, trained=False)
        self.modal_logit = nn.Parameter(torch.full((n_modalities,), 1 / n_modalities))
        kinds = {"leaky": self.modalities, "linear": [], "mixed": ["image"]}
        self.leaky = kinds[keys.feature_map]
        self.project = nn.ModuleDict()
        for name, features in self.features.items():
            leaky = name in self.leaky
            layer = Linear(features.shape[1], keys.embedding_size, bias=not leaky)
            if leaky:
                nn.init.xavier_uniform_(layer.weight)
            self.project[name] = layer
        self.diffusion = Diffusion(keys, self.modalities, self.n_items, config["learning_rate"])
        self.own_optimizers = self.diffusion.optimizers
        sizes = n_modalities, self.n_users, self.n_items, min(keys.rebuild_k, self.n_items - 1)
        self.generated = GeneratedGraphs(*sizes, keys.edge_dropout)

    def item_features(self, name: str) -> torch.Tensor:
        """t^m [n_items, d]."""
        t = self.project[name](self.raw[name])
        return self.masked(name, F.leaky_relu(t, 0.2) if name in self.leaky else t)

    def on_epoch_start(self, epoch: int) -> None:
        """Steps 1 and 2, in each of several processes; all take the first one's graphs."""
        size = self.keys.diffusion_batch_size
        for users in (torch.randperm(self.n_users - 1) + 1).split(size):
            rows = self.rows_of(users)
            for name in self.modalities:
                self.diffusion.fit(name, rows, *self.alignment_of(name, rows))
        for number, name in enumerate(self.modalities):
            items = torch.zeros_like(self.generated.items[number])
            for users in torch.arange(1, self.n_users).split(size):
                rows = self.diffusion.denoise(name, self.rows_of(users))
                items[users] = self.best_items(name, rows)
            self.generated.draw(number, distributed.gather(items.cpu())[0].to(items.device))

    def rows_of(self, users: torch.Tensor) -> torch.Tensor:
        """x₀ of users, int64 [B] → [B, n_items]."""
        return torch.from_numpy(self.interactions[users.numpy()].toarray()).to(self.modal_logit)

    @torch.no_grad()
    def alignment_of(self, name: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """t^m [n_items, d] and x₀ E_I: [B, n_items] → [B, d]."""
        return self.item_features(name), matmul_nt(rows, self.item_embedding.weight.T)

    def best_items(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        """The k largest of rows [B, n_items] among items that have a modality: int64 [B, k]."""
        rows = rows.masked_fill(~getattr(self, f"has_{name}"), -torch.inf)
        values, items = rows.topk(self.generated.items.shape[2])
        return items.masked_fill_(values == -torch.inf, 0)  # none is left

    def forward(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Step 3: e [n, d], and of each modality [E_U; unit(t^m)] [n, d]."""
        keys, ego, users = self.keys, self.ego(), self.user_embedding.weight
        weights = self.modal_logit.softmax(dim=0)
        starts = [torch.cat([users, unit_rows(self.item_features(m))]) for m in self.modalities]
        # The weights add up to one: a and a' are products with the weighted mean of the starts.
        a = self.graph(torch.tensordot(weights, torch.stack(starts), 1))
        a_users = a[: self.n_users]
        b = self.graph(torch.cat([a_users, self.item_embedding.weight]))
        c = torch.stack([self.generated(m, ego) for m in range(len(starts))])
        h = a + b + keys.generated_weight * torch.tensordot(weights, c, 1)
        total = (keys.n_ui_layers + 1) * mean_propagation(self.graph, h, keys.n_ui_layers)
        return total + keys.residual_weight * F.normalize(h, dim=1), starts

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.users_and_items(self.forward()[0])

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 5 as its terms, already weighted: (BPR, C, squares)."""
        keys, batch = self.keys, Batch.from_interaction(self, interaction)
        final, starts = self.forward()
        bpr = batch.bpr(select_rows(final, batch.nodes))
        contrast = bpr.new_zeros(())
        for one, two, allowed in self.contrasted(final, starts) if keys.cl_weight > 0 else ():
            contrast = contrast + batch.info_nce_among_all(one, two, keys.temperature, allowed)
        users, items = self.user_embedding.weight[1:], self.item_embedding.weight[1:]
        reg = self.equal_part(users.square().sum() + items.square().sum())
        return bpr, keys.cl_weight * contrast / batch.n, keys.reg_weight * reg

    def contrasted(
        self, final: torch.Tensor, starts: list[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Step 4, and of C the anchors, the candidates and which nodes they are: bool [n]."""
        layers, views = self.keys.n_ui_layers, []  # means over the layers: the sums' cosines
        for m, (name, start) in enumerate(zip(self.modalities, starts)):
            view = mean_propagation(self.graph, self.generated(m, start), layers)
            views.append((view, self.nodes_with(name)))
        if self.keys.contrast == "main":
            return [(final, view, has) for view, has in views]
        pairs = itertools.combinations(views, 2)
        return [(one, two, has & also) for (one, has), (two, also) in pairs]
