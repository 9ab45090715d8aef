"""A training batch by its distinct nodes: what is made for each node is made once."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from recbole_sigrec import distributed
from recbole_sigrec.model.losses import bpr_loss, info_nce, l2_loss


class Batch:
    """The distinct users and items of a batch's triples, and where the triples stand among them.

    A *table of the batch* has a row for each distinct user, then one for each distinct item. The
    losses are those of the whole batch, repetitions and all; of several processes each computes its
    share of their terms.

    Attributes:
        users, items: the distinct ids, ascending.
        nodes: the rows of a table of all users, then all items, that make the table of the batch.
        rows: the users, positives and negatives of all triples as rows of the table of the batch.
        triples: those of this process's share of the triples.
        n: triples in the whole batch.

    Args:
        users, positives, negatives: ids, int64 [n].
        n_users: number of user ids.
    """

    def __init__(self, users, positives, negatives, n_users: int):
        self.n = len(users)
        self.users, u = users.unique(return_inverse=True)
        self.items, places = torch.cat([positives, negatives]).unique(return_inverse=True)
        i, j = (places + len(self.users)).chunk(2)
        self.nodes = torch.cat([self.users, self.items + n_users])
        self.rows = u, i, j
        self._spans = slice(0, n_users), slice(n_users, None)
        share = distributed.share(self.n)
        self.triples = u[share], i[share], j[share]

    def gather(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """The table of the batch from those of all users and of all items."""
        return torch.cat([users[self.users], items[self.items]])

    def sides(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
        """Of the users, then of the positives: distinct rows, how often each occurs, and the share
        of these rows whose terms this process computes."""
        for rows in self.rows[:2]:
            distinct, count = rows.unique(return_counts=True)
            yield distinct, count, distributed.share(len(distinct))

    def bpr(self, table: torch.Tensor) -> torch.Tensor:
        """:func:`bpr_loss` of the products of users and items."""
        u, i, j = (table[rows] for rows in self.triples)
        return bpr_loss((u * i).sum(dim=1), (u * j).sum(dim=1), self.n)

    def l2(self, table: torch.Tensor) -> torch.Tensor:
        """:func:`l2_loss` of users, positives and negatives."""
        return l2_loss(*(table[rows] for rows in self.triples), n=self.n)

    def info_nce(self, anchor, candidates, temperature: float) -> torch.Tensor:
        """:func:`info_nce` over the users plus that over the positives."""
        return sum(
            info_nce(anchor[rows], candidates[rows], temperature, count, share=share)
            for rows, count, share in self.sides()
        )

    def info_nce_among_all(self, anchor, candidates, temperature: float, allowed) -> torch.Tensor:
        """InfoNCE of the users among all users plus that of the positives among all items, each
        summed over the triples.

        Shapes: anchor, candidates [n_users + n_items, d], tables of all users, then all items;
        allowed bool [n_users + n_items], which nodes are anchors and candidates.
        """
        total = anchor.new_zeros(())
        for (rows, count, _), side in zip(self.sides(), self._spans):
            nodes = self.nodes[rows]
            here, among = allowed[nodes], allowed[side]
            nodes, count = nodes[here] - side.start, count[here]
            if len(nodes):
                own, share = (among.cumsum(0) - 1)[nodes], distributed.share(len(nodes))
                of_side = anchor[side][nodes], candidates[side][among]
                mean = info_nce(*of_side, temperature, count, share=share, own=own)
                total = total + mean * count.sum()
        return total
