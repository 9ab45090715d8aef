"""DualGNN: dual graph neural network for multimedia recommendation (TMM 2021).

1.  Each modality m (DOI 10.1109/TMM.2021.3138298): f^m = W₂ LeakyReLU(W₁ x^m + b₁) + b₂ of the
    items, P^m the users' preferences, x = unit([P^m; f^m]), h^m = x + Âx + Â²x on the normalised
    user-item graph Â.
2.  Users: U⁰ = Σ_m a_{u,m} h_u^m with a weight a for each user and modality.
    Items: I = Σ_m h_i^m.
3.  User graph: the K users who have most training items in common with a user, weighed by a softmax
    of these numbers (no temperature). A shorter list is filled up to K before each epoch, by
    members of it that are drawn and repeated. U = U⁰ + Q U⁰.
4.  Scores U_u · I_i; L = BPR + λ (Σ_m mean (P^m_u)² over the batch's users + mean a²).

Where the paper and the authors' released code differ, the code is followed: a is a free parameter,
a softmax at its start alone; the items' parts are not weighted; BPR has the logarithm to base 2.

Deviations from the code:

- Evaluation computes its own representations, by a user graph in which all neighbours of a short
  list stand equally often, as they do on average. The code scores by what the last training batch
  left behind, with the draws of its epoch.
- The code's weights of the items are left out: nothing but their own penalty reads them.
- Its "node dropout" is prepared there and never used; here it is not there.
- MMRec's version adds the other modalities to the stored first one, so that a user's weight of the
  first one acts on the sum. Here, as in the authors' code, it does not.

Ours: any number of modalities; an item without one starts as zero in it; [PAD] has no part in L;
negatives are drawn from the items seen in training (``negative_items``). Both layers of step 1 are
a key.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import torch

from recbole_sigrec.model.modality_branch import UserGraphKeys, UserGraphRecommender


class DualGNNKeys(UserGraphKeys):
    """The keys of DualGNN; their defaults are in ``properties/model/DualGNN.yaml``."""


class DualGNN(UserGraphRecommender[DualGNNKeys]):
    """The model; see the module's text for its steps."""

    Keys = DualGNNKeys

    def fuse(
        self, users: Sequence[torch.Tensor], items: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 2."""
        return functools.reduce(operator.add, users), functools.reduce(operator.add, items)
