"""Executing the runs of a comparison, one after another or several at a time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from tqdm import tqdm

from recbole_sigrec.comparison.arms import Arm, Setting
from recbole_sigrec.comparison.runs import Run, execute
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.errors import DataError, SIGRecError
from recbole_sigrec.parallel.pool import worker_pool
from recbole_sigrec.recbole_repairs.notices import quiet

Ended = Generator[tuple[Run, BaseException | None], None, None]
"""Runs in the order of their ends, and why they failed."""

_DIED = SIGRecError(
    "its process ended by itself: killed, as the system does without memory, or crashed; or it "
    'could not start, as in a script without `if __name__ == "__main__":`'
)


def execute_all(
    runs: Sequence[Run], setting: Setting, split: Split, jobs: int
) -> list[tuple[Run, BaseException]]:
    """Execute the runs that are not there yet, with their progress on stderr.

    Those that were begun without an end of an epoch come last: the system may have killed the
    comparison for what they need.

    Args:
        runs: all of them; the split was loaded by the config of the first one's arm.
        jobs: runs at a time.

    Returns:
        The runs that have failed, and why.
    """
    todo = [run for run in runs if not run.done]
    todo.sort(key=lambda run: run.begun and run.last_checkpoint is None)
    failed, total = [], len(runs)
    done = total - len(todo)
    if done:
        print(f"{done} of {total} runs are there already", file=sys.stderr)
    bar = tqdm(desc="runs", total=total, initial=done, disable=None, dynamic_ncols=True)
    if jobs == 1:
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
        with worker_pool(jobs, _start_worker, split.fingerprint, first) as pool:
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


_worker: dict[str, Any] = {}  # in a worker process: how the split is loaded, and the split


def _start_worker(fingerprint: str, first: Arm) -> None:
    quiet()
    _worker.update(fingerprint=fingerprint, first=first)


def _work(run: Run, setting: Setting, threads: int) -> None:
    if "split" not in _worker:
        split = Split.load(setting.config(_worker["first"]))
        if split.fingerprint != _worker["fingerprint"]:
            raise DataError("the data set has changed since the comparison began")
        _worker["split"] = split
    execute(run, setting, _worker["split"], threads, show_progress=False)
