"""The modality-specific semantic graph: exact cosine k-nearest neighbours, in blocks."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch


def cosine_topk(
    features: torch.Tensor,
    k: int,
    mask: torch.Tensor | None = None,
    include_self: bool = False,
    memory_mb: int = 512,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row the k rows of largest cosine similarity, exactly.

    Rows that ``mask`` leaves out, and zero rows, neither have nor are neighbours (a zero row has no
    cosine: treated as a vector it would become everybody's neighbour or a NaN). The similarity
    matrix is computed in blocks of rows and never held whole.

    Args:
        features: float [n, d].
        k: neighbours per row, self among them if ``include_self``.
        mask: bool [n], the rows that take part; default all.
        include_self: whether a row is its own neighbour (of similarity 1).
        memory_mb: bound on a block of similarities, in MiB.

    Returns:
        (indices int64 [n, k], similarities float32 [n, k]); where a row has fewer than k
        neighbours, the rest is −1 with similarity −inf.

    Cost: n²·d multiply-adds; memory n·(k + d) and one block.

    Raises:
        ValueError: k is not positive, or a feature is not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    features = torch.as_tensor(features, dtype=torch.float32)
    if not torch.isfinite(features).all():
        raise ValueError("features must be finite")
    n = len(features)
    largest = features.abs().amax(dim=1, keepdim=True)
    features = features / largest.where(largest > 0, 1.0)  # or a norm may leave float32's range
    norms = features.norm(dim=1)
    present = norms > 0
    if mask is not None:
        present &= torch.as_tensor(mask, dtype=torch.bool)
    rows = present.nonzero().squeeze(1)  # [n_present]
    unit = features[rows] / norms[rows, None]

    indices = torch.full((n, k), -1, dtype=torch.int64)
    values = torch.full((n, k), -torch.inf)
    width = min(k, len(rows) if include_self else len(rows) - 1)
    if width < 1:
        return indices, values
    block = max(1, int(memory_mb * 2**20 // (4 * len(rows) * 2)))  # similarities and their top-k
    for start in range(0, len(rows), block):
        stop = min(start + block, len(rows))
        similarity = unit[start:stop] @ unit.T  # [block, n_present]
        if not include_self:
            own = torch.arange(start, stop)
            similarity[own - start, own] = -torch.inf
        top = similarity.topk(width, dim=1)
        indices[rows[start:stop], :width] = rows[top.indices]
        values[rows[start:stop], :width] = top.values
    return indices, values


def knn_graph(
    features: torch.Tensor,
    k: int,
    mask: torch.Tensor | None = None,
    include_self: bool = False,
    weight: str = "binary",
    symmetric: bool = True,
    memory_mb: int = 512,
) -> sp.csr_matrix:
    """The k-NN graph S^m of one modality, before normalisation.

    Source: S_ij = cos(x_i, x_j), the k largest per row kept, as in LATTICE (arXiv 2104.09036,
    Eq. 2-3) and FREEDOM (arXiv 2211.06924, Eq. 2); the symmetrisation is our choice: without it the
    degrees of a binary graph are all k and the "symmetric" normalisation is the constant 1/k.

    Args:
        weight: ``binary`` (every edge 1) or ``cosine`` (negative similarities dropped).
        symmetric: keep an edge in both directions if either end has it (maximum of S and Sᵀ).
        features, k, mask, include_self, memory_mb: see :func:`cosine_topk`.

    Returns:
        float32 CSR [n, n]; rows without the modality are empty.

    Raises:
        ValueError: the weight is unknown.
    """
    if weight not in ("binary", "cosine"):
        raise ValueError(f"edge weight [{weight}] is unknown; use binary or cosine")
    indices, values = cosine_topk(features, k, mask, include_self, memory_mb)
    n = len(indices)
    found = (indices >= 0).numpy().ravel()
    if weight == "cosine":
        found &= (values > 0).numpy().ravel()
    rows = np.repeat(np.arange(n), k)[found]
    columns = indices.numpy().ravel()[found]
    data = values.numpy().ravel()[found] if weight == "cosine" else np.ones(len(rows), np.float32)
    graph = sp.csr_matrix((data, (rows, columns)), shape=(n, n), dtype=np.float32)
    return graph.maximum(graph.T).tocsr() if symmetric else graph
