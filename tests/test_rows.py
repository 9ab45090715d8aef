"""Rows of a table: the gradient of each is a sum in order, on one thread and on several."""

import pytest
import torch

from recbole_sigrec.rows import take


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
    got = take(table, rows, dim)
    assert torch.equal(got, table[rows] if dim == 0 else table[:, rows])
    expected = torch.zeros_like(table)
    for place, row in enumerate(rows.tolist()):
        expected.select(dim, row).add_(weight.select(dim, place))
    assert torch.equal(torch.autograd.grad((got * weight).sum(), table)[0], expected)


@pytest.mark.parametrize("dim", [0, 1])
def test_no_rows_have_no_gradient(dim):
    table = torch.ones(3, 4, 2, requires_grad=True)
    got = take(table, torch.empty(0, dtype=torch.long), dim)
    assert got.shape == ((0, 4, 2) if dim == 0 else (3, 0, 2))
    assert not torch.autograd.grad(got.sum(), table)[0].any()


def test_other_devices_index():
    table = torch.empty(3, 7, 5, device="meta")
    rows = torch.tensor([1, 1], device="meta")
    assert take(table, rows).shape == (2, 7, 5)
    assert take(table, rows, dim=1).shape == (3, 2, 5)
