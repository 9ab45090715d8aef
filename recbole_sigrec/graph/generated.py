"""User-item graphs of a few items for each user, with dropped entries, that a checkpoint keeps."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from recbole_sigrec.graph.adjacency import bipartite_graph, interaction_matrix
from recbole_sigrec.graph.propagation import SparseGraph


class GeneratedGraphs(nn.Module):
    """Graphs D^{-1/2} (A + I) D^{-1/2} of users and items, n nodes, users first.

    Each directed entry, loops too, is kept with a probability and divided by it. At first there are
    the loops alone, all kept.

    Attributes:
        items: those of each user in each graph, int64 [n_graphs, n_users, k]; 0: none.
        kept: which entries are, bool [n_graphs, n + 2·n_users·k]; of a graph's rows one after the
            other, by columns, before any is dropped. A graph without all items has fewer: the rest
            is unused.

    Args:
        n_graphs, n_users, n_items, k: sizes, [PAD] among users and items.
        dropout: the share of the entries that is dropped, in [0, 1).
    """

    items: torch.Tensor
    kept: torch.Tensor

    def __init__(self, n_graphs: int, n_users: int, n_items: int, k: int, dropout: float):
        super().__init__()
        self.dropout, self._shape = dropout, (n_users, n_items)
        self.register_buffer("items", torch.zeros(n_graphs, n_users, k, dtype=torch.int64))
        kept = torch.ones(n_graphs, n_users + n_items + 2 * n_users * k, dtype=torch.bool)
        self.register_buffer("kept", kept)
        self._made: dict[int, SparseGraph] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module._made.clear())

    def draw(self, number: int, items: torch.Tensor) -> None:
        """Make a graph of the items of each user, int64 [n_users, k], and draw what is kept."""
        self.items[number] = items
        self.kept[number] = torch.rand(self.kept.shape[1]) >= self.dropout
        self._made.pop(number, None)

    def forward(self, number: int, dense: torch.Tensor) -> torch.Tensor:
        """A graph's product: [n, d] → [n, d]."""
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number].to(dense.device)(dense)

    def _make(self, number: int) -> SparseGraph:
        items, kept = (part[number].cpu().numpy() for part in (self.items, self.kept))
        users, places = np.nonzero(items)
        graph = bipartite_graph(
            interaction_matrix(users, items[users, places], *self._shape), self_loops=True
        )
        graph.sort_indices()
        graph.data *= kept[: graph.nnz] / (1 - self.dropout)
        return SparseGraph(graph)
