"""Held-out items, to compare ways of scoring without the whole evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.kernels.rows import select_rows

_MOST_USERS = 5000
_ENTRIES = 2**22  # scores that a block compares: held-out pairs times items


@dataclass(frozen=True)
class Block:
    """Some users with held-out items.

    Attributes:
        users: their ids, int64 [n].
        seen: (place in ``users``, item) of each pair that is not ranked, int64 each.
        pairs: (place in ``users``, item) of each held-out pair, int64 each.
        gain: what each held-out pair adds to the metric at each rank below k, float32 [n_pairs, k].
    """

    users: np.ndarray
    seen: tuple[torch.Tensor, torch.Tensor]
    pairs: tuple[torch.Tensor, torch.Tensor]
    gain: torch.Tensor

    def mask(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [n, n_items] with −∞ for [PAD] and what is not ranked, in place."""
        scores[:, 0] = -torch.inf
        scores[self.seen] = -torch.inf
        return scores

    def of_pairs(self, scores: torch.Tensor) -> torch.Tensor:
        """The row of each held-out pair: [n, n_items] → [n_pairs, n_items], a new tensor."""
        return select_rows(scores, self.pairs[0])

    def value(self, scores: torch.Tensor) -> float:
        """The sum of the metric over the users.

        An item ranks behind all others of the same score.

        Args:
            scores: masked ones of each held-out pair's user [n_pairs, n_items]; overwritten.
        """
        own = scores.gather(1, self.pairs[1][:, None])
        # Ones in place of what is not smaller: summed faster than booleans are.
        rank = torch.ge(scores, own, out=scores).sum(dim=1, dtype=torch.float32).long().cpu() - 1
        ranked = torch.nonzero((rank >= 0) & (rank < self.gain.shape[1])).squeeze(1)  # −1: NaN
        return float(self.gain[ranked, rank[ranked]].sum())


class HeldOut:
    """Users' held-out items in full ranking, of at most 5,000 users, spread over all.

    Attributes:
        users: their ids, int64 [n].
        metric: what is computed, as ``Recall@20``.

    Args:
        histories: binary CSR [n_users, n_items], what is not ranked.
        held_out: binary CSR [n_users, n_items].
        metric: of the validation. Recall, hit and precision are computed as recall, all others as
            NDCG, at 20 where there is no cutoff.
    """

    def __init__(self, histories: sp.csr_matrix, held_out: sp.csr_matrix, metric: str):
        name, _, cutoff = metric.partition("@")
        users = np.flatnonzero(np.diff(held_out.indptr))
        if len(users) > _MOST_USERS:
            users = users[np.linspace(0, len(users) - 1, _MOST_USERS).astype(np.int64)]
        self.users = users
        self._histories, self._held_out = histories, held_out
        self._k = int(cutoff or 20)
        self._recall = name.lower() in ("recall", "hit", "precision")
        self.metric = f"{'Recall' if self._recall else 'NDCG'}@{self._k}"

    def blocks(self, device: torch.device | str = "cpu") -> Iterator[Block]:
        """The users, block by block: as many as have a bounded number of pairs times items."""
        if not len(self.users):
            return
        n_items: int = self._histories.shape[1]  # pyright: ignore[reportOptionalSubscript]
        pairs = np.diff(self._held_out.indptr)[self.users]
        place = pairs.cumsum() * n_items // _ENTRIES
        for users in np.split(self.users, np.flatnonzero(np.diff(place)) + 1):
            held_out = self._held_out[users]
            gain = torch.from_numpy(self._gain(np.diff(held_out.indptr)))
            seen = _pairs(self._histories[users], device)
            yield Block(users, seen, _pairs(held_out, device), gain)

    def _gain(self, sizes: np.ndarray) -> np.ndarray:
        """What each held-out pair adds at each rank.

        Shapes: sizes int64 [n], of the users' sets → float32 [n_pairs, k].
        """
        if self._recall:
            best, at_rank = sizes, np.ones(self._k)
        else:
            at_rank = 1 / np.log2(np.arange(2, self._k + 2))
            best = at_rank.cumsum()[np.minimum(sizes, self._k) - 1]
        return np.repeat(1 / best, sizes)[:, None].astype(np.float32) * at_rank.astype(np.float32)


def _pairs(matrix: sp.csr_matrix, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, column) of each entry of a matrix, int64 [n_pairs] each."""
    rows, columns = matrix.nonzero()
    return torch.from_numpy(rows).long().to(device), torch.from_numpy(columns).long().to(device)
