"""The modality-specific semantic graph: exact cosine k-nearest neighbours, in blocks."""

from __future__ import annotations

import functools

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.display.progress import progress
from recbole_sigrec.graph.approximate import approximate_topk
from recbole_sigrec.graph.unit_rows import UnitRows, unit_rows
from recbole_sigrec.kernels.products import matmul_nt

GROUP = 32  # similarities of which only the largest is looked at, unless it is among the k best


def cosine_topk(
    features: torch.Tensor | np.ndarray,
    k: int,
    mask: torch.Tensor | np.ndarray | None = None,
    include_self: bool = False,
    memory_mb: float = 512,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row the k rows of largest cosine similarity, exactly.

    Rows that ``mask`` leaves out, and zero rows, neither have nor are neighbours (a zero row has no
    cosine: treated as a vector it would become everybody's neighbour or a NaN). Of equal
    similarities the smaller row comes first.

    The similarities are computed in square tiles, those above the diagonal alone: a tile serves its
    rows, and transposed its columns. Neither the similarities nor the normalised rows are held
    whole. ``memory_mb`` decides how many blocks of normalised rows are kept, never the shape of a
    tile, so the result does not depend on it, to the last bit. Products are in float32.

    Args:
        features: [n, d]: a torch tensor (the work is done on its device), a NumPy array or a
            memory-mapped one, see :class:`UnitRows`.
        k: neighbours per row, self among them if ``include_self``.
        mask: bool [n], the rows that take part; default all.
        include_self: whether a row is its own neighbour (of similarity 1).
        memory_mb: memory beside the features and the result, in MiB; at least two blocks of rows
            (of 32 MiB, or less where n or d is small) and one tile (of 16 MiB) are needed; on CUDA,
            where tiles are larger, of 512 and 256 MiB.

    Returns:
        (indices int64 [n, k], similarities float32 [n, k]) on the CPU, in descending order; where a
        row has fewer than k neighbours, the rest is −1 with similarity −inf.

    Cost: n²·d/2 multiply-adds; memory n·k and ``memory_mb``.

    Raises:
        ValueError: k is not positive, or a feature is not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    n, d = features.shape
    size = tile_size(d, getattr(features, "is_cuda", False))
    unit = UnitRows(features, mask, size)
    indices = torch.full((n, k), -1, dtype=torch.int64)
    values = torch.full((n, k), -torch.inf)
    width = min(k, len(unit) if include_self else len(unit) - 1)
    if width < 1:
        return indices, values
    best = _TopK(_round_up(len(unit)), width, unit.device)
    _rank_all(unit, best, size, include_self, memory_mb)
    found = best.places[: len(unit)].cpu()
    indices[unit.rows, :width] = unit.rows[found]
    values[unit.rows, :width] = best.values[: len(unit)].cpu()
    return indices, values


def kept_cosines(
    x: torch.Tensor, mask: torch.Tensor, k: int, include_self: bool, memory_mb: float = 512
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest rows of each, and their cosines, through which gradients flow to x.

    Shapes: x [n, d], mask [n] → int64 and float [n, k]; where there are fewer, and where a cosine
    is negative, the entry is zero.

    Cost: that of :func:`cosine_topk`, and n·k·d.
    """
    columns = cosine_topk(x, k, mask, include_self, memory_mb)[0].to(x.device)
    unit = unit_rows(x)
    cosine = torch.einsum(
        "nd,nkd->nk", unit, torch.nn.functional.embedding(columns.clamp_min(0), unit)
    )
    return columns.clamp_min(0), cosine.clamp_min(0.0) * (columns >= 0)


def tile_size(d: int, cuda: bool = False) -> int:
    """Rows of a tile: 2,048, or fewer where a block of d columns would pass 32 MiB (CUDA: more)."""
    most, elements = (8192, 2**27) if cuda else (2048, 2**23)
    return min(most, max(2 * GROUP, elements // d // GROUP * GROUP))


def _rank_all(unit: UnitRows, best: _TopK, size: int, include_self: bool, memory_mb: float) -> None:
    """Rank all pairs of rows: tiles (i, j ≥ i), panel by panel of kept row blocks."""
    n, n_blocks = len(unit), -(-len(unit) // size)
    size = min(size, _round_up(n))
    free = memory_mb * 2**20 - 3 * 4 * size * size  # a tile, and what ranking it takes
    # Besides those kept: one while the next is read, and two that a product may copy.
    kept = int(max(2, free // (4 * size * unit.d) - 3))
    panel = n_blocks if kept >= n_blocks else kept - 1  # the others: one block of columns

    @functools.lru_cache(maxsize=kept)
    def block(number: int) -> torch.Tensor:
        rows = unit.block(number * size, (number + 1) * size)
        rest = -len(rows) % GROUP
        return torch.nn.functional.pad(rows, (0, 0, 0, rest)) if rest else rows

    tiles = [
        (i, j)
        for first in range(0, n_blocks, panel)
        for j in range(first, n_blocks)
        for i in range(first, min(first + panel, j + 1, n_blocks))
    ]
    for i, j in progress("nearest neighbours", tiles, "tiles"):
        right, left = block(j), block(i)
        tile = matmul_nt(left, right)
        if i == j and not include_self:
            tile.fill_diagonal_(-torch.inf)
        if j == n_blocks - 1:  # padded up to whole groups
            tile[:, n - j * size :] = -torch.inf
            if i == j:
                tile[n - i * size :] = -torch.inf
        # Each row meets its candidates in ascending order: ties stay with the smaller.
        best.update(i * size, j * size, tile, tile.unflatten(1, (-1, GROUP)).amax(dim=2))
        if i != j:
            best.update(j * size, i * size, tile.T, tile.unflatten(0, (-1, GROUP)).amax(dim=1).T)
        del tile  # before the next is made


class _TopK:
    """The k largest values of each row so far, with their places; ties to the smaller place.

    Attributes:
        values: float32 [n, k], descending; −inf where there is none yet.
        places: int64 [n, k].
    """

    def __init__(self, n: int, k: int, device: torch.device):
        self.values = torch.full((n, k), -torch.inf, device=device)
        self.places = torch.full((n, k), -1, dtype=torch.int64, device=device)

    def update(
        self, first_row: int, first_place: int, tile: torch.Tensor, peaks: torch.Tensor
    ) -> None:
        """Take in a tile whose places come after all that its rows have met.

        Only groups whose peak beats a row's k-th value are looked at, so most of a tile is read
        once, for its peaks.

        Shapes: tile [rows, columns], peaks [rows, columns / GROUP], the largest of each group.
        """
        rows = slice(first_row, first_row + len(tile))
        values, places = self.values[rows], self.places[rows]
        k = values.shape[1]
        above = values[:, -1:]  # an equal value comes too late
        hot = peaks > above
        least = torch.full_like(above, -torch.inf)
        if hot.sum() > k * len(tile) and tile.shape[1] > k:  # at the start
            # The k-th of the peaks (of all, where they are few) bounds the k-th value from below.
            least = (peaks if peaks.shape[1] >= k else tile).topk(k).values[:, -1:]
            hot &= peaks >= least
        row, group = hot.nonzero(as_tuple=True)
        if len(row) == 0:
            return
        members = tile.unflatten(1, (-1, GROUP))[row, group]  # [n_hot, GROUP]
        good = (members > above[row]) & (members >= least[row])
        hot_group, member = good.nonzero(as_tuple=True)
        row, place = row[hot_group], first_place + group[hot_group] * GROUP + member
        # What each row has and what is new to it, side by side: [n_changed, k + most new].
        changed, line, count = row.unique_consecutive(return_inverse=True, return_counts=True)
        column = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[line] + k
        merged = values.new_full((len(changed), k + int(count.max())), -torch.inf)
        merged_places = places.new_full(merged.shape, -1)
        merged[:, :k], merged[line, column] = values[changed], members[good]
        merged_places[:, :k], merged_places[line, column] = places[changed], place
        merged, order = merged.sort(dim=1, descending=True, stable=True)
        values[changed] = merged[:, :k]
        places[changed] = merged_places.gather(1, order[:, :k])


def _round_up(n: int) -> int:
    """The next multiple of GROUP."""
    return -(-n // GROUP) * GROUP


def knn_graph(
    features: torch.Tensor | np.ndarray,
    k: int,
    mask: torch.Tensor | np.ndarray | None = None,
    include_self: bool = False,
    weight: str = "binary",
    symmetric: bool = True,
    memory_mb: float = 512,
    method: str = "exact",
) -> sp.csr_matrix:
    """The k-NN graph S^m of one modality, before normalisation.

    Source: S_ij = cos(x_i, x_j), the k largest per row kept, as in LATTICE (arXiv 2104.09036,
    Eq. 2-3) and FREEDOM (arXiv 2211.06924, Eq. 2); the symmetrisation is our choice: without it the
    degrees of a binary graph are all k and the "symmetric" normalisation is the constant 1/k.

    Args:
        weight: ``binary`` (every edge 1) or ``cosine`` (negative similarities dropped).
        symmetric: keep an edge in both directions if either end has it (maximum of S and Sᵀ).
        features, k, mask, include_self, memory_mb: see :func:`cosine_topk`.
        method: ``exact``, or ``ivf`` or ``hnsw`` for :func:`approximate_topk` through FAISS.

    Returns:
        float32 CSR [n, n]; rows without the modality are empty.

    Raises:
        ValueError: the weight or the method is unknown.
        SIGRecError: the method needs FAISS, which is not installed.
    """
    if weight not in ("binary", "cosine"):
        raise ValueError(f"edge weight [{weight}] is unknown; use binary or cosine")
    if method == "exact":
        indices, values = cosine_topk(features, k, mask, include_self, memory_mb)
    else:
        indices, values = approximate_topk(features, k, mask, include_self, method)
    n = len(indices)
    found = (indices >= 0).numpy().ravel()
    if weight == "cosine":
        found &= (values > 0).numpy().ravel()
    rows = np.repeat(np.arange(n), k)[found]
    columns = indices.numpy().ravel()[found]
    data = values.numpy().ravel()[found] if weight == "cosine" else np.ones(len(rows), np.float32)
    graph = sp.csr_matrix((data, (rows, columns)), shape=(n, n), dtype=np.float32)
    return graph.maximum(graph.T).tocsr() if symmetric else graph
