import pytest
import torch

from recbole_sigrec.rows import take


@pytest.mark.parametrize("dim", [0, 1])
def test_taken_rows_and_their_gradient_are_those_of_indexing(dim):
    torch.manual_seed(0)
    table = torch.randn((40, 6) if dim == 0 else (3, 40, 6))
    rows = torch.randint(0, 40, (200,))  # most of them several times
    results = []
    for function in (
        lambda x: take(x, rows, dim),
        lambda x: x[rows] if dim == 0 else x[:, rows],
    ):
        x = table.clone().requires_grad_()
        out = function(x)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append((out.detach(), x.grad))
    (ours, gradient), (indexed, expected) = results
    assert torch.equal(ours, indexed)
    assert torch.equal(gradient, expected)


def test_no_rows():
    assert take(torch.ones(3, 2), torch.empty(0, dtype=torch.long)).shape == (0, 2)
