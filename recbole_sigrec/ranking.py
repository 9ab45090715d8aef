"""The best items of each user, without sorting all of them."""

from __future__ import annotations

import numpy as np
import torch


def top_items(scores: torch.Tensor, k: int) -> torch.Tensor:
    """The k items of largest score in each row, best first: exactly ``torch.topk``'s indices.

    On a CPU the items are dealt into about √(n k) groups. The k best items lie in the k + 1 groups
    of largest maximum, so that only those are searched. Where two of a row's best k + 1 scores are
    equal, the row is given to torch.topk, whose choice among equals RecBole's figures rest on.

    Args:
        scores: float [n_rows, n_items]; −inf where an item is not to be recommended.
        k: at most n_items.

    Returns:
        int64 [n_rows, k].

    Cost: one pass over the scores and two partial sorts of √(n k) entries per row.
    """
    n_rows, n_items = scores.shape
    n_in_group = int((n_items / (k + 1)) ** 0.5)
    if scores.device.type != "cpu" or scores.dtype != torch.float32 or n_in_group < 2:
        return torch.topk(scores, k, dim=1).indices
    n_groups = n_items // n_in_group
    grouped = scores[:, : n_in_group * n_groups].view(n_rows, n_in_group, n_groups)
    best_groups = _largest(grouped.amax(dim=1), k + 1)  # [n_rows, k + 1]
    candidates = torch.cat(  # item g + i · n_groups is in group g; the rest are in none
        [
            (best_groups[:, None, :] + torch.arange(n_in_group)[:, None] * n_groups).flatten(1),
            torch.arange(n_in_group * n_groups, n_items).expand(n_rows, -1),
        ],
        dim=1,
    )
    values = scores.gather(1, candidates)
    place = _largest(values, k + 1)
    values, order = values.gather(1, place).sort(dim=1, descending=True)
    top = candidates.gather(1, place.gather(1, order))[:, :k]
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1)
    if tied.any():
        top[tied] = torch.topk(scores[tied], k, dim=1).indices
    return top


def _largest(values: torch.Tensor, k: int) -> torch.Tensor:
    """Places of the k largest of each row, in no order (NumPy's partition is vectorised)."""
    n = values.shape[1]
    return torch.from_numpy(np.argpartition(values.numpy(), n - k, axis=1)[:, n - k :])
