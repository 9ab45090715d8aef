"""Products over edges of learned weights, against dense matrices and torch's own gradients."""

from __future__ import annotations

import pytest
import scipy.sparse as sp
import torch

from recbole_sigrec.graph import EdgeGraph, edges

N, M, D = 9, 7, 4


@pytest.fixture(params=[1, 5, 2**16])
def graph(request, monkeypatch):
    """A graph with a row and a column without an edge; gathered in blocks of several sizes."""
    monkeypatch.setattr(edges, "_BLOCK", request.param)
    matrix = sp.random(N, M, density=0.4, format="lil", random_state=2)
    matrix[3], matrix[:, 5] = 0, 0
    return EdgeGraph(matrix)


@pytest.fixture
def draw(graph):
    """``draw(*shape)`` → float64, with a gradient; the default is a number for each edge."""
    torch.manual_seed(1)

    def draw(*shape):
        return torch.randn(shape or (len(graph.row),), dtype=torch.float64, requires_grad=True)

    return draw


def same(one, two, *parameters):
    """Equal values, and gradients of a function of them."""
    torch.testing.assert_close(one, two)
    grads = [
        torch.autograd.grad((x**2).sum() + x.sum(), parameters, retain_graph=True)
        for x in (one, two)
    ]
    for got, expected in zip(*grads):
        torch.testing.assert_close(got, expected)


def as_matrix(graph, values):
    return values.new_zeros(N, M).index_put((graph.row, graph.col), values)


def test_product_and_transposed(graph, draw):
    weight, right, left = draw(), draw(M, D), draw(N, D)
    matrix = as_matrix(graph, weight)
    same(graph.product(weight, right), matrix @ right, weight, right)
    same(graph.product(weight, left, transposed=True), matrix.T @ left, weight, left)


def test_dots(graph, draw):
    left, right = draw(N, D), draw(M, D)
    same(graph.dots(left, right), (left @ right.T)[graph.row, graph.col], left, right)


@pytest.mark.parametrize("transposed", [False, True])
def test_softmax(graph, draw, transposed):
    logits = draw()
    allowed = torch.rand(len(graph.row)) < 0.7
    nodes = graph.col if transposed else graph.row
    allowed[nodes == nodes[0]] = False  # a node with edges, none of which is allowed
    inf = torch.full((N, M), -torch.inf, dtype=torch.float64)
    places = graph.row[allowed], graph.col[allowed]
    matrix = inf.index_put(places, 300 * logits[allowed])  # would overflow
    dense = matrix.softmax(dim=0 if transposed else 1)[graph.row, graph.col]
    got = graph.softmax(300 * logits, allowed, transposed)
    same(got, dense.where(allowed, 0.0).nan_to_num(), logits)
    assert not got[~allowed].any() and got.isfinite().all()


def test_nothing_is_a_parameter(graph):
    assert not graph.state_dict() and not list(graph.parameters())
    assert list(zip(graph.row.tolist(), graph.col.tolist())) == sorted(
        zip(graph.row.tolist(), graph.col.tolist())
    )
