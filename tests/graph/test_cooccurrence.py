"""The graph of co-occurring rows against dense matrices; the distribution of its fill-up."""

from __future__ import annotations

import helpers_models as ref
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import chisquare

from recbole_sigrec.graph import CooccurrenceGraph, cooccurrence_topk
from recbole_sigrec.graph.cooccurrence import softmax_of_counts


@pytest.fixture
def interactions():
    rng = np.random.default_rng(2)
    r = (rng.random((30, 14)) < 0.15).astype(np.float32)
    r[0] = 0.0
    r[5] = 0.0
    return sp.csr_matrix(r)


def counts_of(interactions):
    r = interactions.toarray()
    counts = r @ r.T
    np.fill_diagonal(counts, 0)
    return counts


@pytest.mark.parametrize("k", [1, 4, 60])
@pytest.mark.parametrize("memory_mb", [512, 0.001])
def test_counts_are_the_dense_ones(interactions, k, memory_mb):
    counts = counts_of(interactions)
    expected = np.where(ref.best(counts, k, counts > 0), counts, 0)
    got = cooccurrence_topk(interactions, k, memory_mb)
    np.testing.assert_array_equal(got.toarray(), expected)
    assert got.nnz == (expected > 0).sum()
    of_items = cooccurrence_topk(sp.csr_matrix(interactions.T), k, memory_mb)
    assert of_items.shape == (14, 14)


def test_the_weights_are_a_softmax_of_the_counts(interactions):
    counts, graph = counts_of(interactions), CooccurrenceGraph(interactions, 6)
    kept = ref.best(counts, 6, counts > 0)
    weight = np.where(kept, np.exp(counts), 0.0)
    total = weight.sum(axis=1, keepdims=True)
    got = ref.dense(graph.expected())
    np.testing.assert_allclose(got, weight / np.where(total > 0, total, 1.0), atol=1e-7)
    assert not got[[0, 5]].any() and not got[:, [0, 5]].any()


def test_large_counts_do_not_overflow():
    r = sp.csr_matrix(np.ones((3, 2000), np.float32))
    expected = (1 - np.eye(3)) / 2
    np.testing.assert_allclose(ref.dense(CooccurrenceGraph(r, 2).draw()), expected)


def test_short_lists_alone_are_filled_up(interactions):
    graph = CooccurrenceGraph(interactions, 8)
    length = np.diff(graph.counts.indptr)
    assert (length == 8).any() and ((length > 0) & (length < 8)).any() and (length == 0).any()
    np.random.seed(0)
    drawn = [graph.places() for _ in range(20)]
    assert len({times.tobytes() for times in drawn}) > 1
    for times in drawn:
        rows = np.split(times, graph.counts.indptr[1:-1])
        assert [part.sum() for part in rows] == [8 * (n > 0) for n in length]
        assert times.min() == 1
    counts, weight = graph.counts.toarray(), graph.counts.copy()
    weight.data = drawn[0] * np.exp(graph.counts.data)
    expected = weight.toarray() / np.maximum(weight.toarray().sum(axis=1, keepdims=True), 1e-30)
    got = softmax_of_counts(graph.counts, drawn[0]).toarray()
    np.testing.assert_allclose(got, expected, atol=1e-7)
    assert np.array_equal(got > 0, counts > 0)


def test_the_fill_up_is_the_urns():
    """Against the urn itself: three neighbours, six places."""
    r = np.zeros((4, 6), np.float32)
    r[0] = 1.0
    r[1, :2] = r[2, 2:4] = r[3, 4:] = 1.0
    graph, n = CooccurrenceGraph(sp.csr_matrix(r), 6), 6000
    row = slice(*graph.counts.indptr[:2])
    np.random.seed(3)
    ours, theirs = np.zeros((7, 7)), np.zeros((7, 7))
    for _ in range(n):
        first, second, _ = graph.places()[row]
        ours[first, second] += 1
        urn = [0, 1, 2]
        while len(urn) < 6:
            urn.append(urn[np.random.randint(len(urn))])
        theirs[urn.count(0), urn.count(1)] += 1
    possible = theirs > 0
    assert possible.sum() == 10 and not ours[~possible].any()
    for found in (ours, theirs):  # all ten ways are equally likely
        assert chisquare(found[possible]).pvalue > 1e-3
