"""Ridge weights solved in blocks of columns: against the inverse in double precision."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_sigrec.graph import ridge_columns, ridge_graph
from recbole_sigrec.graph.ridge_columns import largest_ridge_weights

K, CLOSE = 6, 2e-5  # edges; of weights below 1


def made(n_users=60, n_items=45, d=12, seed=0):
    """(R, Z): items 0 and 5 without users, item 7 without content, item 9 with half of it."""
    rng = np.random.default_rng(seed)
    popularity = rng.permutation(n_items) + 1.0
    r = rng.random((n_users, n_items)) < 0.4 * popularity**-0.5
    r[:, [0, 5]] = False
    z = rng.normal(size=(n_items, d)) + 2.0 * rng.normal(size=d)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    z[7] = 0.0
    z[9, : d // 2] = 0.0
    return sp.csr_matrix(r.astype(np.float32)), z.astype(np.float32)


def exact_weights(r, z, w, reg):
    """All of B, in float64."""
    r, z = r.toarray().astype(np.float64), z.astype(np.float64)
    inverse = np.linalg.inv(r.T @ r + w * z @ z.T + reg * np.eye(len(z)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def assert_largest(found, exact, k):
    """The k largest positive weights of each column; which of two equal ones is left open."""
    found = found.toarray()
    least = np.maximum(np.sort(exact, axis=0)[-min(k, len(exact))], 0.0)
    must, may = exact > least + CLOSE, exact >= least - CLOSE
    assert (found[must] > 0).all() and may[found > 0].all()
    np.testing.assert_allclose(found[found > 0], exact[found > 0], atol=CLOSE, rtol=CLOSE)
    return must.sum()


@pytest.mark.parametrize("reg", [0.5, 30.0])
@pytest.mark.parametrize("w", [0.0, 4.0, 60.0])
@pytest.mark.parametrize("d", [1, 12, 70])  # the last: more than items
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_against_the_inverse(monkeypatch, block, d, w, reg):
    monkeypatch.setattr(ridge_columns, "_COLUMNS", block)
    monkeypatch.setattr(ridge_columns, "_ITERATED", 5)
    r, z = made(d=d)
    found = largest_ridge_weights(r, z, K, w, reg)
    assert found.dtype == np.float32 and found.shape == (45, 45)
    assert assert_largest(found, exact_weights(r, z, w, reg), K) > 45
    again = largest_ridge_weights(r, z, K, w, reg)
    assert (found != again).nnz == 0


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 30), st.integers(11, 25), st.integers(2, 30)),
    weights=st.tuples(st.floats(0.0, 100.0), st.floats(0.5, 1e3)),
    k=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_any_data(sizes, weights, k, seed):
    r, z = made(*sizes, seed=seed)
    exact = exact_weights(r, z, *weights)
    assert_largest(largest_ridge_weights(r, z, k, *weights), exact, k)


def test_a_graph_of_many_items_is_that_of_few(tmp_path):
    r, z = made()
    weights = {"content_weight": 4.0, "reg_weight": 2.0}
    dense, blocks = (ridge_graph(str(tmp_path), r, z, K, most, **weights) for most in (44, 43))
    assert dense.nnz == blocks.nnz > 0
    assert 0 < abs(dense - blocks).max() < 2e-5  # each of the two solutions has rounding of its own
    assert len(list(tmp_path.glob("ridge-*.npz"))) == 1
    assert len(list(tmp_path.glob("ridge_columns-*.npz"))) == 1


def test_what_does_not_converge_is_an_error(monkeypatch):
    r, z = made()
    monkeypatch.setattr(ridge_columns, "_MOST_ITERATIONS", 3)
    with pytest.raises(ValueError, match="residual of 3e-06 in 3 iterations; raise the ridge"):
        largest_ridge_weights(r, z, K, 4.0, 0.5)


@pytest.mark.parametrize(("w", "reg"), [(4.0, 1e-50), (4.0, 1e39), (1e39, 1.0), (1e12, 1.0)])
def test_what_float32_cannot_tell_is_an_error(w, reg):
    r, z = made()
    with pytest.raises(ValueError, match="raise the ridge"):
        largest_ridge_weights(r, z, K, w, reg)


def test_the_error_of_the_weights_is_told(monkeypatch, caplog):
    r, z = made()
    w, reg, off = 4.0, 2.0, 1e-4
    rows = np.linalg.inv((r.T @ r).toarray() + w * z @ z.T + reg * np.eye(45)).astype(np.float32)
    rows[3, 8] += off
    inverse = ridge_columns._Inverse(r, z, w, reg)
    found = inverse.error(torch.from_numpy(rows), torch.arange(45))
    assert found == pytest.approx(off / rows[3, 3], rel=1e-2)
    with caplog.at_level(logging.INFO):
        largest_ridge_weights(r, z, K, w, reg)
    told = float(caplog.text.split("item weights: off by at most ")[1].split(",")[0])
    assert 1e-8 < told < 1e-5
    monkeypatch.setattr(ridge_columns, "_LARGEST_ERROR", told / 2)
    with pytest.raises(ValueError, match="raise the ridge"):
        largest_ridge_weights(r, z, K, w, reg)
