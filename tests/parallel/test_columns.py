"""Tables that processes divide by columns: values, gradients, moments are those of one process."""

from __future__ import annotations

from pathlib import Path

import helpers_distributed
import pytest
import torch

from recbole_sigrec import run
from recbole_sigrec.parallel import columns, distributed


def test_one_process_holds_and_returns_all():
    x = torch.ones(2, 3)
    assert columns.own(3) == slice(0, 3)
    assert columns.whole(x, 3) is x
    assert columns.total(x) is x
    assert not columns.divisible([x])


@pytest.mark.parametrize(("n", "widths"), [(2, [8, 1]), (3, [7])])
def test_a_divided_table_is_trained_as_in_one_process(n, widths):
    """Also with columns that do not divide; with fewer columns than processes each holds all."""
    together = distributed.spawn(helpers_distributed.columns_of_tables, (widths,), n)
    for d, found in zip(widths, together, strict=True):
        (alone,) = helpers_distributed.columns_of_tables([d])
        sizes = [shapes[0][1] for shapes in found["shapes"]]
        assert found["shapes"] == [[[5, size]] * 2 for size in sizes]  # in both epochs
        if d < n:
            assert sizes == [d] * n
        else:
            assert sum(sizes) == d
            assert max(sizes) - min(sizes) <= 1
        assert found["restored"]
        for key in ("gradients", "losses", "table", "moment"):
            torch.testing.assert_close(
                torch.tensor(found[key]), torch.tensor(alone[key]), atol=1e-6, rtol=1e-6
            )


STEPS = {"clipped": {"clip_grad_norm": {"max_norm": 0.01}}, "sgd": {"learner": "sgd"}}


def test_four_processes_and_one_that_goes_on(planted, make_values):
    """An epoch in four processes, and a second one in a single process.

    Clipped gradients, by the norm of whole tables, and an optimiser without moments, too.
    """
    values = make_values(planted.folder, epochs=1, train_batch_size=300)
    runs = [[model, "planted", values] for model in ("LightGCN", "SIGRec")]
    runs += [["LightGCN", "planted", {**values, **more}] for more in STEPS.values()]
    of_four = distributed.spawn(helpers_distributed.train, (runs,), 4)["results"]
    for (model, _, given), four in zip(runs, of_four, strict=True):
        _assert_equal(_last_state(four), _last_state(run(model, "planted", config_dict=given)))
    for (model, _, given), four in zip(runs[:2], of_four):
        more = {**given, "epochs": 2}
        last = four["checkpoint"].removesuffix(".pth") + ".last.pth"
        on = run(model, "planted", config_dict={**more, "resume": last})
        _assert_equal(_last_state(on), _last_state(run(model, "planted", config_dict=more)))


def _assert_equal(found, expected):
    assert found["epoch"] == expected["epoch"]
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, atol=1e-5, rtol=0)
    for index, held in expected["optimizer"]["state"].items():
        for name in ("exp_avg", "exp_avg_sq"):
            moment = found["optimizer"]["state"][index][name]
            torch.testing.assert_close(moment, held[name], atol=1e-6, rtol=1e-3)


def _last_state(result):
    file = Path(result["checkpoint"]).with_suffix(".last.pth")
    return torch.load(file, weights_only=True)
