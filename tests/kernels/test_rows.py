"""Rows of a table, whose gradient is a sum in order on any number of threads; of a matrix."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec.kernels.csr_rows import csr_rows
from recbole_sigrec.kernels.rows import select_rows


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dim", [0, 1])
def test_rows_and_their_gradient(threads, dim):
    torch.manual_seed(0)
    table = torch.randn((900, 64) if dim == 0 else (2, 900, 64), requires_grad=True)
    rows = torch.randint(0, 900, (6000,))
    weight = torch.randn((6000, 64) if dim == 0 else (2, 6000, 64))
    got = select_rows(table, rows, dim)
    assert torch.equal(got, table[rows] if dim == 0 else table[:, rows])
    expected = torch.zeros_like(table)
    for place, row in enumerate(rows.tolist()):
        expected.select(dim, row).add_(weight.select(dim, place))
    assert torch.equal(torch.autograd.grad((got * weight).sum(), table)[0], expected)


@pytest.mark.parametrize("dim", [0, 1])
def test_no_rows_have_no_gradient(dim):
    table = torch.ones(3, 4, 2, requires_grad=True)
    got = select_rows(table, torch.empty(0, dtype=torch.long), dim)
    assert got.shape == ((0, 4, 2) if dim == 0 else (3, 0, 2))
    assert not torch.autograd.grad(got.sum(), table)[0].any()


def test_other_devices_index():
    table = torch.empty(3, 7, 5, device="meta")
    rows = torch.tensor([1, 1], device="meta")
    assert select_rows(table, rows).shape == (2, 7, 5)
    assert select_rows(table, rows, dim=1).shape == (3, 2, 5)


@given(
    st.lists(st.integers(-1, 5), max_size=9),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=15, unique=True),
)
def test_rows_of_a_scipy_matrix(rows, pairs):
    dense = np.zeros((6, 4), dtype=np.float32)
    for n, (row, column) in enumerate(pairs):
        dense[row, column] = n + 1
    found = csr_rows(sp.csr_matrix(dense), np.array(rows, dtype=np.int64))
    expected = [dense[row] if row >= 0 else np.zeros(4) for row in rows]
    np.testing.assert_array_equal(found.toarray(), np.array(expected).reshape(-1, 4))
