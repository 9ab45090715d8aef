"""Whitened features: the leading singular directions of a modality, of equal size."""

from __future__ import annotations

import scipy.linalg
import torch

_LEAST = 1e-12  # of the largest squared singular value; what is below is float32's rounding


def whitened(features: torch.Tensor, mask: torch.Tensor, size: int) -> torch.Tensor:
    """√(n / size) times the first left singular vectors of the centred features of n items.

    Each column has the mean square 1 / size over the items that take part, and the first ones vary
    most. Of a vector and its negative that one is taken whose largest entry is positive.

    Args:
        features: [n_items, d_m].
        mask: bool [n_items], the items that take part; the others have zero rows.
        size: the number of columns; where the features have fewer directions, the rest is zero.

    Returns:
        float64 [n_items, size].

    Cost: n·d_m² multiply-adds, or n²·d_m where there are fewer items than dimensions, and the
    eigenvectors of a matrix of the smaller of both sizes.
    """
    x = features[mask].double()
    x -= x.mean(dim=0)
    n, width = x.shape
    table = x.new_zeros(len(features), size)
    least = min(n, width)
    if least == 0:
        return table
    gram = x.T @ x if width == least else x @ x.T
    first = max(least - size, 0)
    squares, vectors = scipy.linalg.eigh(gram.numpy(), subset_by_index=[first, least - 1])
    squares, vectors = (torch.from_numpy(part.copy()).flip(-1) for part in (squares, vectors))
    some = squares > max(_LEAST * squares[0].item(), 0.0)
    left = vectors[:, some]
    if width == least:
        left = x @ left / squares[some].sqrt()
    peak = left.gather(0, left.abs().argmax(dim=0, keepdim=True))
    table[mask, : left.shape[1]] = left * peak.sign() * (n / size) ** 0.5
    return table
