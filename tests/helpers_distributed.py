"""What the tests of several processes run in them; light, since each new process imports it."""

from __future__ import annotations

import atexit
import os
import signal
import time
from pathlib import Path

import torch

from recbole_sigrec.errors import DataError
from recbole_sigrec.parallel import columns, distributed
from recbole_sigrec.training.optimizers import load_whole_state, whole_state


def talk() -> dict:
    """Every way in which processes talk, once."""
    distributed.connect(torch.device("cpu"))
    distributed.connect(torch.device("cpu"))  # a second call does nothing
    rank = distributed.place().rank

    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(4)]
    weights[0].grad = torch.tensor([1.0, 10.0]) * (rank + 1)
    if rank == 1:
        weights[1].grad = torch.tensor([5.0, 6.0])
    weights[3].requires_grad_(False)
    distributed.sum_gradients(weights)

    with distributed.first_goes_first():
        inside = time.time()
        time.sleep(0.2 if distributed.is_first() else 0)
    return {
        "place": [rank, distributed.place().world_size, distributed.place().local_rank],
        "gathered": [part.tolist() for part in distributed.gather(torch.full((2,), rank))],
        "sum": distributed.sum_tensor(torch.tensor([rank + 1.0, 0.5])).tolist(),
        "gradients": [None if w.grad is None else w.grad.tolist() for w in weights],
        "entered": distributed.gather(inside),
    }


def fail(kind: str) -> None:
    """The second process fails while the first waits for it."""
    distributed.connect(torch.device("cpu"))
    if distributed.place().rank == 1:
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"user": DataError, "crash": KeyError}[kind]("what is wrong")
    distributed.barrier()


def abort_at_exit() -> str:
    """The process aborts as it shuts down, as a library's threads may make it."""
    atexit.register(os.abort)
    return "done"


def train(runs: list) -> dict:
    """Train each of ``runs`` = [[model, dataset, values], …] in the processes of one group."""
    from recbole_sigrec.training.run import _run

    results = [_run((model, dataset, None, values, ()), True) for model, dataset, values in runs]
    return {"results": results, "of_all": distributed.gather([r["test_result"] for r in results])}


def work_for_ever(folder: str) -> None:
    """The first process computes, and the others wait for it; each leaves its number."""
    distributed.connect(torch.device("cpu"))
    (Path(folder) / str(os.getpid())).touch()
    if distributed.is_first():
        while True:
            torch.ones(50, 50) @ torch.ones(50, 50)
    distributed.barrier()


def columns_of_tables(widths: list) -> list:
    """A small loss of the rows of a table that the processes divide, and two steps of Adam, for
    each number of columns."""
    distributed.connect(torch.device("cpu"))
    return [_columns_of_a_table(d) for d in widths]


def _columns_of_a_table(d: int) -> dict:
    size = distributed.place().world_size
    generator = torch.Generator().manual_seed(1)
    start, other = (torch.randn(5, d, generator=generator) for _ in range(2))
    table = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([table], lr=0.1)
    rows = torch.tensor([3, 0, 3])
    tables = [table] if columns.divisible([table]) else []
    shapes, gradients, losses = [], [], []
    for _ in range(2):
        with columns.divided(tables):
            part = columns.own(d)
            shapes.append(list(table.shape))
            optimizer.zero_grad()
            together = columns.whole(table[rows], d).tanh().prod(dim=1)[distributed.share(3)].sum()
            products = columns.total((table[rows] * other[:3, part]).sum(dim=1))
            loss = together + products.square().sum() / size  # each computes an equal part
            loss.backward()
            if not tables:
                distributed.sum_gradients([table])
            parts = distributed.gather(table.grad) if tables else [table.grad]
            gradients.append(torch.cat(parts, dim=1).tolist())
            losses.append(distributed.sum_tensor(loss.detach().clone()).item())
            optimizer.step()
    state = whole_state(optimizer, tables)
    again = torch.optim.Adam([table], lr=0.1)
    load_whole_state(again, state, tables)
    return {
        "shapes": distributed.gather(shapes),  # of each process
        "gradients": gradients,
        "losses": losses,
        "table": table.tolist(),
        "moment": state["state"][0]["exp_avg_sq"].tolist(),
        "restored": all(
            torch.equal(again.state[table][name], value)
            for name, value in optimizer.state[table].items()
        ),
    }
