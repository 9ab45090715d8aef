"""The best items of each user, as torch ranks them."""

from __future__ import annotations

import torch

from recbole_sigrec.kernels.top import top_places


def top_items(scores: torch.Tensor, k: int) -> torch.Tensor:
    """The k items of largest score in each row, best first: exactly ``torch.topk``'s indices.

    On a CPU by :func:`recbole_sigrec.kernels.top.top_places`. Where two of a row's best k + 1
    scores are equal, the row is given to torch.topk, whose choice among equals RecBole's figures
    rest on.

    Args:
        scores: float [n_rows, n_items]; −inf where an item is not to be recommended.
        k: at most n_items.

    Returns:
        int64 [n_rows, k].
    """
    if scores.device.type != "cpu" or scores.dtype != torch.float32:
        return torch.topk(scores, k, dim=1).indices
    places, tied = top_places(scores.numpy(), k)
    top = torch.from_numpy(places)
    if tied.any():
        rows = torch.from_numpy(tied)
        top[rows] = torch.topk(scores[rows], k, dim=1).indices
    return top
