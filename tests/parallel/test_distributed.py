"""Several processes give the result of one: their shares of the loss, of the users, and whole runs.

Shares are tested in this process, in the place of each process in turn; the rest with gloo.
"""

from __future__ import annotations

import concurrent.futures
import copy
import fnmatch
import json
import socket
import tempfile
from pathlib import Path

import helpers_distributed
import numpy as np
import pytest
import torch
from helpers_data import LEARNED
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec import Config, run
from recbole_sigrec.errors import ConfigError, DataError
from recbole_sigrec.model.losses import bpr_loss, info_nce, l2_loss
from recbole_sigrec.model_names import MODELS
from recbole_sigrec.parallel import distributed
from recbole_sigrec.parallel.distributed import Place


@pytest.fixture(scope="module")
def at():
    """``at(rank, world_size)``: be that process of a group; nothing is sent, all have the same."""
    patch = pytest.MonkeyPatch()

    def move(rank, world_size, **rest):
        patch.setattr(distributed, "_place", Place(rank, world_size, **rest))
        patch.setattr(distributed, "gather", lambda value: [value] * world_size)

    yield move
    patch.undo()


@pytest.fixture(autouse=True)
def _alone(at):
    at(0, 1)


# ---- shares --------------------------------------------------------------------------------------


@given(n=st.integers(0, 60), world_size=st.integers(1, 9))
def test_shares_are_all_rows_in_order(at, n, world_size):
    rows, sizes = [], []
    for rank in range(world_size):
        at(rank, world_size)
        part = range(n)[distributed.share(n)]
        rows += part
        sizes.append(len(part))
    assert rows == list(range(n))
    assert max(sizes) - min(sizes) <= 1


@pytest.fixture(scope="module")
def small_blocks():
    """The contrastive losses are computed for five anchors at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recbole_sigrec.model.losses._BLOCK", 5)
        yield


@given(n=st.integers(1, 12), world_size=st.integers(1, 14), several=st.booleans())
def test_shares_of_the_losses_add_up(at, small_blocks, n, world_size, several):
    """With repetitions, over one positive or two, and with empty shares; values and gradients."""
    generator = torch.Generator().manual_seed(n)
    shape = (2, n, 3) if several else (n, 3)
    anchor = torch.randn(n, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    candidates = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    count = torch.randint(1, 4, (n,), generator=generator)

    def terms(rows, total):
        scores = anchor[rows].sum(dim=1)
        loss = bpr_loss(scores, 2 * scores, total), l2_loss(anchor[rows], n=total)
        share = None if total is None else rows
        return [*loss, info_nce(anchor, candidates, 0.2, count, share=share)]

    def gradients(losses):
        return torch.autograd.grad(sum(losses), [anchor, candidates])

    whole = terms(slice(None), None)
    parts = []
    for rank in range(world_size):
        at(rank, world_size)
        parts.append(terms(distributed.share(n), n))
    for one, shares in zip(whole, zip(*parts)):
        assert sum(shares).item() == pytest.approx(one.item(), abs=1e-12)
    for one, shares in zip(gradients(whole), zip(*map(gradients, parts))):
        torch.testing.assert_close(sum(shares), one, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [*LEARNED, "BPR", "NGCF"])
@pytest.mark.parametrize(("n", "world_size"), [(50, 2), (50, 3), (2, 3)])
def test_shares_of_a_batch_add_up(at, planted, prepare, make_config, name, n, world_size):
    """The loss, its terms and the gradients; noise and what is drawn after it are the same."""
    ready = prepare(make_config(name, planted.folder, train_batch_size=n))
    trainer = ready.trainer
    batch = next(iter(ready.train))
    assert len(batch) == n

    def losses(rank, world_size):
        at(rank, world_size)
        torch.manual_seed(3)
        np.random.seed(3)
        model = copy.deepcopy(ready.model).train()  # an epoch's start may train a part of it
        getattr(model, "on_epoch_start", int)(100)
        part, factor = trainer._share(batch)
        terms = model.calculate_loss(part)
        terms = terms if isinstance(terms, tuple) else (terms,)
        model.zero_grad()
        (factor * sum(terms)).backward()
        values = factor * torch.stack([term.detach().reshape(()) for term in terms])
        trained = (p for group in trainer.optimizer.param_groups for p in group["params"])
        which = {id(p) for p in trained}
        pairs = zip(ready.model.parameters(), model.parameters())
        grads = [own.grad for p, own in pairs if id(p) in which and p.requires_grad]
        # What was computed here: a part of the batch, or of the sum over it.
        done = len(part) / n if factor != 1.0 else float(values[0] / whole[0][0]) if whole else 1.0
        return [values, *grads], (torch.rand(1), np.random.rand()), done

    whole = None
    whole, after, _ = losses(0, 1)
    parts, draws, done = zip(*(losses(rank, world_size) for rank in range(world_size)))
    for one, shares in zip(whole, zip(*parts)):
        torch.testing.assert_close(sum(shares), one, atol=2e-7, rtol=1e-5)
    assert all(draw == after for draw in draws)
    if name in ("VBPR", "NGCF"):  # each process has computed it all
        assert done == (1.0,) * world_size
    else:
        assert max(done) < 0.9


@pytest.mark.parametrize("mode", ["full", "uni5"])
@pytest.mark.parametrize("world_size", [2, 3, 40])
def test_evaluation_batches_are_divided(at, planted, prepare, make_config, mode, world_size):
    """Whole batches, each in one process, as they are in one; also negatives and random states."""
    size = 57 * 7 if mode == "full" else 57  # scores
    config = make_config("BPR", planted.folder, eval_args={"mode": mode}, eval_batch_size=size)
    test = prepare(config).test

    def batches(rank, world_size):
        at(rank, world_size)
        np.random.seed(3)
        torch.manual_seed(3)
        test.generator.manual_seed(3)
        found = [(batch[0]["user_id"], batch[2], batch[3]) for batch in test]
        states = torch.get_rng_state(), test.generator.get_state()
        return found, (*states, torch.from_numpy(np.random.random(1)))

    whole, after = batches(0, 1)
    assert len(whole) > 3
    together = []
    for rank in range(world_size):
        part, states = batches(rank, world_size)
        together += part
        assert all(map(torch.equal, states, after))
        assert len(part) in (len(whole) // world_size, -(-len(whole) // world_size))
    assert len(together) == len(whole)
    for one, other in zip(whole, together):
        assert all(map(torch.equal, one, other))


# ---- processes -----------------------------------------------------------------------------------


def test_processes_of_two_machines_talk():
    """Two calls of one process each: ``--world_size=2`` with ``--group_offset=0`` and ``1``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(
                *(distributed.spawn, helpers_distributed.talk, (), 1, 2, "127.0.0.1", port, offset)
            )
            for offset in range(2)
        ]
        first, second = (call.result() for call in calls)
    assert (first.pop("place"), second.pop("place")) == ([0, 2, 0], [1, 2, 0])
    entered = first.pop("entered")
    assert second.pop("entered") == entered
    assert entered[1] >= entered[0] + 0.2
    assert first == second
    assert first["gathered"] == [[0, 0], [1, 1]]
    assert first["sum"] == [3.0, 1.0]
    # Added; zero where one process has none; none where nobody has one, and where none is wanted.
    assert first["gradients"] == [[3.0, 30.0], [5.0, 6.0], None, None]


def test_a_failure_in_one_process_ends_all(capfd, monkeypatch, tmp_path):
    """A user's mistake comes out as it is; anything else with its process and traceback.

    Neither leaves a file.
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(DataError, match=r"^what is wrong$"):
        distributed.spawn(helpers_distributed.fail, ("user",), 2)
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(RuntimeError, match=r"(?s)process 1 of 2:\nTraceback.*KeyError: 'what"):
        distributed.spawn(helpers_distributed.fail, ("crash",), 2)
    # Either what happened, or that its partner is gone, whichever is noticed first.
    with pytest.raises(RuntimeError, match=r"process 1 terminated with signal SIGKILL|process 0"):
        distributed.spawn(helpers_distributed.fail, ("killed",), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_after_the_work_is_done_takes_nothing():
    assert distributed.spawn(helpers_distributed.abort_at_exit, (), 1, 1) == "done"


@pytest.mark.parametrize(
    "numbers",
    [{"nproc": 0}, {"nproc": 2, "world_size": 1}, {"world_size": 2, "group_offset": 2}],
)
def test_numbers_that_do_not_fit(planted, make_values, numbers):
    with pytest.raises(ConfigError, match=r"nproc = .*world_size = .*group_offset = "):
        run("BPR", "planted", config_dict=make_values(planted.folder), **numbers)


def test_models_that_recbole_trains_in_another_way_are_refused(planted, make_values):
    with pytest.raises(ConfigError, match=r"\[NCL\].*NCLTrainer.*--nproc=1"):
        run("NCL", "planted", config_dict=make_values(planted.folder), nproc=2)


def test_a_gpu_for_each_process(at, planted, make_values, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # RecBole sets it; restored after the test
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    values = make_values(planted.folder, use_gpu=True, gpu_id="0,1", show_progress=True)
    at(0, 2, nproc=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"\[gpu_id\] = \[0,1\].*nproc = 2.*use_gpu=False"):
        Config("BPR", "planted", config_dict=values)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for rank in range(2):
        at(rank, 2, local_rank=rank, nproc=2)
        config = Config("BPR", "planted", config_dict=values)
        assert config["device"] == torch.device("cuda", rank)
        assert config["show_progress"] == (rank == 0)
    cpu = Config("BPR", "planted", config_dict={**values, "use_gpu": False})
    assert cpu["device"] == torch.device("cpu")


# ---- whole runs ----------------------------------------------------------------------------------


def states(result):
    """The best and the last checkpoint of a run."""
    best = Path(result["checkpoint"])
    last = best.with_suffix(".last.pth")
    return [torch.load(file, weights_only=True) for file in (best, last)]


CANCELLED = {
    "MMGCF": "project.*.bias",
    "SLMRec": "heads.*.bias",
    "REARM": "refine.*.*er.bias",  # inner and outer
}
"""Biases that move all candidates alike, or that a layer norm takes out again: their gradients are
rounding alone, of any sign, and Adam steps by the sign."""


def largest_difference(one, two, cancelled=""):
    assert one.keys() == two.keys()
    return max(
        float((one[key].double() - two[key].double()).abs().max())
        for key in one
        if not fnmatch.fnmatch(key, cancelled)
    )


def test_two_processes_give_the_result_of_one(planted, make_values, tmp_path):
    """Each model for an epoch, and a resumed run; the second batch has a single row."""
    n_items = planted.n_items + 1
    common = {"eval_batch_size": 7 * n_items, "train_batch_size": 419, "epochs": 1}
    names = [*MODELS, "LightGCN", "BPR"]
    runs = [[name, "planted", make_values(planted.folder, **common)] for name in names]
    alone = [run(model, name, config_dict=values) for model, name, values in runs]
    more = {**runs[0][2], "epochs": 2}
    alone.append(run("SIGRec", "planted", config_dict=more))
    half = alone[0]["checkpoint"].removesuffix(".pth") + ".last.pth"
    runs.append(["SIGRec", "planted", {**more, "resume": half, "result_file": "result.json"}])

    before = {
        folder: len(list(tmp_path.glob(folder))) for folder in ("saved/*.pth", "log*/*[0-9]*")
    }
    got = distributed.spawn(helpers_distributed.train, (runs,), 2)
    for files, n in before.items():  # one process has written: the same number of files again
        assert len(list(tmp_path.glob(files))) == 2 * n > 0
    assert json.loads((tmp_path / "result.json").read_text("utf-8")) == got["results"][-1]
    assert got["of_all"] == [[result["test_result"] for result in got["results"]]] * 2

    for one, two in zip(alone, got["results"], strict=True):
        assert (one["processes"], two["processes"]) == (1, 2)
        for key in ("best_valid_result", "test_result", "best_epoch", "epochs", "split"):
            assert one[key] == two[key], one["model"]
        for state, other in zip(states(one), states(two)):
            # Adam steps by the sign of an entry whose gradient all but cancels, as one of MMGCN's.
            limit = 1e-5 if one["model"] == "MMGCN" else 1e-6
            limit *= max(1.0, one["config"]["learning_rate"] / 1e-3)  # as steps are
            pair, free = (state["state_dict"], other["state_dict"]), CANCELLED.get(one["model"], "")
            assert largest_difference(*pair, free) < limit, one["model"]
        for epoch, again in zip(state["history"], other["history"], strict=True):
            assert epoch["train_loss"] == pytest.approx(again["train_loss"], 1e-6)
            assert epoch["valid_result"] == again["valid_result"]
        for key in ("torch", "loader"):
            assert torch.equal(state["random"][key], other["random"][key])
        assert state["random"]["numpy"] == other["random"]["numpy"]
