"""The critic of MMSSL (arXiv 2302.10632): are rows of relations to all items observed or generated?

Generated rows are S(P, Q)_u = unit over items of ((P_u · Q_i)(1 − R_ui))_i, R the training pairs.
D is linear from n_items (m, without [PAD]) to ⌊m/4⌋, to ⌊m/8⌋ and to 1, then 100 σ, with batch norm
and dropout before the second and the third map. The norms have the statistics of the rows at hand,
always.

S is a product of small factors less few entries, and the first map takes it so: no rows of n_items
are made for it, nor kept for a gradient. Points between two rows are mapped to the points between
their images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.kernels.products import linear
from recbole_sigrec.kernels.rows import select_rows

Factors = tuple[torch.Tensor, torch.Tensor]
"""P of some users [n, d] and Q of all items [n_items, d]."""

_LEAST_NORM = 1e-12  # F.normalize's
_NORM_EPSILON = 1e-5  # batch norm's


@dataclass(frozen=True)
class Taken:
    """The training items of some users, one row of a sparse matrix [n, n_items] each.

    Attributes:
        rows, items: int64 [n_pairs], by rows.
        starts: where each row begins, int64 [n + 1].
    """

    rows: torch.Tensor
    items: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of_users(cls, interactions: sp.csr_matrix, users: torch.Tensor) -> Taken:
        """Those of ``users``, int64 [n], on their device."""
        part = interactions[users.cpu().numpy()]
        arrays = np.repeat(np.arange(len(users)), np.diff(part.indptr)), part.indices, part.indptr
        rows, items, starts = (torch.from_numpy(x).long().to(users.device) for x in arrays)
        return cls(rows, items, starts)


def relations(p: torch.Tensor, q: torch.Tensor, taken: Taken) -> torch.Tensor:
    """S(P, Q) [n, n_items], with zeros for [PAD], without a gradient."""
    with torch.no_grad():
        found = linear(p, q, None)
        found[taken.rows, taken.items] = 0.0
        found[:, 0] = 0.0
        return F.normalize(found, dim=1)


def observed(
    own: torch.Tensor, taken: Taken, noise_weight: float, score_weight: float
) -> torch.Tensor:
    """Rows of observed relations, of unit norm: unit(softmax(R + γ g) + κ own), g Gumbel noise.

    Shapes: own [n, n_items], S of the model's own scores → [n, n_items], with zeros for [PAD].
    """
    real = -noise_weight * torch.log(1e-8 - torch.log(torch.rand_like(own) + 1e-8))
    real[taken.rows, taken.items] += 1.0
    real[:, 0] = -torch.inf
    return F.normalize(real.softmax(dim=1) + score_weight * own, dim=1)


class Critic(nn.Module):
    """The critic.

    Before a batch norm there is no bias, which it would take away. The first map is a table of
    items; [PAD]'s row is zero and stays so. Weights start Kaiming-normal.

    Args:
        n_items: [PAD] among them.
        dropout: of the second and of the third map's input.
    """

    def __init__(self, n_items: int, dropout: Sequence[float]):
        super().__init__()
        self.dropout = list(dropout)
        sizes = [max(1, (n_items - 1) // part) for part in (4, 8)]
        self.items = nn.Parameter(torch.empty(n_items, sizes[0]))
        self.second = nn.Linear(*sizes, bias=False)
        self.last = nn.Linear(sizes[1], 1)
        self.scale = nn.ParameterList(nn.Parameter(torch.ones(size)) for size in sizes)
        self.shift = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)
        for weight in (self.items.T, self.second.weight, self.last.weight):
            nn.init.kaiming_normal_(weight)
        nn.init.zeros_(self.last.bias)
        nn.init.zeros_(self.items[0])

    def first(self, factors: Sequence[Factors], taken: Taken) -> torch.Tensor:
        """The first map of S(P, Q) of each modality, one below the other: [M·n, ⌊m/4⌋]."""
        mapped = []
        for p, q in factors:
            known = (select_rows(p, taken.rows) * select_rows(q, taken.items)).sum(dim=1)
            squares = ((p @ (q.T @ q)) * p).sum(dim=1)
            squares = squares - torch.segment_reduce(known.square(), "sum", offsets=taken.starts)
            h = p @ linear(q.T, self.items.T, None) - F.embedding_bag(
                taken.items, self.items, taken.starts[:-1], mode="sum", per_sample_weights=known
            )
            mapped.append(h / squares.clamp(min=_LEAST_NORM**2).sqrt()[:, None])
        return torch.cat(mapped)

    def rest(self, h: torch.Tensor) -> torch.Tensor:
        """D from its first map's results: [n, ⌊m/4⌋] → [n]."""
        maps = zip(self.scale, self.shift, self.dropout, (self.second, self.last))
        for scale, shift, dropout, layer in maps:
            variance, mean = torch.var_mean(h, dim=0, correction=0)
            h = (h - mean) * (variance + _NORM_EPSILON).rsqrt() * scale + shift
            h = layer(F.dropout(h, dropout))
        return 100.0 * torch.sigmoid(h.squeeze(1))

    def forward(self, factors: Sequence[Factors], taken: Taken) -> torch.Tensor:
        """D of generated rows, [M·n]."""
        with torch.autocast(self.items.device.type, enabled=False):  # small norms leave float16
            return self.rest(self.first(factors, taken))

    def losses(
        self, factors: Sequence[Factors], taken: Taken, real: torch.Tensor, penalty_weight: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """mean D(fake), −mean D(real), and λ mean (‖∂D/∂x‖ − 1)² at points x between the two.

        Shapes: real [n, n_items], rows that stand for each modality.
        """
        fake_h = self.first(factors, taken)
        real_h = linear(real, self.items.T, None).repeat(len(factors), 1)
        fake, observed = self.rest(fake_h).mean(), self.rest(real_h).mean()
        share = torch.rand_like(fake_h[:, :1])
        between = share * real_h + (1.0 - share) * fake_h  # the first map is linear
        total = self.rest(between).sum()
        (slope,) = torch.autograd.grad(total, between, create_graph=True)
        slope = linear(slope, self.items, None)  # by x itself, [M·n, n_items]
        return fake, -observed, penalty_weight * (slope.norm(dim=1) - 1.0).square().mean()
