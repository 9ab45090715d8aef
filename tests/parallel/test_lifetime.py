"""Processes end with the one that started them, by whatever signal, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

GROUP = """
import sys, helpers_distributed
from recbole_sigrec.parallel import distributed
if __name__ == "__main__":
    distributed.spawn(helpers_distributed.work_for_ever, (sys.argv[1],), 2)
"""
POOL = """
import os, sys, time
from pathlib import Path
from recbole_sigrec.parallel.pool import worker_pool
def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
if __name__ == "__main__":
    with worker_pool(2) as pool:
        for task in [pool.submit(work, sys.argv[1]) for _ in range(4)]:
            task.result()
"""
CLUSTER = """
import os, sys, time
from pathlib import Path
from recbole_sigrec.parallel.cluster import open_cluster
from recbole_sigrec.parallel.handing_out import hand_out
from recbole_sigrec.parallel.pool import Start
def begin():
    pass
def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
if __name__ == "__main__":
    here = Path(sys.argv[1]).parent
    lock = here / ".lock"
    lock.touch()
    with open_cluster("local:2", here) as client:
        tasks = [sys.argv[1]] * 4
        for _ in hand_out(client, lock, tasks.pop, work, lambda task: (task,), Start(begin, ())):
            pass
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("program", "name"),
    [
        *((GROUP, "SIGINT"), (GROUP, "SIGTERM"), (GROUP, "SIGKILL")),
        *((POOL, "SIGINT"), (POOL, "SIGKILL")),
        *((CLUSTER, "SIGINT"), (CLUSTER, "SIGTERM"), (CLUSTER, "SIGKILL")),
    ],
    ids=[
        *("group-INT", "group-TERM", "group-KILL", "pool-INT", "pool-KILL"),
        *("cluster-INT", "cluster-TERM", "cluster-KILL"),
    ],
)
def test_a_signal_to_the_parent_ends_all(tmp_path, program, name):
    """Ctrl-C goes to all of them, as from a terminal, and is told by the parent alone."""
    if program is CLUSTER:
        pytest.importorskip("distributed")
    script, temporary, pids = (tmp_path / part for part in ("program.py", "temporary", "pids"))
    script.write_text(program, "utf-8")
    temporary.mkdir()
    pids.mkdir()
    paths = [os.path.dirname(os.path.dirname(__file__)), *sys.path]
    parent = subprocess.Popen(
        [sys.executable, script, pids],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = []
    try:
        deadline = time.monotonic() + 120
        while len(list(pids.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert {int(file.name) for file in pids.iterdir()} <= {child.pid for child in children}
        number = getattr(signal, name)
        (os.killpg if name == "SIGINT" else os.kill)(parent.pid, number)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
        error = parent.communicate(timeout=10)[1].decode()
        assert parent.returncode == -number
        assert (error.count("Traceback") == 1) == (name == "SIGINT"), error
        assert list(temporary.iterdir()) == []
        assert not (tmp_path / ".workers").exists() or name == "SIGKILL"
    finally:
        for process in (parent, *(child for child in children if child.is_running())):
            process.kill()
        parent.wait()
