"""A training batch by its distinct nodes: what is made for each node is made once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from recbole.model.abstract_recommender import GeneralRecommender

from recbole_sigrec.kernels.rows import select_rows
from recbole_sigrec.model.losses import bpr_of_rows, info_nce, l2_loss
from recbole_sigrec.parallel import distributed


class Interaction(Protocol):
    """RecBole's Interaction as the models use it: a column for each field, all of one length."""

    def __getitem__(self, field: str) -> torch.Tensor: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Side:
    """The distinct users, or positives, of a batch, and which of them are anchors.

    Attributes:
        rows: in the table of the batch, int64 [n_distinct].
        count: how often each occurs in the batch, int64 [n_distinct].
        own: the places of the anchors among ``rows``, int64 [n_anchors]; ``None``: all, in order.
        anchor_count: how often each of them is an anchor, int64 [n_anchors].
    """

    rows: torch.Tensor
    count: torch.Tensor
    own: torch.Tensor | None
    anchor_count: torch.Tensor

    def of_anchors(self, table: torch.Tensor) -> torch.Tensor:
        """The anchors' rows of a table of the distinct nodes: [n_distinct, d] → [n_anchors, d]."""
        return table if self.own is None else select_rows(table, self.own)

    def info_nce(
        self, anchor: torch.Tensor, candidates: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """:func:`info_nce` over the batch with its repetitions, or this process's share of it.

        Shapes: anchor [n_anchors, d], candidates [n_distinct, d] or [M, n_distinct, d] → scalar.
        """
        return info_nce(
            anchor,
            candidates,
            temperature,
            self.count,
            share=distributed.share(len(anchor)),
            own=self.own,
            anchor_weight=self.anchor_count,
        )


class Batch:
    """The distinct users and items of a batch's triples, and where the triples stand among them.

    A *table of the batch* has a row for each distinct user, then one for each distinct item. The
    losses are those of the whole batch, repetitions and all; of several processes each computes its
    share of their terms.

    Attributes:
        users, items: the distinct ids, ascending.
        nodes: the rows of a table of all users, then all items, that make the table of the batch.
        rows: the users, positives and negatives of all triples as rows of the table of the batch,
            each int64 [n].
        triples: those of this process's share of the triples.
        n: triples in the whole batch.

    Args:
        users, positives, negatives: ids, int64 [n].
        n_users, n_items: numbers of user and of item ids.
    """

    def __init__(
        self,
        users: torch.Tensor,
        positives: torch.Tensor,
        negatives: torch.Tensor,
        n_users: int,
        n_items: int,
    ):
        self.n = len(users)
        ids = torch.cat([users, positives + n_users, negatives + n_users])
        seen = ids.new_zeros(n_users + n_items, dtype=torch.bool)  # faster than to sort the ids
        seen[ids] = True
        self.nodes = seen.nonzero().squeeze(1)
        n_distinct_users = int(seen[:n_users].sum())
        self.users = self.nodes[:n_distinct_users]
        self.items = self.nodes[n_distinct_users:] - n_users
        place = ids.new_empty(len(seen))
        place[self.nodes] = torch.arange(len(self.nodes), device=ids.device)
        self.rows = place[ids].chunk(3)
        self._spans = slice(0, n_users), slice(n_users, None)
        share = distributed.share(self.n)
        self.triples = tuple(rows[share] for rows in self.rows)

    @classmethod
    def from_interaction(cls, model: GeneralRecommender, interaction: Interaction) -> Batch:
        """That of a recommender's training interaction, which holds its three fields of ids."""
        fields = model.USER_ID, model.ITEM_ID, model.NEG_ITEM_ID
        users, positives, negatives = (interaction[field] for field in fields)
        return cls(users, positives, negatives, model.n_users, model.n_items)

    def gather(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """The table of the batch from those of all users and of all items."""
        return torch.cat([select_rows(users, self.users), select_rows(items, self.items)])

    def sides(self, anchors: float = 1.0) -> Iterator[Side]:
        """The users, then the positives, for contrastive terms.

        The nodes of a share of the batch's places, its first ones, are anchors: the batch is in
        random order, so that they are a random part of it.

        Args:
            anchors: that share, in (0, 1].
        """
        for rows in self.rows[:2]:
            yield side_of(rows, math.ceil(anchors * self.n))

    def bpr(self, table: torch.Tensor) -> torch.Tensor:
        """:func:`bpr_of_rows` of users, positives and negatives."""
        u, i, j = (select_rows(table, rows) for rows in self.triples)
        return bpr_of_rows(u, i, j, self.n)

    def l2(self, table: torch.Tensor) -> torch.Tensor:
        """:func:`l2_loss` of users, positives and negatives."""
        return l2_loss(*(select_rows(table, rows) for rows in self.triples), n=self.n)

    def info_nce(
        self, anchor: torch.Tensor, candidates: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """:func:`info_nce` over the users plus that over the positives."""
        users, positives = (
            side.info_nce(
                select_rows(anchor, side.rows), select_rows(candidates, side.rows), temperature
            )
            for side in self.sides()
        )
        return users + positives

    def info_nce_among_all(
        self,
        anchor: torch.Tensor,
        candidates: torch.Tensor,
        temperature: float,
        allowed: torch.Tensor,
    ) -> torch.Tensor:
        """InfoNCE of the users among all users plus that of the positives among all items.

        Each is summed over the triples.

        Shapes: anchor, candidates [n_users + n_items, d], tables of all users, then all items;
        allowed bool [n_users + n_items], which nodes are anchors and candidates.
        """
        total = anchor.new_zeros(())
        for side, span in zip(self.sides(), self._spans):
            nodes = self.nodes[side.rows]
            here, among = allowed[nodes], allowed[span]
            nodes, count = nodes[here] - span.start, side.count[here]
            if len(nodes):
                mean = info_nce(
                    select_rows(anchor[span], nodes),
                    candidates[span][among],
                    temperature,
                    share=distributed.share(len(nodes)),
                    own=(among.cumsum(0) - 1)[nodes],
                    anchor_weight=count,
                )
                total = total + mean * count.sum()
        return total


def side_of(batch: torch.Tensor, n_anchors: int) -> Side:
    """The distinct rows of a batch, int64 [n], with their counts; its first places are anchors."""
    counts = torch.bincount(batch)
    rows = counts.nonzero().squeeze(1)
    if n_anchors >= len(batch):
        return Side(rows, counts[rows], None, counts[rows])
    of_anchors = torch.bincount(batch[:n_anchors], minlength=len(counts))[rows]
    own = of_anchors.nonzero().squeeze(1)
    return Side(rows, counts[rows], own, of_anchors[own])
