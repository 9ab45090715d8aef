"""A Dask cluster: what it is given as, who may work for it, and what becomes of its tasks."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import helpers_cluster
import psutil
import pytest

from recbole_sigrec import compare
from recbole_sigrec.errors import ConfigError, SIGRecError
from recbole_sigrec.parallel.engines import check_workers
from recbole_sigrec.parallel.pool import Start

dask = pytest.importorskip("dask")
cluster = pytest.importorskip("recbole_sigrec.parallel.cluster")
handing_out = pytest.importorskip("recbole_sigrec.parallel.handing_out")

START = Start(helpers_cluster.begin, ())


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Of two workers of this machine, each in a process."""
    with cluster.open_cluster("local:2", tmp_path_factory.mktemp("workers")) as client:
        yield client


@pytest.fixture
def given_out(client, tmp_path):
    """``given_out(function, tasks, *more)``: task → its error, once all have ended."""
    lock = tmp_path / ".lock"
    lock.touch()

    def call(function, tasks, *more, start=START):
        left = list(tasks)
        return dict(
            handing_out.hand_out(
                client,
                lock,
                lambda: left.pop(0) if left else None,
                function,
                lambda task: (str(tmp_path), task, *more),
                start,
            )
        )

    return call


# ---- what is given -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local:3", ("local", 3)),
        ("slurm:8", ("slurm", 8)),
        *((text, (text, 0)) for text in ("tcp://10.0.0.1:8786", "tls://head.lab:8786")),
        *((text, (text, 0)) for text in ("localhost:8786", "[::1]:8786")),
    ],
)
def test_what_a_cluster_is_given_as(text, expected):
    assert cluster.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slurm", "slurm needs a number of workers: slurm:4"),
        ("local:0", "local needs a number of workers: local:4"),
        ("local:-1", "local needs"),
        ("local:²", "local needs"),
        ("slrm", "Did you mean 'slurm'"),
        ("tcp://10.0.0.1", "give the address of a Dask scheduler"),
        ("", "give the address"),
    ],
)
def test_what_is_no_cluster_is_refused_first(text, says):
    with pytest.raises(ConfigError, match=says):
        compare(["BPR"], "absent", cluster=text)
    with pytest.raises(ConfigError, match="jobs = 2 is for this machine alone"):
        check_workers([], 2, "local:2")


def test_a_class_that_no_worker_can_import_is_refused_first():
    class Mine:
        pass

    with pytest.raises(ConfigError, match=r"in a function. On a cluster each process imports it"):
        compare([Mine], "absent", cluster="local:2")


def test_an_address_where_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_SECONDS", 0.2)
    with pytest.raises(SIGRecError, match=r"\[127\.0\.0\.1:1\]: no Dask scheduler answers there"):
        with cluster.open_cluster("127.0.0.1:1", tmp_path):
            pass


# ---- tasks ---------------------------------------------------------------------------------------


def test_each_task_is_done_once_in_another_process_in_this_folder(given_out, tmp_path):
    assert given_out(helpers_cluster.note, range(7)) == dict.fromkeys(range(7))
    done = [file.name.partition(".") for file in tmp_path.glob("[0-9]*")]
    assert sorted(int(name) for name, _, _ in done) == [*range(7)]
    pids = {int(pid) for _, _, pid in done}
    assert pids <= helpers_cluster.worker_pids() and os.getpid() not in pids
    assert {file.read_text("utf-8") for file in tmp_path.glob("[0-9]*")} == {os.getcwd()}


def test_a_workers_death_is_told_each_time_and_the_others_go_on(given_out, tmp_path):
    """Whatever Dask's allowed-failures are: it would do the task three times more by itself."""
    for _ in range(2):
        ended = given_out(helpers_cluster.die, ["bad", "good"], 2)
        assert isinstance(ended["bad"], handing_out.WorkerDied) and ended["good"] is None
    assert given_out(helpers_cluster.die, ["bad"], 2) == {"bad": None}
    assert len(list(tmp_path.glob("died-bad.*"))) == 2


def test_deaths_are_counted_from_the_last_progress():
    deaths, most = handing_out.Deaths(), handing_out.DEATHS
    for progress in (None, 1, 2):
        assert [deaths.of("task", progress) for _ in range(most - 1)] == [None] * (most - 1)
    assert deaths.of("other") is None
    assert f"{most} workers died at work on it" in str(deaths.of("task", 2))


def test_a_users_error_arrives_as_it_is(given_out):
    (error,) = given_out(helpers_cluster.refuse, [1]).values()
    assert type(error) is ConfigError and str(error) == "task 1 cannot be done"


def test_a_worker_that_cannot_begin_ends_it_all(given_out, tmp_path):
    with pytest.raises(handing_out.UnfitWorker, match=r"a worker on .*: there is no data here"):
        given_out(helpers_cluster.note, [1], start=Start(helpers_cluster.begin, (True,)))
    assert not list(tmp_path.glob("[0-9]*"))


# ---- who may work --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"versions": {"torch": "2.0.0"}}, r"has torch \d.*, this process has 2\.0\.0"),
        ({"versions": {"recbole_sigrec": "0"}}, "has recbole_sigrec .*, this process has 0: inst"),
        ({"folder": "/absent"}, r"does not see \[/absent\]: the working directory, data_path and"),
        ({"lock": "out/.lock"}, r"does not see \[.*/out/\.lock\]"),
    ],
)
def test_an_unfit_worker_is_told_before_any_task(changed, says, given_out, monkeypatch, tmp_path):
    here = handing_out.Surroundings.of_this_process(tmp_path / ".lock")
    other = dataclasses.replace(here, **changed)
    monkeypatch.setattr(handing_out.Surroundings, "of_this_process", lambda lock: other)
    with pytest.raises(handing_out.UnfitWorker, match=says):
        given_out(helpers_cluster.note, [1])
    assert not list(tmp_path.glob("1.*"))


@contextlib.contextmanager
def started_by_a_user(folder, **environment):
    """The address of a scheduler on this machine that has one worker, with four threads."""
    address, both = folder / "scheduler.json", []
    parts = {"dask_scheduler": ("--host=127.0.0.1", "--port=0", "--no-dashboard")}
    parts["dask_worker"] = ("--nthreads=4", "--memory-limit=0", "--no-dashboard")
    try:
        for part, more in parts.items():
            command = [sys.executable, "-m", f"distributed.cli.{part}", *more]
            command += ["--scheduler-file", str(address)]
            environment = {**os.environ, **environment}
            both.append(
                subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
            )
        deadline = time.monotonic() + 60
        while not address.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield json.loads(address.read_text("utf-8"))["address"]
    finally:
        for process in both:
            process.terminate()
        for process in both:
            process.wait(20)


@pytest.fixture
def lock(tmp_path):
    (tmp_path / ".lock").touch()
    return tmp_path / ".lock"


def test_what_is_given_up_at_an_address_ends_at_once(lock, tmp_path, monkeypatch):
    """One task at a time, whatever the threads of a worker."""
    root = Path(compare.__code__.co_filename).parents[2]
    paths = f"{root}{os.pathsep}{Path(helpers_cluster.__file__).parent}"
    with (
        started_by_a_user(tmp_path, PYTHONPATH=paths) as address,
        cluster.open_cluster(address, tmp_path) as client,
    ):
        left, look = [1, 2], client.nthreads

        def interrupted():
            if list(tmp_path.glob("[12].*")):
                raise KeyboardInterrupt
            return look()

        monkeypatch.setattr(client, "nthreads", interrupted)
        given = helpers_cluster.wait_for_ever, lambda task: (str(tmp_path), task), START
        with pytest.raises(KeyboardInterrupt):
            next(handing_out.hand_out(client, lock, left.pop, *given))
        (begun,) = tmp_path.glob("[12].*")
        _, alive = psutil.wait_procs([process_of(begun)], timeout=20)
        assert alive == [] and len(left) == 1
        monkeypatch.undo()
        client.wait_for_workers(1, timeout=60)  # its nanny has begun another


def process_of(file):
    """The process that has left a file, or one that has ended."""
    try:
        return psutil.Process(int(file.suffix[1:]))
    except psutil.NoSuchProcess:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        return ended


def test_a_worker_without_the_package_is_told(lock, tmp_path):
    (tmp_path / "recbole_sigrec").mkdir()  # another package of that name
    (tmp_path / "recbole_sigrec" / "__init__.py").write_text("__version__ = '9'", "utf-8")
    with (
        started_by_a_user(tmp_path, PYTHONPATH=str(tmp_path)) as address,
        cluster.open_cluster(address, tmp_path) as client,
    ):
        given = helpers_cluster.note, lambda task: (str(tmp_path), task), START
        with pytest.raises(handing_out.UnfitWorker, match=r"cannot import recbole_sigrec .*inst"):
            list(handing_out.hand_out(client, lock, lambda: None, *given))


SBATCH = """#!/bin/sh
cp "$1" "$0.job"
setsid sh "$0.job" >/dev/null 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -- -"$1"
"""


def test_slurm(lock, tmp_path, monkeypatch):
    """dask-jobqueue's jobs, on this machine: each is a worker, and ends with the block."""
    monkeypatch.delitem(sys.modules, "dask_jobqueue.runner", raising=False)
    monkeypatch.delitem(sys.modules, "dask_jobqueue", raising=False)  # it takes Ctrl-C over
    interrupt = signal.getsignal(signal.SIGINT)
    for name, text in {"sbatch": SBATCH, "scancel": SCANCEL}.items():
        (tmp_path / name).write_text(text, "utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    root = Path(compare.__code__.co_filename).parents[2]
    paths = f"{root}{os.pathsep}{Path(helpers_cluster.__file__).parent}"
    monkeypatch.setenv("PYTHONPATH", paths)
    with pytest.raises(SIGRecError, match=r"dask-jobqueue cannot describe a job.*cores and memory"):
        with cluster.open_cluster("slurm:1", tmp_path):
            pass
    job = {"cores": 1, "memory": "4GB", "local-directory": str(tmp_path / "scratch")}
    job["scheduler-options"] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **job}}):
        with cluster.open_cluster("slurm:1", tmp_path / "out") as client:
            left = [1]
            given = helpers_cluster.note, lambda task: (str(tmp_path), task), START
            ask = lambda: left.pop() if left else None  # noqa: E731
            assert list(handing_out.hand_out(client, lock, ask, *given)) == [(1, None)]
            (done,) = tmp_path.glob("1.*")
            worker = process_of(done)
            assert client.scheduler.address.startswith("tls://")
    assert signal.getsignal(signal.SIGINT) is interrupt
    assert psutil.wait_procs([worker], timeout=20)[1] == []
    del client
    gc.collect()
    assert list((tmp_path / "out").iterdir()) == []  # certificates go with the cluster's object
