"""User-item graphs that a model generates in the course of its training (MMSSL)."""

from __future__ import annotations

from collections.abc import Sequence

import scipy.sparse as sp
import torch
from torch import nn

from recbole_sigrec.graph import SparseGraph, interaction_matrix, normalize
from recbole_sigrec.parallel import distributed


class GeneratedRelations(nn.Module):
    """A graph Γ for each name, of a number of items for each user.

    A user has the training items until some are generated. What is generated is kept in persistent
    buffers ``of_<name>``, int64 [n_users, c]: a user's items, the best first; −1: none.

    Args:
        names: of the graphs.
        interactions: the training pairs R [n_users, n_items].
        n: c, items of a user; 0: the graphs have no edge.
    """

    def __init__(self, names: Sequence[str], interactions: sp.csr_matrix, n: int):
        super().__init__()
        self.names, self.interactions = list(names), interactions
        n_users, n_items = interactions.get_shape()
        for name in names:
            self.register_buffer(f"of_{name}", torch.full((n_users, min(n, n_items - 1)), -1))

    def replace(self, name: str, users: torch.Tensor, relation: torch.Tensor) -> None:
        """Take the items of the largest positive relation, [PAD] never.

        Shapes: users int64 [n], relation [n, n_items].
        """
        rows: torch.Tensor = getattr(self, f"of_{name}")
        best, items = relation[:, 1:].topk(rows.shape[1], dim=1)
        rows[users] = (items + 1).where(best > 0, -1)

    def share(self) -> None:
        """Take what the first process has: on a GPU, those of the others may come to differ."""
        for name in self.names:
            rows: torch.Tensor = getattr(self, f"of_{name}")
            rows.copy_(distributed.gather(rows.cpu())[0])

    def graphs(self) -> list[nn.ModuleList]:
        """Γ of each name, :func:`both_ways`."""
        return [self._graph(getattr(self, f"of_{name}")) for name in self.names]

    def _graph(self, kept: torch.Tensor) -> nn.ModuleList:
        gamma = sp.csr_matrix(self.interactions.get_shape(), dtype="float32")
        if kept.shape[1] > 0:
            items = kept.cpu().numpy()
            users, places = (items >= 0).nonzero()
            gamma = interaction_matrix(users, items[users, places], *gamma.get_shape())
            waiting = sp.diags((items[:, 0] < 0).astype("float32"))
            gamma = sp.csr_matrix(gamma + waiting @ self.interactions)
        return both_ways(gamma).to(kept.device)


def both_ways(graph: sp.csr_matrix) -> nn.ModuleList:
    """D^{-1/2} Γ [n_users, n_items] and D^{-1/2} Γᵀ, D the row sums of each."""
    sides = graph, sp.csr_matrix(graph.T)
    return nn.ModuleList(SparseGraph(normalize(side, "row_root")) for side in sides)
