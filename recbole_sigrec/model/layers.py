"""Layers that the models share: perturbation, gates, fusion, low-rank maps."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from recbole_sigrec.kernels.products import Linear, linear
from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.parallel import columns

PERTURBATIONS: tuple[str, ...] = ("modulus", "uniform", "none")


def perturb(embeddings: torch.Tensor, strength: float, kind: str = "modulus") -> torch.Tensor:
    """A noisy view of each embedding.

    ``modulus`` (the paper, arXiv 2508.06154; the form is our choice):
    e' = e + ε‖e‖₂ sign(e) ⊙ n/‖n‖₂ with n ~ U(0, 1)^d, so that the noise follows each
    embedding's own modulus: ‖e' − e‖ = ε‖e‖.
    ``uniform``: SimGCL's (arXiv 2112.08679, Eq. 7) ‖e' − e‖ = ε for every embedding.
    ``none``: e itself. The noise is constant for the gradient.

    Args:
        embeddings: e [n, d].
        strength: ε ≥ 0.

    Returns:
        [n, d].

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "none":
        return embeddings
    if kind not in PERTURBATIONS:
        raise ValueError(f"perturbation [{kind}] is unknown; use one of {', '.join(PERTURBATIONS)}")
    with torch.no_grad():
        noise = F.normalize(torch.rand_like(embeddings), dim=1)
        noise *= embeddings.sign() * strength
        if kind == "modulus":
            noise *= embeddings.norm(dim=1, keepdim=True)
    return embeddings + noise


class ColumnLinear(Linear):
    """A linear layer that computes the columns of its result that this process holds.

    Shapes: [n, in_features] → [n, out_features], or a part of its columns.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        part = columns.own(self.out_features)
        return linear(input, self.weight[part], self.bias[part])


class Purifier(nn.Module):
    """Behavior-guided purifier of MGCN (arXiv 2308.03588, Eq. 1-2): id ⊙ σ(W₂(W₁x + b₁) + b₂).

    Shapes: ids [n, d], features [n, d_m] → [n, d]; of ids this process's columns, the same ones.
    """

    def __init__(self, feature_size: int, embedding_size: int):
        super().__init__()
        self.project = Linear(feature_size, embedding_size)
        self.gate = Linear(embedding_size, embedding_size)

    def forward(self, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        # Nothing stands between the two maps, so that the features meet their product alone.
        part = columns.own(self.gate.out_features)
        gate, gate_bias = self.gate.weight[part], self.gate.bias[part]
        weight, bias = gate @ self.project.weight, gate @ self.project.bias + gate_bias
        return ids * torch.sigmoid(linear(features, weight, bias))


class MeanFusion(nn.Module):
    """f = Σ_m w_m h^m with constant weights, which add up to one.

    Shapes: weights [M]; behavior [n, d], semantic [M, n, d] → [n, d].
    """

    def __init__(self, weights: Sequence[float]):
        super().__init__()
        self.weights = list(weights)

    def forward(self, behavior: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
        parts = [weight * h for weight, h in zip(self.weights, semantic, strict=True)]
        return functools.reduce(operator.add, parts)


class AttentionFusion(nn.Module):
    """f = Σ_m a_m h^m, a = softmax_m(qᵀ tanh(W h^m + b)), the same W and q for all modalities.

    Shapes: behavior [n, d], semantic [M, n, d] → [n, d].
    """

    def __init__(self, embedding_size: int):
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(embedding_size, embedding_size),
            nn.Tanh(),
            nn.Linear(embedding_size, 1, bias=False),
        )

    def forward(self, behavior: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
        return (self.score(semantic).softmax(dim=0) * semantic).sum(dim=0)


class BehaviorAwareFusion(nn.Module):
    """MGCN's behavior-aware fuser (arXiv 2308.03588, Eq. 9-14), for any number of modalities.

    c is the attention-weighted common part; each modality's deviation from it is gated by the
    behavior representation: f = (c + Σ_m σ(W_m b) ⊙ (h^m − c)) / (M + 1).

    Shapes: behavior [n, d], semantic [M, n, d] → [n, d].
    """

    def __init__(self, n_modalities: int, embedding_size: int):
        super().__init__()
        self.common = AttentionFusion(embedding_size)
        self.gates = nn.ModuleList(
            nn.Linear(embedding_size, embedding_size) for _ in range(n_modalities)
        )

    def forward(self, behavior: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
        common = self.common(behavior, semantic)
        fused = common
        for gate, part in zip(self.gates, semantic, strict=True):
            fused = fused + torch.sigmoid(gate(behavior)) * (part - common)
        return fused / (len(self.gates) + 1)


class LowRankMap(nn.Module):
    """REARM's meta-network (arXiv 2508.13745): a map of rank r for each node, from its features.

    κ = W f + b, which stays as it starts; M_1 [d, r] and M_2 [r, d] are the unit vectors, of all
    their entries, that two networks make of κ; A_l is the softmax in each column of M_l plus its
    mean over all nodes but the first, [PAD]. The node's row x becomes x A_1 A_2.

    Args:
        width: of the features.
        size: d.
        rank: r.
    """

    def __init__(self, width: int, size: int, rank: int):
        super().__init__()
        self.meta = Linear(width, size).requires_grad_(False)
        entries, self.rank = rank * size, rank
        self.left, self.right = (
            nn.Sequential(Linear(size, entries), nn.PReLU(), Linear(entries, entries))
            for _ in range(2)
        )

    def forward(
        self, x: torch.Tensor, features: torch.Tensor, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The rows x [r, d] of the nodes ``rows`` (default: all), features [n, width] → [r, d]."""
        with torch.no_grad():
            kappa = self.meta(features)
        x = x[:, None]
        for factor, n_rows in ((self.left, x.shape[2]), (self.right, self.rank)):
            m = F.normalize(factor(kappa), dim=1)
            mean = m[1:].mean(dim=0)
            a = (m if rows is None else select_rows(m, rows)) + mean
            x = x @ a.view(len(a), n_rows, -1).softmax(dim=1)
        return x.squeeze(1)


def build_fusion(kind: str, weights: Sequence[float], embedding_size: int) -> nn.Module:
    """The fusion that a config names: mean, attention or behavior.

    Args:
        weights: of each modality, for ``mean``; the others learn theirs.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "mean":
        return MeanFusion(weights)
    if kind == "attention":
        return AttentionFusion(embedding_size)
    if kind == "behavior":
        return BehaviorAwareFusion(len(weights), embedding_size)
    raise ValueError(f"fusion [{kind}] is unknown; use mean, attention or behavior")
