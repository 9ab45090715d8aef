"""SLMRec: self-supervised learning for multimedia recommendation (doi 10.1109/TMM.2022.3187556).

IEEE TMM 2022, with the self-supervised task FAC, fine and coarse alignment.

1.  x^m = W_m unit(x̃^m) + b_m; the features x̃^m, scaled to unit rows, are constant.
2.  LightGCN, the mean over layers on the user-item graph, from the ids and from each modality:
    g^id = P(E_U, E_I), g^m = P(E_U, x^m), with the same users E_U at all starts.
3.  e_u = W_U [g^id, g^1, …, g^M]_u + b_U; e_i likewise with W_I, b_I. Scores e_u · e_i.
4.  L = InfoNCE(e_u, e_i) + λ L_FAC. The InfoNCE is of cosines, from the batch's users to their
    items, over the batch as drawn: a repeated user or item counts as often. No negatives are
    sampled.
5.  L_FAC of the batch's items: a chain of linear maps without activation starts at
    a = H_id g^id and meets each modality in a space of its own; a meets m by the cross entropy of
    the logits a · H_m g^m / τ_s, in which an item's partner is itself among the batch as drawn.
    With image and text: a meets the image in d dimensions (fine), C₂ C₁ a the text in d/2 (coarse).

Followed where paper and code differ: the code. Training has cosines in step 4, ranking and step 5
have plain products. The code's sigmoid of the scores, which does not change the ranking, is left
out. Adam has an L2 weight decay (``weight_decay``).

Deviations from the code: evaluation recomputes the representations (MMRec's adaptation ranks by
those of the last batch); heads without use do not exist; the tasks FD and FM are not offered.

Ours: any number of modalities, in the order of ``modalities`` (none given: by name). The chain has
no map before the first, one of d → d before each next and one of d → d/2 before the last; with two
it has both before the second, which is the original. With ``[image, audio, text]`` it is the
authors' chain of three; with one the first term is alone. An item without a modality has x^m = 0,
and takes no part in the term of L_FAC for it.
"""

from __future__ import annotations

import torch
from torch import nn

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import mean_propagation
from recbole_sigrec.graph.unit_rows import unit_rows
from recbole_sigrec.kernels.products import Linear, linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.base import (
    LightGCNKeys,
    LightGCNRecommender,
    RawFeatures,
    projections,
    xavier_linear,
)
from recbole_sigrec.model.batch import Batch, Interaction
from recbole_sigrec.model.losses import info_nce
from recbole_sigrec.parallel import distributed


class SLMRecKeys(LightGCNKeys):
    """The keys of SLMRec; their defaults are in ``properties/model/SLMRec.yaml``."""

    temperature: float = setting("τ of the InfoNCE of users and items", gt=0)
    cl_weight: float = setting("λ, weight of the alignment of an item's modalities (0: off)", ge=0)
    cl_temperature: float = setting("τ_s of that alignment", gt=0)


class SLMRec(LightGCNRecommender[SLMRecKeys]):
    """The model; tables of all sources stand side by side, ids first: [n, (1 + M) d]."""

    Keys = SLMRecKeys
    loss_in_shares = True

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        d, n = self.keys.embedding_size, len(self.modalities)
        unit = {name: unit_rows(features) for name, features in self.features.items()}
        self.raw = RawFeatures(unit, trained=False)
        self.project = projections(self.features, d)
        self.fuse_users, self.fuse_items = (Linear((1 + n) * d, d) for _ in range(2))
        half = (d + 1) // 2  # of an odd d, its larger part
        sizes = [d] * n if n == 1 else [d] * (n - 1) + [half]
        self.head_id = Linear(d, d)
        self.heads = nn.ModuleDict(
            {name: Linear(d, size) for name, size in zip(self.modalities, sizes)}
        )
        self.chain = nn.ModuleList([nn.Sequential()])  # before the first modality: as it is
        for size in sizes[1:]:
            self.chain.append(nn.Sequential(Linear(d, size)))
        if n == 2:
            self.chain[1] = nn.Sequential(Linear(d, d), Linear(d, half))
        xavier_linear(self)

    def propagated(self, nodes: torch.Tensor | None = None) -> torch.Tensor:
        """Steps 1-2 of all users and items, or of some rows: [n, (1 + M) d]."""
        x = [self.masked(name, self.project[name](self.raw[name])) for name in self.modalities]
        users = self.user_embedding.weight.repeat(1, 1 + len(x))
        items = torch.cat([self.item_embedding.weight, *x], dim=1)
        return mean_propagation(self.graph, torch.cat([users, items]), self.keys.n_ui_layers, nodes)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Step 3."""
        users, items = self.users_and_items(self.propagated())
        return self.fuse_users(users), self.fuse_items(items)

    def calculate_loss(self, interaction: Interaction) -> tuple[torch.Tensor, ...]:
        """Step 4 as its terms, already weighted: (InfoNCE, L_FAC)."""
        keys, positives = self.keys, interaction[self.ITEM_ID]
        batch = Batch(interaction[self.USER_ID], positives, positives, self.n_users, self.n_items)
        users, items = self.propagated(batch.nodes).split([len(batch.users), len(batch.items)])
        user_rows, item_rows = batch.rows[0], batch.rows[1] - len(users)
        e_u = select_rows(self.fuse_users(users), user_rows)
        e_i = select_rows(self.fuse_items(items), item_rows)
        main = info_nce(e_u, e_i, keys.temperature, share=self.share(batch.n))
        fac = main.new_zeros(())
        if keys.cl_weight > 0:
            fac = self.alignment(items, batch.items, torch.bincount(item_rows))
        return main, keys.cl_weight * fac

    def alignment(self, g: torch.Tensor, ids: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Step 5.

        Shapes: g [n, (1 + M) d], of the batch's distinct items, ids int64 [n]; count int64 [n], how
        often each is in the batch → scalar.
        """
        of_ids, *of_modalities = g.chunk(1 + len(self.modalities), dim=1)
        a, loss = self.head_id(of_ids), g.new_zeros(())
        for name, step, of_modality in zip(self.modalities, self.chain, of_modalities):
            a = step(a)
            has = getattr(self, f"has_{name}")[ids].nonzero().squeeze(1)
            if len(has):
                b = self.heads[name](select_rows(of_modality, has))
                loss = loss + meeting(select_rows(a, has), b, count[has], self.keys.cl_temperature)
        return loss


def meeting(
    a: torch.Tensor, b: torch.Tensor, count: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The mean over a batch of −a_r·b_r/τ + log Σ_s exp(a_r·b_s/τ), or this process's share of it.

    Shapes: a, b [n, d], of the distinct items; count int64 [n], how often each is in the batch →
    scalar.
    """
    share = distributed.share(len(a))
    rows = a[share] / temperature
    logits = linear(rows, b, count.to(b.dtype).log())
    each = logits.logsumexp(dim=1) - (rows * b[share]).sum(dim=1)
    return (count[share] * each).sum() / count.sum()
