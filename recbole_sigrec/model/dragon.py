"""DRAGON: enhancing dyadic relations with homogeneous graphs (arXiv 2301.12097, ECAI 2023).

1.  Each modality m as in DualGNN: x = unit([P^m; W₂ LeakyReLU(W₁ x^m + b₁) + b₂]), users'
    preferences on top of the items' projected features; h^m = x + Âx + Â²x on the normalised
    user-item graph Â.
2.  Attentive concatenation: users U⁰ = ‖_m a_{u,m} h_u^m with a weight a for each user and
    modality; items I⁰ = ‖_m h_i^m, not weighted.
3.  Item graph, frozen, FREEDOM's: S = Σ_m α_m S^m, each the mean over the k most similar items by
    the raw features, the item itself among them. I = I⁰ + S^{L_ii} I⁰.
4.  User graph: the K users who have most training items in common with a user, weighed by a softmax
    of these numbers (no temperature). A shorter list is filled up to K before each epoch, by
    members of it that are drawn and repeated. U = U⁰ + Q U⁰.
5.  Scores U_u · I_i; L = BPR + λ (Σ_m mean (P^m_u)² over the batch's users + mean a²).

Where the paper and the authors' released code differ, the code is followed: a is a free parameter,
a softmax at its start alone; BPR has the logarithm to base 2; one step on the user graph.

Deviations from the code:

- Evaluation computes its own representations, by a user graph in which all neighbours of a short
  list stand equally often, as they do on average. The code scores by what the last training batch
  left behind, with the draws of its epoch.
- K and d are keys; the code reads its keys of them, and has 40 and 64 whatever they are.
- Items' edges that the code drops and never uses are not dropped, its second table of weights and
  its trained copies of the features, without effect there, are not made.
- The item graph follows its keys; the code reads it from a file that is named by k alone.

Ours: any number of modalities (α is .1 for image and .9 for text if these are the two, as
published, else equal); an item without one starts as zero in it, and has no edge in its S^m; [PAD]
has no part in L; negatives are drawn from the items seen in training (``negative_items``). The
layers of step 1 are a key.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import propagate
from recbole_sigrec.model.item_graphs import MixedItemGraphKeys, mixed_item_graph
from recbole_sigrec.model.modality_branch import UserGraphKeys, UserGraphRecommender


class DRAGONKeys(UserGraphKeys, MixedItemGraphKeys):
    """The keys of DRAGON; their defaults are in ``properties/model/DRAGON.yaml``."""


class DRAGON(UserGraphRecommender[DRAGONKeys]):
    """The model; see the module's text for its steps."""

    Keys = DRAGONKeys

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        self.item_graph = mixed_item_graph(config, self.features, self.mask)

    def fuse(
        self, users: Sequence[torch.Tensor], items: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Steps 2 and 3."""
        joined = torch.cat([*items], dim=1)
        near = propagate(self.item_graph, joined, self.keys.n_item_layers)
        return torch.cat([*users], dim=1), joined + near
