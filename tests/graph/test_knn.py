"""Semantic k-NN graphs against dense NumPy references, exact and approximate."""

from __future__ import annotations

import logging
import sys
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.graph import approximate, approximate_topk, cosine_topk, knn, knn_graph
from recbole_sigrec.graph.unit_rows import UnitRows, unit_rows

# ---- references -----------------------------------------------------------------------------


def dense_cosine(x, mask=None):
    """All similarities in float64; −inf where either end does not take part."""
    x = np.asarray(x, dtype=np.float64)
    norms = np.linalg.norm(x, axis=1)
    present = norms > 0
    if mask is not None:
        present &= np.asarray(mask)
    unit = x / np.where(norms > 0, norms, 1.0)[:, None]
    similarity = unit @ unit.T
    similarity[~present] = -np.inf
    similarity[:, ~present] = -np.inf
    return similarity


def reference_topk(x, k, mask=None, include_self=False):
    """(sorted values [n, k] with −inf at the end, similarities [n, n])."""
    similarity = dense_cosine(x, mask)
    if not include_self:
        np.fill_diagonal(similarity, -np.inf)
    values = -np.sort(-similarity, axis=1)[:, :k]
    return np.pad(values, ((0, 0), (0, k - values.shape[1])), constant_values=-np.inf), similarity


def check_topk(indices, values, x, k, mask=None, include_self=False):
    """The values are the reference's, and each index has the similarity that is claimed for it."""
    expected, similarity = reference_topk(x, k, mask, include_self)
    indices, values = indices.numpy(), values.numpy()
    np.testing.assert_allclose(values, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(indices >= 0, np.isfinite(expected))
    for row, (neighbours, claimed) in enumerate(zip(indices, values)):
        found = neighbours[neighbours >= 0]
        assert len(set(found)) == len(found)
        np.testing.assert_allclose(similarity[row, found], claimed[: len(found)], atol=1e-5, rtol=0)


# Small integers make duplicates, zero rows and ties likely.
def matrices(max_rows=12, max_columns=4):
    return hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, max_rows), st.integers(1, max_columns)),
        elements=st.one_of(
            st.integers(-2, 2).map(float),
            st.floats(0.001953125, 100.0, width=32),
            st.floats(-100.0, -0.001953125, width=32),
        ),
    )


# ---- semantic k-NN --------------------------------------------------------------------------


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("k", [1, 5, 39, 40])
def test_topk_is_the_dense_one(k, include_self):
    rng = np.random.default_rng(k)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    x[7] = 0.0
    x[11] = x[12] * 3.0  # the same direction
    mask = np.ones(40, dtype=bool)
    mask[[3, 20]] = False
    found = cosine_topk(torch.from_numpy(x), k, torch.from_numpy(mask), include_self)
    check_topk(*found, x, k, mask, include_self)


def test_more_neighbours_than_rows():
    x = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=np.float32)
    indices, values = cosine_topk(torch.from_numpy(x), 10)
    assert indices.shape == values.shape == (3, 10)
    assert sorted(indices[0, :2].tolist()) == [1, 2]
    assert (indices[:, 2:] == -1).all() and (values[:, 2:] == -torch.inf).all()
    check_topk(indices, values, x, 10)
    indices, _ = cosine_topk(torch.from_numpy(x), 10, include_self=True)
    assert (indices[:, 0] == torch.arange(3)).all()
    assert ((indices >= 0).sum(dim=1) == 3).all()


def test_a_single_row_has_no_neighbour():
    indices, values = cosine_topk(torch.ones(1, 3), 4)
    assert (indices == -1).all() and (values == -torch.inf).all()
    indices, values = cosine_topk(torch.ones(1, 3), 4, include_self=True)
    assert indices[0].tolist() == [0, -1, -1, -1]
    assert values[0, 0].item() == pytest.approx(1.0, abs=1e-6)


def exact_rows(rng, n):
    """±1 in 16 dimensions, some rows again and again: norm 4, so not even rounding may differ."""
    x = rng.choice([-1.0, 1.0], size=(n, 16)).astype(np.float32)
    again = rng.integers(0, n, size=n // 3)
    x[again] = x[rng.integers(0, n, size=n // 3)]
    return x


def ordered_topk(x, k, mask, include_self):
    """The one right answer for exact rows: by similarity, then by row."""
    similarity = dense_cosine(x, mask)
    if not include_self:
        np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(similarity, order, axis=1)
    short = ((0, 0), (0, k - order.shape[1]))
    values = np.pad(values, short, constant_values=-np.inf)
    return np.where(np.isfinite(values), np.pad(order, short), -1), values


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 32 rows, so that a few hundred rows make many."""
    monkeypatch.setattr(knn, "tile_size", lambda d, cuda=False: 32)


def kept_blocks(blocks, d):
    """The memory_mb in which that many blocks of 32 rows are kept, with tiles of 32."""
    return (3 * 4 * 32 * 32 + (blocks + 3) * 4 * 32 * d) / 2**20


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("n", [31, 32, 33, 64, 65, 230])
@pytest.mark.parametrize("k", [1, 3, 40, 300])
def test_ties_go_to_the_smaller_row(n, k):
    rng = np.random.default_rng(n + k)
    x, mask = exact_rows(rng, n), rng.random(n) < 0.9
    for include_self in (False, True):
        found = cosine_topk(torch.from_numpy(x), k, mask, include_self, kept_blocks(3, 16))
        indices, values = ordered_topk(x, k, mask, include_self)
        np.testing.assert_array_equal(found[0].numpy(), indices)
        np.testing.assert_array_equal(found[1].numpy(), values)


@given(st.integers(2, 150), st.integers(1, 20), st.integers(0, 9), st.integers(1, 3), st.data())
def test_neither_tiles_nor_memory_change_the_result(n, k, seed, groups, data):
    rng = np.random.default_rng(seed)
    x = exact_rows(rng, n)
    whole = cosine_topk(x, k)
    kept = data.draw(st.integers(1, 6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "tile_size", lambda d, cuda=False: 32 * groups)
        tiled = cosine_topk(x, k, memory_mb=kept_blocks(kept, 16) * groups)
    assert torch.equal(tiled[0], whole[0]) and torch.equal(tiled[1], whole[1])


@pytest.mark.usefixtures("small_tiles")
def test_memory_does_not_change_a_bit_of_the_result_on_real_numbers():
    x = np.random.default_rng(1).normal(size=(333, 40)).astype(np.float32)
    x[200:300] = x[100:200]  # ties, in other tiles
    whole = cosine_topk(x, 10, memory_mb=64)
    check_topk(*whole, x, 10)
    assert (whole[0][250, 0] == 150) and (whole[0][150, 0] == 250)
    for memory_mb in (1e-9, *(kept_blocks(blocks, 40) for blocks in range(2, 12))):
        again = cosine_topk(x, 10, memory_mb=memory_mb)
        assert torch.equal(again[0], whole[0]) and torch.equal(again[1], whole[1])


def test_equal_rows_are_all_neighbours_of_the_first():
    indices, values = cosine_topk(torch.ones(3000, 4), 5)
    assert indices[0].tolist() == [1, 2, 3, 4, 5]
    assert indices[3].tolist() == [0, 1, 2, 4, 5]
    assert (indices[5:] == torch.arange(5)).all() and (values == 1).all()


def test_rows_that_grow_ever_closer_are_ranked():
    # Every tile beats all before it: the angles to row 0 shrink with the row's number.
    angle = torch.linspace(3.0, 0.01, 2500, dtype=torch.float64)
    angle[0] = 0.0
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    indices, _ = cosine_topk(x, 7)
    assert indices[0].tolist() == list(range(2499, 2492, -1))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("blocks", [2, 3, 5, 20])
def test_row_blocks_keep_within_the_memory(blocks, monkeypatch):
    alive, most, original = weakref.WeakSet(), [], UnitRows.block

    def spy(self, start, stop):
        rows = original(self, start, stop)
        alive.add(rows)
        most.append(len(alive))
        return rows

    monkeypatch.setattr(UnitRows, "block", spy)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(512, 64)).astype(np.float32))
    cosine_topk(x, 10, memory_mb=kept_blocks(blocks, 64))
    assert max(most) == min(blocks + 1, 16)
    assert (len(most) == 16) == (blocks >= 16)  # each normalised once where all are kept


def test_a_tile_of_many_columns_keeps_within_32_mib():
    assert knn.tile_size(64) == knn.tile_size(4096) == 2048
    for d in (5000, 10_000, 100_000):
        assert knn.tile_size(d) % knn.GROUP == 0
        assert 2**24 < 4 * d * knn.tile_size(d) <= 2**25


@pytest.mark.parametrize(
    "kind", ["array", "float64", "float16", "map", "map of float16", "strided"]
)
def test_features_of_every_kind_give_the_same(tmp_path, kind):
    x = np.random.default_rng(8).integers(-8, 9, size=(70, 5)).astype(np.float32)
    x[3] = 0.0
    expected = cosine_topk(torch.from_numpy(x), 6)
    given = x.astype(kind if kind.startswith("float") else "float16" if "16" in kind else "float32")
    if kind.startswith("map"):
        np.save(tmp_path / "x.npy", given)
        given = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "strided":
        given = torch.from_numpy(np.asfortranarray(given))
    before = np.asarray(given).copy()
    found = cosine_topk(given, 6)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    np.testing.assert_array_equal(np.asarray(given), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_finds_the_same():
    x = torch.from_numpy(np.random.default_rng(9).normal(size=(400, 16)).astype(np.float32))
    indices, values = cosine_topk(x.cuda(), 5)
    assert indices.device.type == values.device.type == "cpu"
    check_topk(indices, values, x.numpy(), 5)


def test_missing_and_zero_rows_have_no_edge():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 3)).astype(np.float32)
    x[[0, 4]] = 0.0
    mask = np.ones(12, dtype=bool)
    mask[9] = False
    for include_self in (False, True):
        graph = knn_graph(torch.from_numpy(x), 11, torch.from_numpy(mask), include_self)
        for row in (0, 4, 9):
            assert graph[row].nnz == 0 and graph[:, row].nnz == 0
        assert (np.delete(graph.getnnz(axis=1), [0, 4, 9]) == 8 + include_self).all()


def test_all_rows_missing_gives_an_empty_graph():
    assert knn_graph(torch.zeros(5, 3), 2).nnz == 0
    assert knn_graph(torch.ones(5, 3), 2, torch.zeros(5, dtype=torch.bool)).nnz == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_are_refused(bad):
    x = torch.ones(4, 2)
    x[2, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        cosine_topk(x, 1)


def test_bad_arguments_of_the_semantic_graph():
    with pytest.raises(ValueError, match="at least 1"):
        cosine_topk(torch.ones(4, 2), 0)
    with pytest.raises(ValueError, match="unknown"):
        knn_graph(torch.ones(4, 2), 1, weight="euclid")


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e25])
def test_cosine_does_not_depend_on_the_scale(scale):
    x = np.random.default_rng(3).normal(size=(20, 5))
    scaled = (x * scale).astype(np.float32)
    check_topk(*cosine_topk(torch.from_numpy(scaled), 4), scaled.astype(np.float64), 4)


@given(matrices(), st.integers(1, 14), st.booleans(), st.data())
def test_topk_properties(x, k, include_self, data):
    mask = data.draw(hnp.arrays(np.bool_, len(x)))
    indices, values = cosine_topk(
        torch.from_numpy(x), k, torch.from_numpy(mask), include_self, memory_mb=1e-9
    )
    present = mask & x.any(axis=1)
    width = np.where(present, min(k, max(0, present.sum() - (not include_self))), 0)
    found = indices.numpy() >= 0
    np.testing.assert_array_equal(found.sum(axis=1), width)
    for row in range(len(x)):
        neighbours = indices[row].numpy()[found[row]]
        claimed = values[row].numpy()[found[row]]
        assert found[row, : width[row]].all()
        assert present[neighbours].all()
        assert len(set(neighbours)) == len(neighbours)
        assert include_self or row not in neighbours
        assert (np.diff(claimed) <= 0).all()
        assert (np.abs(claimed) <= 1 + 1e-5).all()
    assert np.isneginf(values.numpy()[~found]).all()
    check_topk(indices, values, x, k, mask, include_self)


@given(matrices(), st.integers(1, 5), st.sampled_from(["binary", "cosine"]), st.booleans())
def test_symmetric_graph_is_the_union(x, k, weight, include_self):
    features = torch.from_numpy(x)
    one_way = knn_graph(features, k, None, include_self, weight, symmetric=False).toarray()
    union = knn_graph(features, k, None, include_self, weight, symmetric=True)
    assert union.dtype == np.float32
    np.testing.assert_array_equal(union.toarray(), np.maximum(one_way, one_way.T))
    assert (union.data > 0).all()
    if not include_self:
        assert (union.diagonal() == 0).all()


def test_edge_weights():
    x = np.random.default_rng(4).normal(size=(15, 3)).astype(np.float32)
    similarity = dense_cosine(x)
    np.fill_diagonal(similarity, -np.inf)
    chosen = np.argsort(-similarity, axis=1)[:, :9]  # some of the nine are negative
    edge = np.zeros((15, 15), dtype=bool)
    np.put_along_axis(edge, chosen, True, axis=1)
    assert (similarity[edge] < 0).any()
    binary = knn_graph(torch.from_numpy(x), 9, weight="binary", symmetric=False)
    np.testing.assert_array_equal(binary.toarray(), edge.astype(np.float32))
    cosine = knn_graph(torch.from_numpy(x), 9, weight="cosine", symmetric=False)
    expected = np.where(edge & (similarity > 0), similarity, 0.0)
    np.testing.assert_allclose(cosine.toarray(), expected, atol=1e-6, rtol=0)


# ---- approximate neighbours -----------------------------------------------------------------


def clustered(n=1500, d=16):
    """Rows around 60 centres, a zero row and a masked one: (x, mask)."""
    rng = np.random.default_rng(10)
    x = rng.normal(size=(60, d))[rng.integers(0, 60, n)] + 0.4 * rng.normal(size=(n, d))
    x[4] = 0.0
    mask = np.ones(n, dtype=bool)
    mask[9] = False
    return x.astype(np.float32), mask


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_approximate_neighbours_are_nearly_the_exact_ones(method, include_self, caplog):
    pytest.importorskip("faiss")
    x, mask = clustered()
    with caplog.at_level(logging.INFO):
        indices, values = approximate_topk(x, 10, mask, include_self, method)
    exact = cosine_topk(x, 10, mask, include_self)
    for row in (4, 9):
        assert (indices[row] == -1).all() and torch.isneginf(values[row]).all()
        assert not (indices == row).any()
    others = np.delete(np.arange(len(x)), [4, 9])
    found = indices[others].numpy()
    assert include_self == (found == others[:, None]).any()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in found)
    claimed = np.where(found >= 0, dense_cosine(x, mask)[others[:, None], found], -np.inf)
    np.testing.assert_allclose(values[others].numpy(), claimed, atol=1e-5)
    recall = np.mean([len(np.intersect1d(*rows)) / 10 for rows in zip(found, exact[0][others])])
    assert 0.95 <= recall <= 1
    (line,) = (line for line in caplog.messages if "recall@10" in line)
    said = float(line.partition("recall@10 ")[2].split()[0])
    assert f"by {method}" in line and said == pytest.approx(recall, abs=0.02)


def test_a_search_of_all_lists_is_exact(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate, "RECALL", 2.0)  # never reached
    x, mask = clustered(300)
    for include_self in (False, True):
        indices, values = approximate_topk(x, 8, mask, include_self, "ivf")
        check_topk(indices, values, x, 8, mask, include_self)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_approximate_neighbours_of_few_rows(method, n):
    pytest.importorskip("faiss")
    x = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    check_topk(*approximate_topk(x, 4, method=method), x, 4)


def test_the_graph_by_the_approximate_search():
    pytest.importorskip("faiss")
    x, mask = clustered(300)
    exact, near = (knn_graph(x, 5, mask, method=method) for method in ("exact", "hnsw"))
    assert (exact != near).nnz <= 0.1 * exact.nnz
    assert near[4].nnz == near[9].nnz == 0


def test_without_faiss_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SIGRecError, match=r'pip install "recbole_sigrec\[faiss\]"'):
        knn_graph(torch.ones(4, 2), 1, method="ivf")


def test_bad_arguments_of_the_approximate_search():
    with pytest.raises(ValueError, match="unknown"):
        knn_graph(torch.ones(4, 2), 1, method="lsh")
    with pytest.raises(ValueError, match="at least 1"):
        approximate_topk(torch.ones(4, 2), 0)


@pytest.mark.parametrize("scale", [1e-37, 1e-19, 1.0, 1e19, 3e37])
def test_unit_rows_and_their_gradient_do_not_depend_on_the_scale(scale):
    rows = np.random.default_rng(4).normal(size=(2, 6, 5)).astype(np.float32)
    rows[1, 2] = 0.0
    weights = torch.from_numpy(np.random.default_rng(5).normal(size=rows.shape).astype(np.float32))
    x = (torch.from_numpy(rows) * scale).requires_grad_()
    found = unit_rows(x)
    norms = np.linalg.norm(rows.astype(np.float64), axis=2, keepdims=True)
    expected = rows / np.where(norms > 0, norms, 1)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-6, rtol=0)
    (found * weights)[0].sum().backward()
    w = weights[0].numpy().astype(np.float64)
    gradient = (w - expected[0] * (w * expected[0]).sum(axis=1, keepdims=True)) / norms[0]
    np.testing.assert_allclose(x.grad[0].numpy() * scale, gradient, atol=1e-5, rtol=0)


def test_unit_rows_change_no_bit_of_an_ordinary_row():
    rows = torch.from_numpy(np.random.default_rng(6).normal(size=(50, 7)).astype(np.float32))
    assert torch.equal(unit_rows(rows), torch.nn.functional.normalize(rows, dim=1))
