"""Graphs against dense NumPy references, and their properties on random input."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recbole_sigrec.graph import (
    SparseGraph,
    bipartite_graph,
    collaborative_topk,
    common_edges,
    infuse,
    interaction_matrix,
    knn_graph,
    mean_propagation,
    mean_propagation_and_start,
    normalize,
    propagate,
    propagation,
)
from recbole_sigrec.graph.collaborative import MEASURES, _block_bounds, without_long_histories
from recbole_sigrec.graph.propagation import _Rows

ONE_ROW = 1e-9  # memory_mb so small that each block is one row

# ---- references -----------------------------------------------------------------------------


def dense_collaborative(interactions, measure):
    """The measure of all pairs of items, straight from its definition; zero diagonal."""
    r = interactions.toarray().astype(np.float64)
    n_items = r.shape[1]
    result = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            both = r[:, i] * r[:, j]
            if i == j or both.sum() == 0:
                continue
            if measure == "count":
                value = both.sum()
            elif measure == "cosine":
                value = both.sum() / np.sqrt(r[:, i].sum() * r[:, j].sum())
            elif measure == "jaccard":
                value = both.sum() / np.maximum(r[:, i], r[:, j]).sum()
            else:
                users = both > 0
                value = (1.0 / r[users].sum(axis=1)).sum() / r[:, i].sum()
            result[i, j] = value
    return result


def dense_normalize(a, kind="symmetric"):
    a = np.asarray(a, dtype=np.float64)

    def power(degrees, exponent):
        return np.array([d**exponent if d > 0 else 0.0 for d in degrees])

    if kind in ("row", "row_root"):
        return power(a.sum(axis=1), -1.0 if kind == "row" else -0.5)[:, None] * a
    if kind == "out":
        return power(a.sum(axis=1), -0.5)[:, None] * a * power(a.sum(axis=1), -0.5)[None, :]
    return power(a.sum(axis=1), -0.5)[:, None] * a * power(a.sum(axis=0), -0.5)[None, :]


def random_interactions(rng, n_users=30, n_items=17, share=0.2):
    dense = (rng.random((n_users, n_items)) < share).astype(np.float32)
    dense[:, 3] = 0.0  # an item that nobody took
    dense[5] = 0.0  # a user without an item
    return sp.csr_matrix(dense)


def random_sparse(rng, n, m, density=0.3):
    return sp.csr_matrix(sp.random(n, m, density, random_state=rng, dtype=np.float64))


# ---- collaborative graph --------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("k", [1, 4, 100])
def test_collaborative_is_the_dense_one(measure, k, symmetric):
    interactions = random_interactions(np.random.default_rng(5))
    dense = dense_collaborative(interactions, measure)
    graph = collaborative_topk(interactions, k, measure, symmetric=False).toarray()
    for row in range(len(dense)):
        kept = np.flatnonzero(graph[row])
        assert len(kept) == min(k, np.count_nonzero(dense[row]))
        np.testing.assert_allclose(graph[row, kept], dense[row, kept], rtol=1e-6)
        best = -np.sort(-dense[row])[: len(kept)]
        np.testing.assert_allclose(-np.sort(-graph[row, kept]), best, rtol=1e-6)
    if symmetric:
        union = collaborative_topk(interactions, k, measure, symmetric=True).toarray()
        np.testing.assert_array_equal(union, np.maximum(graph, graph.T))


@pytest.mark.parametrize("measure", MEASURES)
def test_collaborative_has_no_diagonal(measure):
    graph = collaborative_topk(random_interactions(np.random.default_rng(6)), 100, measure)
    assert graph.nnz > 0 and graph.dtype == np.float32
    assert (graph.diagonal() == 0).all()
    assert graph[3].nnz == 0 and graph[:, 3].nnz == 0


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("measure", MEASURES)
def test_collaborative_blocks_and_threads_agree_exactly(measure, threads):
    interactions = random_interactions(np.random.default_rng(7))
    whole = collaborative_topk(interactions, 3, measure)
    torch.set_num_threads(threads)
    for memory_mb in (ONE_ROW, 0.001, 0.005, 512):
        blocks = collaborative_topk(interactions, 3, measure, memory_mb=memory_mb)
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(blocks, part), getattr(whole, part))


@given(
    st.lists(st.floats(0, 50), max_size=30).map(np.array),
    st.floats(0, 100),
)
def test_blocks_are_as_long_as_the_limit_allows(sizes, limit):
    bounds = _block_bounds(sizes, limit)
    assert bounds[0] == 0 and bounds[-1] == len(sizes)
    for start, stop in pairwise(bounds):
        assert stop == start + 1 or sizes[start:stop].sum() <= limit + 1e-9
        assert stop == len(sizes) or sizes[start : stop + 1].sum() > limit - 1e-9


@pytest.mark.parametrize("threads", [1, 3])
def test_collaborative_memory_is_bounded(threads):
    # No two users share an item, so that all of a row are tied: the worst case.
    torch.set_num_threads(threads)
    n_users, history = 4, 500
    items = np.arange(n_users * history)
    interactions = interaction_matrix(items // history, items, n_users, len(items))

    def peak(memory_mb):
        tracemalloc.start()
        collaborative_topk(interactions, 3, memory_mb=memory_mb)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak / 2**20

    besides = peak(0.1)
    assert peak(10) < besides + 10
    if threads == 1:  # how far the blocks of several overlap in time is chance
        assert peak(10) > besides + 5
        assert peak(512) > besides + 20


def exact_order(interactions, row, measure):
    """The other items that share a user with ``row``, best first, by exact fractions."""
    users = [set(np.flatnonzero(column)) for column in interactions.T]

    def measured(j):
        both = len(users[row] & users[j])
        if measure == "cosine":  # its square
            return Fraction(both * both, len(users[row]) * len(users[j]))
        return Fraction(both, len(users[row] | users[j])) if measure == "jaccard" else both

    others = [j for j in range(len(users)) if j != row and users[row] & users[j]]
    return sorted(others, key=lambda j: (-measured(j), j))


@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 9))),
    st.integers(1, 4),
    st.sampled_from(["cosine", "jaccard", "count"]),
    st.sampled_from([ONE_ROW, 512]),
)
def test_the_chosen_items_are_those_of_exact_arithmetic(dense, k, measure, memory_mb):
    graph = collaborative_topk(
        sp.csr_matrix(dense, dtype=np.float32), k, measure, symmetric=False, memory_mb=memory_mb
    )
    for row in range(dense.shape[1]):
        assert sorted(graph[row].indices) == sorted(exact_order(dense, row, measure)[:k])
    assert (graph.data <= (np.inf if measure == "count" else 1.0)).all()


def test_equal_cosines_are_ties():
    # 2/√(4n) = 3/√(9n), which rounding may tell apart: the smaller id is chosen, whichever it is.
    for n in range(3, 40):
        users = [range(n), [0, 1, 50, 51], [0, 1, 2, *range(60, 66)]]
        for order in ([0, 1, 2], [0, 2, 1]):
            interactions = np.zeros((70, 3), dtype=np.float32)
            for item, who in enumerate(order):
                interactions[users[who], item] = 1.0
            graph = collaborative_topk(sp.csr_matrix(interactions), 1, symmetric=False)
            assert graph[0].indices.tolist() == [1]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("limit", [1, 4, 100, None])
def test_users_with_a_long_history_are_left_out(measure, limit, caplog):
    interactions = random_interactions(np.random.default_rng(8), share=0.3)
    degree = np.diff(interactions.indptr)
    kept = interactions.toarray()
    kept[degree > (limit or np.inf)] = 0.0
    graph = collaborative_topk(without_long_histories(interactions, limit), 100, measure).toarray()
    expected = dense_collaborative(sp.csr_matrix(kept), measure)
    if measure == "random_walk":  # the others are symmetric anyway
        expected = np.maximum(expected, expected.T)
    np.testing.assert_allclose(graph, expected, rtol=1e-6)
    if limit in (1, 4):
        gone = degree[degree > limit]
        assert 0 < len(gone) < len(degree)
        assert f"{len(gone)} histories of more than {limit}" in caplog.text
        assert f"{gone.sum()} of {degree.sum()} training interactions" in caplog.text
    else:
        assert not caplog.text


def test_ties_go_to_the_smaller_item():
    interactions = sp.csr_matrix(np.ones((2, 5), dtype=np.float32))  # all pairs equally often
    graph = collaborative_topk(interactions, 2, "count", symmetric=False)
    rows = [sorted(graph[i].indices.tolist()) for i in range(5)]
    assert rows == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    assert (graph.data == 2.0).all()


def test_bad_arguments_of_the_collaborative_graph():
    interactions = random_interactions(np.random.default_rng(5))
    with pytest.raises(ValueError, match="unknown"):
        collaborative_topk(interactions, 3, "pearson")
    with pytest.raises(ValueError, match="at least 1"):
        collaborative_topk(interactions, 0)


def test_no_interactions_give_an_empty_graph():
    graph = collaborative_topk(sp.csr_matrix((4, 6), dtype=np.float32), 3)
    assert graph.shape == (6, 6) and graph.nnz == 0


# ---- normalise, mix -------------------------------------------------------------------------


def test_interaction_matrix_counts_a_pair_once():
    matrix = interaction_matrix(np.array([1, 1, 2, 1]), np.array([3, 3, 1, 2]), 4, 5)
    expected = np.zeros((4, 5), dtype=np.float32)
    expected[[1, 2, 1], [3, 1, 2]] = 1.0
    np.testing.assert_array_equal(matrix.toarray(), expected)
    assert matrix.dtype == np.float32 and matrix.nnz == 3


nonnegative = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    elements=st.one_of(st.just(0.0), st.just(1.0), st.floats(0.001, 100.0)),
)


@given(nonnegative, st.sampled_from(["symmetric", "row", "row_root"]))
def test_normalize_is_the_dense_one(a, kind):
    result = normalize(sp.csr_matrix(a), kind)
    assert result.shape == a.shape and result.dtype == np.float32
    np.testing.assert_allclose(result.toarray(), dense_normalize(a, kind), rtol=1e-6, atol=0)
    empty = a.sum(axis=1) == 0
    assert (result.getnnz(axis=1)[empty] == 0).all()
    assert np.isfinite(result.data).all()
    if kind == "row":
        np.testing.assert_allclose(
            result.toarray().astype(np.float64).sum(axis=1), np.where(empty, 0.0, 1.0), atol=1e-6
        )


@given(nonnegative.map(lambda a: np.maximum(*(m := a[: min(a.shape), : min(a.shape)], m.T))))
def test_normalize_keeps_symmetry_and_the_spectrum_below_one(a):
    result = normalize(sp.csr_matrix(a)).toarray().astype(np.float64)
    np.testing.assert_allclose(result, result.T, rtol=1e-6, atol=0)
    assert np.abs(np.linalg.eigvalsh((result + result.T) / 2)).max() <= 1 + 1e-5


@given(nonnegative.map(lambda a: a[: min(a.shape), : min(a.shape)]))
def test_normalize_by_the_row_sums_on_both_sides(a):
    result = normalize(sp.csr_matrix(a), "out").toarray()
    np.testing.assert_allclose(result, dense_normalize(a, "out"), rtol=1e-6, atol=0)


def test_normalize_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="unknown"):
        normalize(sp.eye(3), "column")


def test_bipartite_graph():
    interactions = random_interactions(np.random.default_rng(8))
    graph = bipartite_graph(interactions)
    n_users, n_items = interactions.shape
    r = interactions.toarray()
    full = np.block([[np.zeros((n_users, n_users)), r], [r.T, np.zeros((n_items, n_items))]])
    assert graph.nnz == 2 * interactions.nnz
    np.testing.assert_allclose(graph.toarray(), dense_normalize(full), rtol=1e-6, atol=0)
    assert (graph != graph.T).nnz == 0


def test_infuse():
    rng = np.random.default_rng(9)
    semantic, collaborative = (random_sparse(rng, 9, 9).astype(np.float32) for _ in range(2))
    none, all_, some = (infuse(semantic, collaborative, a) for a in (0.0, 1.0, 0.3))
    for mixed, expected in ((none, semantic), (all_, collaborative)):
        assert (mixed != expected).nnz == 0 and mixed.nnz == expected.nnz
    expected = 0.7 * semantic.toarray() + 0.3 * collaborative.toarray()
    np.testing.assert_allclose(some.toarray(), expected, atol=1e-7, rtol=0)
    assert some.dtype == np.float32


# ---- products and propagation ---------------------------------------------------------------


def sparse_graphs():
    rng = np.random.default_rng(10)
    square = random_sparse(rng, 7, 7)
    return {
        "symmetric": square.maximum(square.T),
        "asymmetric": square,
        "wide": random_sparse(rng, 4, 9),
        "tall": random_sparse(rng, 9, 4),
        "empty": sp.csr_matrix((5, 5)),
    }


@pytest.mark.parametrize("name", list(sparse_graphs()))
def test_product_and_gradient_are_the_dense_ones(name):
    matrix = sparse_graphs()[name].astype(np.float32)
    graph = SparseGraph(matrix)
    assert graph.symmetric == (name in ("symmetric", "empty"))
    assert graph.nnz == matrix.nnz and graph.shape == matrix.shape
    dense = torch.from_numpy(matrix.toarray())
    torch.manual_seed(0)
    x = torch.randn(matrix.shape[1], 3, requires_grad=True)
    y = torch.randn(matrix.shape[0], 3)
    torch.testing.assert_close(graph(x), dense @ x, atol=1e-6, rtol=1e-6)
    (got,) = torch.autograd.grad((graph(x) * y).sum(), x)
    torch.testing.assert_close(got, dense.T @ y, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["symmetric", "asymmetric", "wide", "tall"])
def test_gradient_by_finite_differences(name):
    graph = SparseGraph(sparse_graphs()[name])
    torch.manual_seed(1)
    x = torch.randn(graph.shape[1], 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(graph, (x,))
    if graph.shape[0] == graph.shape[1]:
        assert torch.autograd.gradcheck(lambda e: mean_propagation(graph, e, 2), (x,))


@pytest.fixture(params=["few", "most", "one", "none"])
def some_rows(request):
    """A normalised user-item graph [70, 70], and rows with a part of its entries."""
    random = np.random.default_rng(13)
    interactions = sp.csr_matrix((random.random((40, 30)) < 0.2).astype(np.float32))
    graph = bipartite_graph(interactions)
    n = {"few": 20, "most": 60, "one": 1, "none": 0}[request.param]
    rows = torch.from_numpy(np.sort(random.permutation(70)[:n]))
    assert (_Rows(SparseGraph(graph), rows).part is None) == (request.param == "most")
    return graph, interactions, rows


@pytest.fixture(params=["by share", "all copied", "none copied"])
def few(request, monkeypatch):
    """Which rows are copied; none are on other devices than the CPU."""
    limit = {"by share": propagation.FEW, "all copied": 2.0, "none copied": 0.0}[request.param]
    monkeypatch.setattr(propagation, "FEW", limit)


def test_rows_of_a_product_are_those_of_the_whole_to_the_bit(some_rows, few):
    bipartite, interactions, rows = some_rows
    torch.manual_seed(2)
    for matrix, part in ((bipartite, rows), (interactions, rows[rows < 40])):
        graph = SparseGraph(matrix)
        x = torch.randn(matrix.shape[1], 5, requires_grad=True)
        y = torch.randn(len(part), 5)
        got, whole = graph(x, part), graph(x)[part]
        assert torch.equal(got, whole)
        gradients = [torch.autograd.grad((out * y).sum(), x)[0] for out in (got, whole)]
        assert torch.equal(*gradients)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_rows_of_a_propagation_are_those_of_the_whole_to_the_bit(some_rows, few, n_layers):
    matrix, _, rows = some_rows
    graph = SparseGraph(matrix)
    torch.manual_seed(3)
    x, y = torch.randn(70, 5, requires_grad=True), torch.randn(len(rows), 5)
    got = mean_propagation(graph, x, n_layers, rows)
    whole = mean_propagation(graph, x, n_layers)[rows]
    assert torch.equal(got, whole)
    gradients = [torch.autograd.grad((out * y).sum(), x)[0] for out in (got, whole)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("n_layers", [0, 1, 3])
@pytest.mark.parametrize("used", [(0, 1), (0,), (1,)])
def test_rows_of_the_start_come_with_those_of_a_propagation(some_rows, few, n_layers, used):
    matrix, _, rows = some_rows
    graph = SparseGraph(matrix)
    torch.manual_seed(3)
    x, y = torch.randn(70, 5, requires_grad=True), torch.randn(2, len(rows), 5)
    got = mean_propagation_and_start(graph, x, n_layers, rows)
    expected = mean_propagation(graph, x, n_layers, rows), x[rows]
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    losses = (sum((out[n] * y[n]).sum() for n in used) for out in (got, expected))
    assert torch.equal(*(torch.autograd.grad(loss, x)[0] for loss in losses))


def test_half_precision_is_widened_in_both_results(some_rows):
    matrix, _, rows = some_rows
    x = torch.randn(70, 5, dtype=torch.bfloat16, requires_grad=True)
    mean, start = mean_propagation_and_start(SparseGraph(matrix), x, 2, rows)
    assert (mean.dtype, start.dtype) == (torch.float32, torch.bfloat16)
    gradient = torch.autograd.grad(mean.sum() + start.float().sum(), x)[0]
    wide = x.detach().float().requires_grad_()
    expected = sum(
        out.sum() for out in mean_propagation_and_start(SparseGraph(matrix), wide, 2, rows)
    )
    expected = torch.autograd.grad(expected, wide)[0]
    torch.testing.assert_close(gradient.float(), expected, atol=1e-6, rtol=2**-7)


def test_gradient_of_rows_by_finite_differences(some_rows):
    matrix, _, rows = some_rows
    graph, rows = SparseGraph(matrix), rows[:7]
    x = torch.randn(70, 1, dtype=torch.float64, requires_grad=True)
    if len(rows):
        assert torch.autograd.gradcheck(lambda e: graph(e, rows), (x,))
        assert torch.autograd.gradcheck(lambda e: mean_propagation(graph, e, 2, rows), (x,))


def test_a_transposed_input_is_multiplied_rightly():
    graph = SparseGraph(sparse_graphs()["asymmetric"])
    x = torch.randn(3, 7).T  # not contiguous
    expected = torch.from_numpy(sparse_graphs()["asymmetric"].toarray()).float() @ x
    torch.testing.assert_close(graph(x), expected, atol=1e-6, rtol=1e-6)


def test_a_graph_is_not_part_of_a_checkpoint():
    graph = SparseGraph(sparse_graphs()["asymmetric"])
    assert len(graph.state_dict()) == 0
    assert len(list(graph.parameters())) == 0
    # … but it moves with its model: values and both directions are buffers.
    assert len(dict(graph.named_buffers())) == 6


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_propagation(n_layers):
    a = normalize(sparse_graphs()["symmetric"])
    graph, dense = SparseGraph(a), a.toarray().astype(np.float64)
    x = np.random.default_rng(11).normal(size=(7, 3)).astype(np.float32)
    layers = [np.linalg.matrix_power(dense, power) @ x for power in range(n_layers + 1)]
    last = propagate(graph, torch.from_numpy(x), n_layers)
    mean = mean_propagation(graph, torch.from_numpy(x), n_layers)
    np.testing.assert_allclose(last.numpy(), layers[-1], atol=1e-6, rtol=0)
    np.testing.assert_allclose(mean.numpy(), np.mean(layers, axis=0), atol=1e-6, rtol=0)


def test_zero_layers_give_the_embeddings_themselves():
    graph = SparseGraph(sparse_graphs()["symmetric"])
    x = torch.randn(7, 3)
    assert torch.equal(propagate(graph, x, 0), x)
    assert torch.equal(mean_propagation(graph, x, 0), x)


def test_common_edges_are_those_of_all_graphs_without_loops():
    rng = np.random.default_rng(4)
    graphs = [rng.random((9, 9)) * (rng.random((9, 9)) < 0.7) + np.eye(9) for _ in range(3)]
    for some in (graphs, graphs[:1]):
        expected = np.all([graph > 0 for graph in some], axis=0) & ~np.eye(9, dtype=bool)
        before = [sp.csr_matrix(graph) for graph in some]
        got = common_edges(before)
        np.testing.assert_array_equal(got.toarray(), expected)
        assert got.nnz == expected.sum() > 0
        np.testing.assert_array_equal(before[0].toarray(), some[0])  # left as it was


def test_a_checkerboard_has_a_known_answer():
    # Even and odd items: two directions of features, two groups of users. Both graphs are the same
    # checkerboard without its diagonal, and one layer is the mean of the others of one's colour.
    n, k = 12, 5
    colour = np.arange(n) % 2
    board = (colour[:, None] == colour[None, :]) & ~np.eye(n, dtype=bool)
    features = np.eye(2, dtype=np.float32)[colour]
    features *= np.linspace(0.5, 3.0, n, dtype=np.float32)[:, None]  # cosine ignores lengths
    semantic = knn_graph(torch.from_numpy(features), k)
    np.testing.assert_array_equal(semantic.toarray(), board.astype(np.float32))
    interactions = sp.csr_matrix(np.tile(np.eye(2, dtype=np.float32)[:, colour], (4, 1)))
    collaborative = collaborative_topk(interactions, k)
    np.testing.assert_allclose(collaborative.toarray(), board, atol=1e-7)

    mixed = infuse(normalize(semantic), normalize(collaborative), 0.4)
    np.testing.assert_allclose(mixed.toarray(), board / k, atol=1e-7)
    x = np.random.default_rng(12).normal(size=(n, 3)).astype(np.float32)
    expected = np.stack([x[board[i]].mean(axis=0) for i in range(n)])
    got = propagate(SparseGraph(mixed), torch.from_numpy(x), 1)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)
