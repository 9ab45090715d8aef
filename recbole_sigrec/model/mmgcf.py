"""MMGCF: multimodal graph collaborative filtering (UMAP 2026, doi 10.1145/3774935.3806158).

1.  LightGCN: users U and items J are the mean over layers of the id embeddings on the user-item
    graph. Training has a subgraph, drawn anew for each epoch: a share ρ of the edges is left out,
    edge (u, i) is kept with a probability proportional to 1/√(d_u d_i) (FREEDOM's pruning).
    Evaluation has the whole graph.
2.  Projected features x^m = W_m x̃^m + b_m; the features x̃^m are constant.
3.  Late fusion of the items alone. F, of several tables (``fusion_mode``), is their mean, their
    sum, or one linear layer of the tables side by side. The items are, by ``weighting``,
    equal: I = F(J, F(x^1, …, x^M)), in two stages;
    alpha: I = F(a J, (1 − a) x^1, …, (1 − a) x^M) with a = σ(α), α one trained number;
    normalized: I = F(M unit(J), unit(x^1), …, unit(x^M)), unit(x) = x / ‖x‖₂ of each row.
4.  Scores U_u · I_i; L = L_BPR + λ ½ Σ‖e‖² / batch over the batch's id embeddings e as they are
    before step 1. Nothing else is regularised.

The paper could not be read: the authors' released code is followed. Its grid is published, the best
values are not. The code recommends ``weighting: equal``, in which features of a large norm outweigh
the ids. The default is ``normalized``, chosen on TikTok's validation part.

Deviations from the code: a layer that a variant has no use for does not exist.

Ours: any number of modalities, M of them; with one, 'equal' has no inner F. An item without a
modality has x^m = 0 there, so that the mean still divides by all; the code leaves out a modality
that one item lacks. Only the items of the batch are fused in training.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import PrunedGraph, mean_propagation_and_start
from recbole_sigrec.graph.unit_rows import unit_rows
from recbole_sigrec.kernels.products import Linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import (
    DIVIDED_IDS,
    LightGCNKeys,
    LightGCNRecommender,
    RawFeatures,
    projections,
)
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.parallel import columns


class MMGCFKeys(LightGCNKeys):
    """The keys of MMGCF; their defaults are in ``properties/model/MMGCF.yaml``."""

    feature_size: int | None = setting(
        "the size of the projected features; none given: embedding_size", ge=1
    )
    fusion_mode: Literal["mean", "sum", "concat"] = setting("F: mean, sum or a linear layer")
    weighting: Literal["equal", "alpha", "normalized"] = setting(
        "how ids and features are weighed: in two stages, by a trained number, or at unit norm"
    )
    edge_dropout: float = setting("ρ, the share of user-item edges pruned", ge=0, lt=1)
    reg_weight: float = setting("λ, L2 of the batch's id embeddings", ge=0)


class Fusion(nn.Module):
    """F: tables of the same rows → one table, [n, size].

    Args:
        mode: mean, sum or concat.
        widths: the columns of each table; for mean and sum all are ``size``.
    """

    def __init__(self, mode: str, widths: Sequence[int], size: int):
        super().__init__()
        self.mode = mode
        if mode == "concat":
            self.linear = Linear(sum(widths), size)

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        if self.mode == "concat":
            return self.linear(torch.cat(parts, dim=1))
        total = functools.reduce(operator.add, parts)
        return total / len(parts) if self.mode == "mean" else total


class MMGCF(LightGCNRecommender[MMGCFKeys]):
    """The model; see the module's text for its steps."""

    Keys = MMGCFKeys
    loss_in_shares = True
    divided_tables = DIVIDED_IDS

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d, n = self.keys, self.keys.embedding_size, len(self.modalities)
        size = d if keys.feature_size is None else keys.feature_size
        if size != d and keys.fusion_mode != "concat":
            raise ConfigError(
                f"config key [feature_size] = [{size}]: fusion_mode {keys.fusion_mode} needs that "
                f"of embedding_size, {d}; concat takes any"
            )
        self.pruned_graph = self.graph
        self.pruning = PrunedGraph(self.interactions, keys.edge_dropout)
        self.raw = RawFeatures(self.features, trained=False)
        self.project = projections(self.features, size)
        sizes = [size] * n
        if keys.weighting == "equal":
            self.fuse_modalities = nn.Identity()
            if n > 1:
                self.fuse_modalities = Fusion(keys.fusion_mode, sizes, size)
            sizes = [size]
        self.fuse = Fusion(keys.fusion_mode, [d, *sizes], d)
        if keys.weighting == "alpha":
            self.alpha_logit = nn.Parameter(torch.zeros(1))  # α

    def on_epoch_start(self, epoch: int) -> None:
        """The subgraph of step 1."""
        if self.keys.edge_dropout > 0:
            self.pruned_graph = self.pruning.draw().to(self.user_embedding.weight.device)

    def items(self, j: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Steps 2-3: I of some items (default: all) from their J: [n, d] → [n, d]."""
        x = []
        for name in self.modalities:
            raw = self.raw[name] if rows is None else select_rows(self.raw[name], rows)
            x.append(self.masked(name, self.project[name](raw), rows))
        if self.keys.weighting == "equal":
            return self.fuse(j, self.fuse_modalities(*x))
        if self.keys.weighting == "alpha":
            a = torch.sigmoid(self.alpha_logit)
            return self.fuse(a * j, *((1.0 - a) * part for part in x))
        return self.fuse(len(x) * unit_rows(j), *map(unit_rows, x))

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        users, j = self.lightgcn(self.keys.n_ui_layers)
        return users, self.items(j)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 4 as its terms, already weighted: (BPR, L2)."""
        keys, batch = self.keys, Batch.from_interaction(self, interaction)
        final, ids = mean_propagation_and_start(
            self.pruned_graph, self.ego(), keys.n_ui_layers, batch.nodes
        )
        final, ids = columns.whole(torch.stack([final, ids]), keys.embedding_size)
        users, j = final.split([len(batch.users), len(batch.items)])
        table = torch.cat([users, self.items(j, batch.items)])
        return batch.bpr(table), keys.reg_weight * batch.l2(ids)
