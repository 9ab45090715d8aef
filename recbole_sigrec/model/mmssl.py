"""MMSSL: multi-modal self-supervised learning for recommendation (arXiv 2302.10632, WWW 2023).

B = D^{-1/2} R and B' = D^{-1/2} Rᵀ, D the row sums of each, are the user-item graph. G^m and G'^m
are made in the same way of Γ^m, the user-item graph that modality m generates.

1.  Features: f = dropout(W_m x^m + b_m); F_U = B f, F_I = B' F_U.
2.  Modality-aware ids: M_U = G^m i, M_I = G'^m u of the embeddings i and u. z = mean_m(M) W̄, W̄ the
    sum of the heads' maps; u_0 = u + ρ z_U/‖z_U‖, i_0 = i + ρ z_I/‖z_I‖.
3.  L layers u_l = B i_{l−1}, i_l = B' u_l; in the last a softmax over its entries follows each.
    h = mean over layers + ω Σ_m F/‖F‖. Score h_u · h_i.
4.  A critic D (:mod:`recbole_sigrec.model.critic`) tells the rows S(F_U, F_I) of the batch's users,
    of each modality, from observed ones, softmax(R_u + γ g) + κ S(h_U, h_I)_u with Gumbel noise g.
    Before each batch an Adam of its own takes a step on mean D(generated) − mean D(observed) and a
    gradient penalty.
5.  The c items of largest S(F_U, F_I) become the user's row of Γ^m.
6.  L = BPR + λ_r L2 of the batch's h + λ_f ½ Σ_m (‖F_U‖² + ‖F_I‖²)/n_items
    + λ_cl Σ_m con(M_U, h_U) − λ_a mean D(generated), con over the batch's users.

Where the paper and the authors' released code differ, the code is followed. Its attention over
modalities comes down to the linear map of step 2: queries and keys cancel. D has no activations.
The temperature of observed rows divides the noise alone, γ = 10⁻⁵/.005. The repetition of steps 1
and 2 and the decay of the learning rate have no effect there, and are left out.

Deviations from the code:

- Step 5. The code takes c = ⌊n_items/10,000⌋, 0 for most data sets, and in the batch after it has
  rebuilt the graphs it rebuilds them from nothing: they are empty for most of the training, and at
  evaluation. Here c is ``generated_items`` (0: Γ is empty). The last row of each user is kept,
  where the code counts all since it last rebuilt; training takes them over when an epoch starts.
- Batches are RecBole's pairs, in which users recur. The code draws distinct users and a pair each.
- L2 is divided by the rows of the batch as it is, not by the batch size of the config.

Ours: any number of modalities. An item without one has f = 0 there, and gets F_I from its users. A
user has R's row of Γ^m until one is generated, from items of positive S alone. [PAD] has no part in
D, L2 and Γ. ``adversarial_weight: 0`` leaves out D, which takes most of the time.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import pydantic
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import (
    EmbeddingKeys,
    MultimodalRecommender,
    RawFeatures,
    projections,
    xavier_embedding,
    xavier_linear,
)
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.critic import Critic, Factors, Taken, observed, relations
from recbole_sigrec.model.generated_relations import GeneratedRelations, both_ways
from recbole_sigrec.model.losses import both_view_contrast, bpr_of_rows, l2_loss

Share = Annotated[float, pydantic.Field(ge=0, lt=1)]


class MMSSLKeys(EmbeddingKeys):
    """The keys of MMSSL; their defaults are in ``properties/model/MMSSL.yaml``."""

    n_ui_layers: int = setting("L, layers on the user-item graph", ge=1)
    n_heads: int = setting("heads of the map of the modality-aware ids", ge=1)
    dropout: float = setting("share of entries dropped of the projected features", ge=0, lt=1)
    id_weight: float = setting("ρ, weight of the modality-aware ids", ge=0)
    feature_weight: float = setting("ω, weight of each modality's features", ge=0)
    generated_items: int = setting("c, a user's items in the generated graphs (0: none)", ge=0)
    critic_learning_rate: float = setting("of the critic", gt=0)
    critic_dropout: tuple[Share, Share] = setting("of the inputs of its second and third map")
    penalty_weight: float = setting("λ of the gradient penalty", ge=0)
    noise_weight: float = setting("γ, of the noise in observed rows", ge=0)
    score_weight: float = setting("κ, of the model's own scores in observed rows", ge=0)
    adversarial_weight: float = setting("λ_a, weight of the critic's verdict (0: no critic)", ge=0)
    cl_weight: float = setting("λ_cl, weight of the contrast of modality-aware ids", ge=0)
    temperature: float = setting("τ of the contrast", gt=0)
    reg_weight: float = setting("λ_r, L2 of the batch's representations", ge=0)
    feature_reg_weight: float = setting("λ_f, L2 of the modalities' features", ge=0)


class Representations(NamedTuple):
    """Of all users or items, each [n_users or n_items, d].

    Attributes:
        users, items: h.
        features: F_U and F_I of each modality.
        ids: M_U of each modality.
    """

    users: torch.Tensor
    items: torch.Tensor
    features: list[Factors]
    ids: list[torch.Tensor]

    def factors(self, users: torch.Tensor) -> list[Factors]:
        """F_U of some users, and F_I, of each modality."""
        return [(select_rows(f_u, users), f_i) for f_u, f_i in self.features]


class MMSSL(MultimodalRecommender[MMSSLKeys]):
    """The model; see the module's text for its steps."""

    Keys = MMSSLKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, d = self.keys, self.keys.embedding_size
        self.user_embedding = xavier_embedding(self.n_users, d)
        self.item_embedding = xavier_embedding(self.n_items, d)
        self.graphs = both_ways(self.interactions)  # B, B'
        self.raw = RawFeatures(self.features, trained=False)
        self.project = projections(self.features, d)
        xavier_linear(self.project)
        self.head_mix = nn.Parameter(nn.init.xavier_uniform_(torch.empty(keys.n_heads * d, d)))
        if keys.adversarial_weight > 0:
            self.critic = Critic(self.n_items, keys.critic_dropout)
            self.own_optimizers["critic"] = torch.optim.Adam(
                self.critic.parameters(), keys.critic_learning_rate, (0.5, 0.9), fused=True
            )
        self.generated = GeneratedRelations(
            self.modalities, self.interactions, keys.generated_items
        )
        self.kept_buffers = tuple(f"generated.of_{name}" for name in self.modalities)
        self._epoch_graphs: list[nn.ModuleList] | None = None

    def on_epoch_start(self, epoch: int) -> None:
        self._epoch_graphs = None
        self.generated.share()

    def forward(self, graphs: list[nn.ModuleList]) -> Representations:
        """Steps 1-3, from the G^m, G'^m."""
        keys, (to_users, to_items) = self.keys, self.graphs
        u, i = self.user_embedding.weight, self.item_embedding.weight
        features, ids = [], []
        for name, (of_users, of_items) in zip(self.modalities, graphs, strict=True):
            f = F.dropout(self.project[name](self.raw[name]), keys.dropout, self.training)
            f_u = to_users(self.masked(name, f))
            features.append((f_u, to_items(f_u)))
            ids.append((of_users(i), of_items(u)))
        mix = self.head_mix.unflatten(0, (keys.n_heads, -1)).sum(dim=0)
        z_u, z_i = (F.normalize(torch.stack(side).mean(dim=0) @ mix, dim=1) for side in zip(*ids))
        users, items = [u + keys.id_weight * z_u], [i + keys.id_weight * z_i]
        for layer in range(keys.n_ui_layers):
            last = layer == keys.n_ui_layers - 1
            for side, graph, other in ((users, to_users, items), (items, to_items, users)):
                h = graph(other[-1])
                side.append(h.softmax(dim=1) if last else h)
        h_u, h_i = (
            torch.stack(layers).mean(dim=0)
            + keys.feature_weight * F.normalize(torch.stack(parts), dim=2).sum(dim=0)
            for layers, parts in zip((users, items), zip(*features))
        )
        return Representations(h_u, h_i, features, [of_users for of_users, _ in ids])

    def training_forward(self) -> Representations:
        """:meth:`forward` from the graphs of the epoch."""
        if self._epoch_graphs is None:
            self._epoch_graphs = self.generated.graphs()
        return self.forward(self._epoch_graphs)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.training_forward() if self.training else self.forward(self.generated.graphs())
        return found.users, found.items

    def on_batch_start(self, interaction: Interaction) -> None:
        """Steps 4 and 5."""
        users = interaction[self.USER_ID]
        taken = Taken.of_users(self.interactions, users)
        with torch.no_grad():
            found = self.training_forward()
        for name, (p, q) in zip(self.modalities, found.factors(users)):
            self.generated.replace(name, users, relations(p, q, taken))
        if self.keys.adversarial_weight > 0:
            optimizer = self.own_optimizers["critic"]
            torch.stack(self.critic_losses(found, users, taken)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    def critic_losses(
        self, found: Representations, users: torch.Tensor, taken: Taken
    ) -> tuple[torch.Tensor, ...]:
        """Step 4's loss as its terms: mean D(generated), −mean D(observed), penalty."""
        keys = self.keys
        own = relations(select_rows(found.users, users), found.items, taken)
        real = observed(own, taken, keys.noise_weight, keys.score_weight)
        return self.critic.losses(found.factors(users), taken, real, keys.penalty_weight)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 6 as its terms, already weighted: (BPR, L2, L2 of features, contrast, critic)."""
        keys, users, n = self.keys, interaction[self.USER_ID], len(interaction)
        share = self.share(n)
        found = self.training_forward()
        h_u = select_rows(found.users, users)
        pairs = [interaction[self.ITEM_ID][share], interaction[self.NEG_ITEM_ID][share]]
        h_i, h_j = select_rows(found.items, torch.cat(pairs)).chunk(2)
        bpr, l2 = bpr_of_rows(h_u[share], h_i, h_j, n), l2_loss(h_u[share], h_i, h_j, n=n)
        squares = [table.square().sum() for pair in found.features for table in pair]
        l2_features = self.equal_part(0.5 * torch.stack(squares).sum() / (self.n_items - 1))
        contrast = [
            both_view_contrast(select_rows(m_u, users), h_u, keys.temperature, share)
            for m_u in found.ids
        ]
        verdict = bpr.new_zeros(())
        if keys.adversarial_weight > 0:
            frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
            given = found.factors(users), Taken.of_users(self.interactions, users)
            verdict = self.equal_part(functional_call(self.critic, frozen, given).mean())
        return (
            bpr,
            keys.reg_weight * l2,
            keys.feature_reg_weight * l2_features,
            keys.cl_weight * torch.stack(contrast).sum(),
            -keys.adversarial_weight * verdict,
        )
