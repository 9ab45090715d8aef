"""SIGRec: semantic item graph enhancement for multimodal recommendation (arXiv 2508.06154).

Only the paper's abstract, and what later work reports of its Eq. 3-7, could be read; each step
below says what is [paper] and what is [ours].

1.  Semantic graph of each modality m: S^m_ij = cos(x_i, x_j), top k per row, normalised to Ŝ^m
    [paper; construction as in LATTICE and FREEDOM; symmetrised: ours].
2.  Collaborative signals: top-k graph of RᵀR of the training interactions, normalised to Ĉ
    [paper; cosine weight: ours].
3.  Infusion A^m = (1 − α) Ŝ^m + α Ĉ [paper].
4.  Behavior representation b: LightGCN on the user-item graph, mean over layers [ours].
5.  Semantic representation h^m: item embeddings propagated over A^m, users by aggregation over
    their items [ours].
6.  Fusion f of the h^m; e = b + f; score e_u · e_i [paper names a fused semantics; form ours].
7.  Modulus-based personalised perturbation of f, twice [paper; form ours].
8.  L_cl: InfoNCE between the two views [paper].
9.  L_anchor: anchor-based InfoNCE, b the anchor, the h^m its positives [paper; form ours].
10. L_fuse: standard InfoNCE between b and f [paper].
11. L = L_BPR + λ_cl L_cl + λ_anchor L_anchor + λ_fuse L_fuse + λ_reg ‖Θ‖².
12. Unless ``item_score_weight`` is 0, an item graph of collaborative and semantic signals scores
    the trained model's users directly, too [ours; :mod:`recbole_sigrec.model.item_scores`].
"""

from __future__ import annotations

from typing import Literal

import pydantic
import torch
from torch import nn

from recbole_sigrec.config import Auto, Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import (
    SparseGraph,
    collaborative_graph,
    infuse,
    normalize,
    propagate,
    semantic_graph,
)
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import DIVIDED_IDS, RawFeatures, xavier_linear
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.item_scores import ItemScoreKeys, ItemScores, without_choice
from recbole_sigrec.model.layers import (
    ColumnLinear,
    MeanFusion,
    Purifier,
    build_fusion,
    perturb,
)
from recbole_sigrec.model.modality_weights import weights_of_modalities
from recbole_sigrec.model.views import GraphKeys, GraphRecommender, by_view, with_users
from recbole_sigrec.parallel import columns


class SIGRecKeys(GraphKeys, ItemScoreKeys):
    """The keys of SIGRec; their defaults are in ``properties/model/SIGRec.yaml``."""

    n_semantic_layers: int = setting("L_m, layers on each semantic graph", ge=0)
    semantic_graphs: bool = setting("propagate over the item graphs at all (False: ablation)")
    collab_weight: float = setting("α, the share of collaborative signals (0: none)", ge=0, le=1)
    collab_knn_k: int = setting("k of the collaborative graph", ge=1)
    collab_measure: Literal["cosine", "jaccard", "count", "random_walk"] = setting(
        "edge weight of the collaborative graph"
    )
    collab_max_history: pydantic.PositiveInt | Auto | None = setting(
        "users with more items are left out of the collaborative graph; none given: nobody; auto: "
        "ten times the median of the users"
    )
    semantic_init: Literal["id", "gated", "projected"] = setting(
        "what is propagated: item embeddings, gated by the features, or projected features"
    )
    train_features: bool = setting("whether the raw features are trained too")
    fusion: Literal["mean", "attention", "behavior"] = setting("how the h^m are fused")
    modality_weights: dict[str, float] | Auto | None = setting(
        "{modality: its share of the fusion mean, and of the content in the item graph's own "
        "scores}; none given: all are equal; auto: chosen on the validation part"
    )
    perturbation: Literal["modulus", "uniform", "none"] = setting("noise of the contrastive views")
    perturbation_eps: float = setting("ε, the strength of the noise", ge=0)
    cl_weight: float = setting("λ_cl, contrastive loss on perturbed views (0: off)", ge=0)
    anchor_weight: float = setting("λ_anchor, anchor-based InfoNCE (0: off)", ge=0)
    fuse_weight: float = setting("λ_fuse, InfoNCE of behavior and fused semantics (0: off)", ge=0)
    cl_temperature: float = setting("τ of L_cl", gt=0)
    anchor_temperature: float = setting("τ of L_anchor", gt=0)
    fuse_temperature: float = setting("τ of L_fuse", gt=0)
    contrastive_warmup: int = setting(
        "epochs over which the three weights rise linearly to their values", ge=0
    )
    contrastive_anchors: float = setting(
        "share of the batch's pairs whose nodes are anchors of the three terms", gt=0, le=1
    )
    reg_weight: float = setting("λ_reg, L2 of the batch's representations", ge=0)


class SIGRec(GraphRecommender[SIGRecKeys]):
    """The model; see the module's text for its equations and ``SIGRecKeys`` for its keys.

    Step 4, the behavior representation b [n, d], is the base's.
    """

    Keys = SIGRecKeys
    loss_in_shares = True
    divided_tables = DIVIDED_IDS

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        self.user_graph = SparseGraph(normalize(self.interactions))  # step 5, users
        self.semantic_graph = nn.ModuleDict(self._semantic_graphs(config))  # steps 1-3

        used = {} if keys.semantic_init == "id" else self.features
        self.raw = RawFeatures(used, keys.train_features)
        layer = Purifier if keys.semantic_init == "gated" else ColumnLinear
        self.project = nn.ModuleDict({name: layer(x.shape[1], d) for name, x in used.items()})
        given = without_choice("modality_weights", keys.modality_weights)
        weights = weights_of_modalities(self.modalities, given)
        self.fusion = build_fusion(keys.fusion, list(weights.values()), d)
        self.item_scores = ItemScores.from_config(  # step 12
            config, keys, self.interactions, self.features, self.mask, weights
        )
        xavier_linear(self)
        if isinstance(self.fusion, MeanFusion):  # steps 5 and 6 are linear in a user's items
            self.history_parts = tuple(self.modalities)
        self.contrastive_scale = 1.0
        # Without shuffling the first places of a batch are no random part of it.
        self.anchors = keys.contrastive_anchors if config["shuffle"] else 1.0

    def _semantic_graphs(self, config: Config) -> dict[str, SparseGraph]:
        """Steps 1-3: A^m for each modality; empty with ``semantic_graphs: False``."""
        keys = self.keys
        if not keys.semantic_graphs or keys.n_semantic_layers == 0:
            return {}
        collaborative = None
        if keys.collab_weight > 0:
            collaborative = normalize(collaborative_graph(config, self.interactions))
        graphs = {}
        for name, features in self.features.items():
            graph = normalize(semantic_graph(config, features, self.mask[name]))
            if collaborative is not None:
                graph = infuse(graph, collaborative, keys.collab_weight)
            graphs[name] = SparseGraph(graph)
        return graphs

    def on_epoch_start(self, epoch: int) -> None:
        warmup = self.keys.contrastive_warmup
        self.contrastive_scale = min(1.0, (epoch + 1) / warmup) if warmup else 1.0

    # ---- representations ---------------------------------------------------------------------

    def semantic(self, batch: Batch | None = None) -> torch.Tensor:
        """Step 5: h^m of all nodes, or of a batch's: [M, n, d]."""
        items = []
        for name in self.modalities:
            h = self._semantic_start(name)  # [n_items, d], or this process's columns
            if name in self.semantic_graph:
                h = propagate(self.semantic_graph[name], h, self.keys.n_semantic_layers)
            items.append(h)
        rows = with_users(self.user_graph, torch.cat(items, dim=1), batch)
        return columns.whole(by_view(rows, len(items)), self.keys.embedding_size)

    def _semantic_start(self, name: str) -> torch.Tensor:
        ids = self.item_embedding.weight
        if self.keys.semantic_init == "id":
            return ids
        if self.keys.semantic_init == "gated":
            return self.project[name](ids, self.raw[name])
        return self.project[name](self.raw[name])

    def forward(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Steps 4-6: behavior b [n, d], semantic h [M, n, d], fused f [n, d]."""
        behavior, semantic = self.behavior(), self.semantic()
        return behavior, semantic, self.fusion(behavior, semantic)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        behavior, _, fused = self.forward()
        return self.users_and_items(behavior + fused)

    def item_parts(self) -> dict[str, torch.Tensor]:
        behavior, semantic, fused = (part[..., self.n_users :, :] for part in self.forward())
        if not isinstance(self.fusion, MeanFusion):
            return {"behavior": behavior, "semantics": fused}
        weighted = zip(self.modalities, self.fusion.weights, semantic, strict=True)
        return {"behavior": behavior, **{name: weight * h for name, weight, h in weighted}}

    # ---- training ----------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 11 as its terms, already weighted: (BPR, L_cl, L_anchor, L_fuse, L2)."""
        keys = self.keys
        batch = Batch.from_interaction(self, interaction)
        behavior, semantic = self.behavior(batch), self.semantic(batch)
        fused = self.fusion(behavior, semantic)
        final = behavior + fused
        bpr, reg = batch.bpr(final), keys.reg_weight * batch.l2(final)
        cl = anchor = fuse = bpr.new_zeros(())
        for side in batch.sides(self.anchors):
            b, f = side.of_anchors(select_rows(behavior, side.rows)), select_rows(fused, side.rows)
            if keys.cl_weight > 0:  # steps 7-8
                noise = keys.perturbation_eps, keys.perturbation
                views = perturb(side.of_anchors(f), *noise), perturb(f, *noise)
                cl = cl + side.info_nce(*views, keys.cl_temperature)
            if keys.anchor_weight > 0:  # step 9
                h = select_rows(semantic, side.rows, dim=1)
                anchor = anchor + side.info_nce(b, h, keys.anchor_temperature)
            if keys.fuse_weight > 0:  # step 10
                fuse = fuse + side.info_nce(b, f, keys.fuse_temperature)
        scale = self.contrastive_scale
        return (
            bpr,
            scale * keys.cl_weight * cl,
            scale * keys.anchor_weight * anchor,
            scale * keys.fuse_weight * fuse,
            reg,
        )
