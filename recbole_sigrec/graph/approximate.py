"""Approximate cosine neighbours through FAISS, for catalogues too large for the exact search."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from recbole_sigrec.extras import need
from recbole_sigrec.graph.unit_rows import UnitRows

BLOCK = 8192  # rows read and searched at a time
SAMPLE = 1000  # rows whose neighbours are also found exactly, to measure the recall
RECALL = 0.96  # asked of the sample; a little more than the .95 that is wanted of all rows
EFFORT: dict[str, tuple[str, int]] = {"ivf": ("nprobe", 4), "hnsw": ("efSearch", 32)}
"""FAISS's search parameter, its start."""


def approximate_topk(
    features: torch.Tensor | np.ndarray,
    k: int,
    mask: torch.Tensor | np.ndarray | None = None,
    include_self: bool = False,
    method: str = "ivf",
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row about the k rows of largest cosine similarity; see ``cosine_topk``.

    ``ivf``: an inverted file of 4·√n lists, of which the nearest few are searched. ``hnsw``: a
    navigable small-world graph of 32 links. The effort of the search is raised by half from a low
    start until the recall on a random sample of rows reaches .96 (our choice), or all is searched;
    the recall is logged. It counts a found row as right where its similarity is at least that of
    the exact k-th (less 1e-6), so that one of several equal rows is as good as another.

    Args:
        features, k, mask, include_self: as in ``cosine_topk``; masked and zero rows are not
            indexed.
        method: ``ivf`` or ``hnsw`` (whose result may differ from run to run with several threads).

    Returns:
        (indices int64 [n, k], similarities float32 [n, k]) on the CPU, as ``cosine_topk``; a row
        for which fewer are found ends with −1 and −inf.

    Cost: on the CPU, n·(nlist + nprobe·n/nlist)·d multiply-adds for ``ivf``; memory: a float32 copy
    of the features in the index.

    Raises:
        SIGRecError: FAISS is not installed.
        ValueError: k is not positive, the method is unknown, or a feature is not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if method not in EFFORT:
        raise ValueError(f"method [{method}] is unknown; use exact, {' or '.join(EFFORT)}")
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it says which build it loads
    faiss = need("faiss", f"knn_search {method}", ", or set knn_search: exact")
    unit = UnitRows(features, mask, BLOCK)
    indices = torch.full((unit.n, k), -1, dtype=torch.int64)
    values = torch.full((unit.n, k), -torch.inf)
    width = min(k, len(unit) if include_self else len(unit) - 1)
    if width < 1:
        return indices, values
    faiss.omp_set_num_threads(torch.get_num_threads())
    index, limit = _index(faiss, unit, method)
    _set_effort(index, limit, unit, method, width, include_self)
    for places in torch.arange(len(unit)).split(BLOCK):
        near, similarity = _search(index, unit, places, width, include_self)
        rows = unit.rows[places]
        indices[rows, :width] = torch.where(near >= 0, unit.rows[near], -1)
        values[rows, :width] = similarity
    return indices, values


def _index(faiss: Any, unit: UnitRows, method: str) -> tuple[Any, int]:
    """The filled index, and the largest useful search effort."""
    n, d = len(unit), unit.d
    if method == "hnsw":
        index, limit = faiss.IndexHNSWFlat(d, 32, faiss.METRIC_INNER_PRODUCT), max(n, 32)
    else:
        limit = max(1, min(int(4 * n**0.5), n // 39))  # FAISS wants 39 points for each list
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, limit, faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64
        places = np.random.default_rng(0).choice(n, min(n, 64 * limit), replace=False)
        index.train(unit.take(torch.from_numpy(np.sort(places))).cpu().numpy())
    for start in range(0, n, BLOCK):
        index.add(unit.block(start, start + BLOCK).cpu().numpy())
    return index, limit


def _set_effort(
    index: Any, limit: int, unit: UnitRows, method: str, k: int, include_self: bool
) -> None:
    """Raise the index's search effort until the recall on a sample is RECALL, or to the limit."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(unit), min(SAMPLE, len(unit)), replace=False))
    sample = torch.from_numpy(rows)
    needed = _kth_similarity(unit, sample, k, include_self) - 1e-6
    parameter, effort = EFFORT[method]
    while True:
        effort = min(effort, limit)
        setattr(index if method == "ivf" else index.hnsw, parameter, effort)
        found = _search(index, unit, sample, k, include_self)[1]
        recall = (found >= needed).float().mean().item()
        if recall >= RECALL or effort == limit:
            break
        effort = effort * 3 // 2
    logging.getLogger().info(
        f"semantic graph by {method}, {parameter} {effort}: recall@{k} {recall:.4f} against "
        f"the exact neighbours of {len(sample)} random rows"
    )


def _search(
    index: Any, unit: UnitRows, places: torch.Tensor, k: int, include_self: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the index finds for some rows: (places int64, similarities), [len(places), k]."""
    similarity, near = index.search(unit.take(places).cpu().numpy(), k + (not include_self))
    similarity, near = torch.from_numpy(similarity), torch.from_numpy(near)
    absent = near < 0
    if not include_self:
        absent |= near == places[:, None]
    near, order = near.masked_fill(absent, -1).sort(dim=1)  # ties to the smaller row
    similarity = similarity.masked_fill(absent, -torch.inf).gather(1, order)
    similarity, order = similarity.sort(dim=1, descending=True, stable=True)
    return near.gather(1, order)[:, :k], similarity[:, :k]


def _kth_similarity(
    unit: UnitRows, places: torch.Tensor, k: int, include_self: bool
) -> torch.Tensor:
    """The exact k-th largest similarity of some rows: [len(places), 1]."""
    queries = unit.take(places)
    best = queries.new_full((len(places), k), -torch.inf)
    for start in range(0, len(unit), BLOCK):
        similarity = queries @ unit.block(start, start + BLOCK).T
        if not include_self:
            own = places - start
            inside = ((own >= 0) & (own < similarity.shape[1])).nonzero().squeeze(1)
            similarity[inside, own[inside]] = -torch.inf
        best = torch.cat([best, similarity], dim=1).topk(k).values
    return best[:, -1:].cpu()
