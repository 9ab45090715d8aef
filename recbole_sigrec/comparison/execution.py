"""Executing the runs of a comparison, one after another or several at a time.

Each run writes its own files (see :class:`Run`), wherever it is executed: in this process, in one
of its worker processes, or in a worker of a cluster, which sees the folder of the comparison under
the same name. All other files of the comparison are written by this process alone.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import torch
from filelock import FileLock
from tqdm import tqdm

from recbole_sigrec.comparison.arms import Arm, Setting
from recbole_sigrec.comparison.runs import Run, execute
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.parallel.pool import Start, worker_pool
from recbole_sigrec.recbole_repairs.notices import quiet

if TYPE_CHECKING:
    from distributed import Client

Ended = Generator[tuple[Run, BaseException | None], None, None]
"""Runs in the order of their ends, and why they failed."""

_DIED = SIGRecError(
    "its process ended by itself: killed, as the system does without memory, or crashed; or it "
    'could not start, as in a script without `if __name__ == "__main__":`'
)


_APPEARS = 90  # seconds in which a file that another machine has written is seen here

LOCK = ".lock"  # in a comparison's folder: held while it is worked on


def execute_all(
    runs: Sequence[Run],
    setting: Setting,
    split: Split,
    jobs: int,
    cluster: str | Client | None = None,
) -> list[tuple[Run, BaseException]]:
    """Execute the runs that are not there yet, with their progress on stderr.

    Those that were begun without an end of an epoch come last: the system may have killed the
    comparison for what they need.

    Args:
        runs: all of them; the split was loaded by the config of the first one's arm.
        jobs: runs at a time.
        cluster: where the runs are executed; None: on this machine, by ``jobs`` processes.

    Returns:
        The runs that have failed, and why.

    Raises:
        SIGRecError: the cluster cannot be used, see :mod:`recbole_sigrec.parallel`.
    """
    todo = [run for run in runs if not run.done]
    todo.sort(key=lambda run: run.begun and run.last_checkpoint is None)
    failed, total = [], len(runs)
    done = total - len(todo)
    if done:
        print(f"{done} of {total} runs are there already", file=sys.stderr)
    bar = tqdm(desc="runs", total=total, initial=done, disable=None, dynamic_ncols=True)
    if cluster is not None and todo:
        ended = _on_cluster(todo, setting, runs[0].arm, split, cluster)
    elif jobs == 1:
        ended = _here(todo, setting, split)
    else:
        ended = _in_workers(todo, setting, runs[0].arm, split, jobs)
    with bar, contextlib.closing(ended):
        for run, error in ended:
            if error is None:
                done += 1
                bar.update()
                tqdm.write(f"[{done}/{total}] {run.summary()}", file=sys.stderr)
            else:
                failed.append((run, error))
                see = f" (see {run.path('.log')})" if run.begun else ""
                tqdm.write(f"failed: {run}: {error}{see}", file=sys.stderr)
    return failed


def _here(todo: list[Run], setting: Setting, split: Split) -> Ended:
    for run in todo:
        try:
            execute(run, setting, split, torch.get_num_threads(), show_progress=True)
            yield run, None
        except Exception as error:
            yield run, error


def _in_workers(todo: list[Run], setting: Setting, first: Arm, split: Split, jobs: int) -> Ended:
    """Several at a time.

    A process that is killed takes its pool along: the runs that were begun are then made one by
    one, so that only what is killed again has failed, and the rest as before.
    """
    threads = max(1, torch.get_num_threads() // jobs)  # of every run, whatever runs beside it

    def attempt(runs: list[Run], jobs: int) -> Ended:
        futures = {}
        with worker_pool(jobs, _start_worker, setting, first, split.fingerprint) as pool:
            with contextlib.suppress(BrokenProcessPool):  # it may break before all are submitted
                for run in runs:
                    futures[pool.submit(_work, run, setting, threads)] = run
            for future in as_completed(futures):
                run, error = futures[future], future.exception()
                died = isinstance(error, BrokenProcessPool)
                yield run, None if run.done else _DIED if died else error
        yield from ((run, _DIED) for run in runs[len(futures) :])

    left = todo
    while left:
        lost = []
        for run, error in attempt(left, jobs):
            if error is _DIED:
                lost.append(run)
            else:
                yield run, error
        begun = [run for run in lost if run.begun]
        for run in begun:
            yield from attempt([run], 1)
        left = [run for run in lost if run not in begun]
        if not begun:  # the processes do not even start
            yield from ((run, _DIED) for run in left)
            return


def _on_cluster(
    todo: list[Run], setting: Setting, first: Arm, split: Split, cluster: str | Client
) -> Ended:
    """Each on a worker that is free, with the threads of this process.

    A run whose worker dies goes on elsewhere, from its last checkpoint, after those that have not
    begun.
    """
    from recbole_sigrec.parallel.cluster import open_cluster
    from recbole_sigrec.parallel.handing_out import Deaths, WorkerDied, hand_out

    folder = todo[0].folder
    folder.mkdir(parents=True, exist_ok=True)
    left, threads = deque(todo), torch.get_num_threads()
    deaths = Deaths()
    start = Start(_start_worker, (setting, first, split.fingerprint))
    with open_cluster(cluster, folder.parent) as client:
        ended = hand_out(
            client,
            folder.parent / LOCK,
            lambda: left.popleft() if left else None,
            _work_alone,
            lambda run: (run, setting, threads),
            start,
        )
        with contextlib.closing(ended):
            for run, error in ended:
                if error is None:
                    yield run, _unseen(run)
                elif not isinstance(error, WorkerDied):
                    yield run, error
                elif too_many := deaths.of(run.key, run.progress):
                    yield run, too_many
                else:
                    left.append(run)


def _unseen(run: Run) -> SIGRecError | None:
    """An error where a run that a worker has made is not here; a network drive may show it late."""
    end = time.monotonic() + _APPEARS
    while not run.done:
        if time.monotonic() > end:
            return SIGRecError(
                f"a worker has made it, but {run.path('.json')} is not here: its folder of that "
                f"name is another; name a folder that all workers share"
            )
        time.sleep(1)
    return None


_worker: dict[str, Split] = {}  # in a worker process: the split


def _start_worker(setting: Setting, first: Arm, fingerprint: str) -> None:
    """Load the split; as a command line does, without the notices of RecBole's code.

    Raises:
        DataError: the data cannot be read here, or they are other data.
    """
    quiet()
    _worker.clear()
    _worker["split"] = Split.load_again(setting.config(first), fingerprint)


def _work(run: Run, setting: Setting, threads: int) -> None:
    execute(run, setting, _worker["split"], threads, show_progress=False)


def _work_alone(run: Run, setting: Setting, threads: int) -> None:
    """As :func:`_work`, while no other worker is at work on this run.

    A worker that has lost its connection counts as dead, and may still write.
    """
    lock = run.path(".lock")
    with FileLock(lock):
        try:
            if not run.done:
                _work(run, setting, threads)
        finally:
            lock.unlink(missing_ok=True)
