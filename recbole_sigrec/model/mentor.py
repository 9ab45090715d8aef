"""MENTOR: multi-level self-supervised learning for multimodal recommendation (AAAI 2025).

1.  Branches (arXiv 2402.19407): each modality m as in DualGNN, x = unit([P^m; f^m]) of users'
    preferences and the items' projected features, h^m = x + Âx + Â²x on the normalised user-item
    graph Â. One more, the guide, has an id embedding of each item in the place of the features.
2.  Item graph, frozen, FREEDOM's: S = Σ_m α_m S^m. Items of a branch become i = h_i + S^{L_ii} h_i.
3.  Fused F: users ‖_m a_{u,m} h_u^m with a weight a for each user and modality, items ‖_m i^m.
    Scores F_u · F_i.
4.  L_al, alignment: |Δ var| + |Δ mean| of all entries, over all pairs of F, the guide and each
    modality, whose branch's table stands M times side by side, not weighted by a.
5.  L_f, feature masking: 1 − cos(drop(F), W F + b), the mean over users plus that over items.
6.  L_g, graph perturbation: two more fused tables of noisy branches, y ← Ây + ε sign(Ây) ⊙ unit(ξ)
    in each layer, ξ ~ U(0, 1); InfoNCE between the two, over all users plus over all items.
7.  L = BPR + λ (Σ_m mean (P^m_u)² of the batch + mean a²) + λ_al L_al + λ_f L_f + λ_g L_g.

Where the paper and the authors' released code differ, the code is followed: BPR has the logarithm
to base 2; the noisy branches have parameters of their own, so that L_g reaches the scores by a
alone (``shared_views: True`` gives them those of step 1); L_f has no gradient, so that nothing
follows from it (``mask_gradient: True`` trains by it, as the paper says).

Deviations from the code:

- Evaluation computes its own representations; the code scores by those of the last training batch.
- The code draws DualGNN's user graph before each epoch, and never uses it: not made.
- d and α are followed; the code has a fixed d and reads S from a file that is named by k alone.

Ours: any number of modalities (α is .1 for image and .9 for text if these are the two, as
published, else equal); an item without one starts as zero in it, and has no edge in its S^m; [PAD]
has no part in L; negatives are drawn from the items seen in training (``negative_items``). ε and
the layers of steps 1 and 2 are keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import propagate
from recbole_sigrec.kernels.products import Linear
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.item_graphs import MixedItemGraphKeys, mixed_item_graph
from recbole_sigrec.model.layers import perturb
from recbole_sigrec.model.losses import cosine_distance, info_nce, moment_distance
from recbole_sigrec.model.modality_branch import BranchKeys, BranchRecommender, ModalityBranch


class MENTORKeys(BranchKeys, MixedItemGraphKeys):
    """The keys of MENTOR; their defaults are in ``properties/model/MENTOR.yaml``."""

    align_weight: float = setting("λ_al, weight of the alignment of moments (0: off)", ge=0)
    mask_weight: float = setting("λ_f, weight of the feature masking (0: off)", ge=0)
    mask_gradient: bool = setting("whether the feature masking is trained, or a constant")
    dropout: float = setting("share of entries dropped in the feature masking", ge=0, lt=1)
    cl_weight: float = setting("λ_g, weight of the noisy views' InfoNCE (0: off)", ge=0)
    temperature: float = setting("τ of the InfoNCE", gt=0)
    perturbation_eps: float = setting("ε, the strength of the views' noise", ge=0)
    shared_views: bool = setting("whether the noisy views have the modalities' own parameters")


class MENTOR(BranchRecommender[MENTORKeys]):
    """The model; tables of users and items are stacked, users first: n = n_users + n_items."""

    Keys = MENTORKeys

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        self.item_graph = mixed_item_graph(config, self.features, self.mask)
        self.item_id = nn.Parameter(nn.init.xavier_normal_(torch.empty(self.n_items, d)))
        self.guide = ModalityBranch(self.n_users, d, d)
        n_own, width = 0 if keys.shared_views else 2, len(self.modalities) * d
        self.view_branches = nn.ModuleList(self.branches() for _ in range(n_own))
        self.predictor = Linear(width, width).requires_grad_(keys.mask_gradient)

    def with_neighbours(self, items: torch.Tensor) -> torch.Tensor:
        """Step 2: [n_items, c] → [n_items, c]."""
        return items + propagate(self.item_graph, items, self.keys.n_item_layers)

    def fuse(self, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 3: F_u [n_users, M·d] and F_i [n_items, M·d] of the h^m [n, d]."""
        users, items = (torch.cat(tables, dim=1) for tables in self.split(parts))
        return users, self.with_neighbours(items)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fuse(self.convolved())

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 7's terms, already weighted: (BPR, L2, L_al, L_f, L_g)."""
        keys, parts = self.keys, self.convolved()
        users, items = self.fuse(parts)
        bpr, l2 = self.losses(users, items, interaction)
        align = mask = cl = bpr.new_zeros(())
        if keys.align_weight > 0:
            align = keys.align_weight * self.alignment(users, items, parts)
        if keys.mask_weight > 0:
            with torch.set_grad_enabled(keys.mask_gradient):
                mask = keys.mask_weight * self.masking(users, items)
        if keys.cl_weight > 0:
            cl = keys.cl_weight * self.contrast()
        return bpr, l2, self.equal_part(align), self.equal_part(mask), cl

    def alignment(
        self, users: torch.Tensor, items: torch.Tensor, parts: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Step 4: L_al."""
        tables = [torch.cat([users[1:], items[1:]])]
        for h in (self.convolve(self.guide(self.item_id)), *parts):
            h_u, h_i = self.users_and_items(h)
            table = torch.cat([h_u[1:], self.with_neighbours(h_i)[1:]])
            tables.append(table.repeat(1, len(parts)))
        distances = [moment_distance(*pair) for pair in itertools.combinations(tables, 2)]
        return torch.stack(distances).sum()

    def masking(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Step 5: L_f."""
        of_users, of_items = (
            cosine_distance(self.predictor(x), F.dropout(x, self.keys.dropout)).mean()
            for x in (users[1:], items[1:])
        )
        return of_users + of_items

    def contrast(self) -> torch.Tensor:
        """Step 6: L_g, or this process's share of it."""
        branches: list[Any] = [*self.view_branches] or [self.branch] * 2
        one, two = (self.fuse([self.noisy(x) for x in self.starts(b)]) for b in branches)
        of_users, of_items = (
            info_nce(x[1:], y[1:], self.keys.temperature, share=self.share(len(x) - 1))
            for x, y in zip(one, two, strict=True)
        )
        return of_users + of_items

    def noisy(self, x: torch.Tensor) -> torch.Tensor:
        """Step 1 with step 6's noise in each layer: [n, d] → [n, d]."""
        total = x
        for _ in range(self.keys.n_ui_layers):
            x = perturb(self.graph(x), self.keys.perturbation_eps, "uniform")
            total = total + x
        return total
