"""Handing out tasks to the workers of a Dask cluster, each to one that is free."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from distributed import Event, Future, KilledWorker
from threadpoolctl import threadpool_info, threadpool_limits

import recbole_sigrec
from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.parallel.pool import CLUSTER, Start, pack, unpack

_POLL = 0.1  # seconds between two looks at what has ended
_LOOK = 1.0  # … and at which workers there are

DEATHS = 6
"""Workers that die at work on one task, without progress between, before it fails."""

T = TypeVar("T")


class WorkerDied(SIGRecError):
    """A worker has ended with a task that it had begun."""


class Deaths:
    """How often workers died at work on each task since it got on."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[object, int]] = {}

    def of(self, task: Hashable, progress: object = None) -> SIGRecError | None:
        """Count a death; an error where there were too many.

        Args:
            progress: where the task is now: another value than at the last death begins anew.
        """
        before, n = self._known.get(task, (progress, 0))
        n = n + 1 if before == progress else 1
        self._known[task] = progress, n
        if n < DEATHS:
            return None
        return SIGRecError(
            f"{n} workers died at work on it, without the end of an epoch: killed, as a system "
            f"does without memory, or lost"
        )


class UnfitWorker(SIGRecError):
    """A worker that cannot do what it is asked for: other versions, other data, other folders."""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a worker must share with the client, or is given by it.

    Attributes:
        versions: library → version; builds of one version, as for a CPU and for CUDA, are equal.
        folder: the client's working directory, where relative paths begin.
        lock: a file that the client holds in the folder of the results.
        threads: kind of library, as ``blas`` → threads, where PyTorch's do not count.
    """

    versions: dict[str, str]
    folder: str
    lock: str
    threads: dict[str, int]

    @classmethod
    def of_this_process(cls, lock: Path) -> Surroundings:
        threads = {one["user_api"]: one["num_threads"] for one in threadpool_info()}
        return cls(_versions(), os.getcwd(), str(lock), threads)

    def check(self) -> None:
        """See that this process, a worker, has them.

        Raises:
            UnfitWorker: it has not.
        """
        here = f"a worker on {platform.node()}"
        own = _versions()
        for name, version in self.versions.items():
            if own[name] != version:
                raise UnfitWorker(
                    f"{here} has {name} {own[name]}, this process has {version}: install the same "
                    f"version there"
                )
        for path in (self.folder, os.path.join(self.folder, self.lock)):
            if not os.path.exists(path):
                raise UnfitWorker(
                    f"{here} does not see [{path}]: the working directory, data_path and the "
                    f"folder of the results must be on a file system that all workers share, under "
                    f"the same names"
                )

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The client's working directory and threads, for the time of a task."""
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            with threadpool_limits(self.threads):
                yield
        finally:
            os.chdir(before)


def _versions() -> dict[str, str]:
    return {
        "recbole_sigrec": recbole_sigrec.__version__,
        "torch": str(torch.__version__).partition("+")[0],
    }


def hand_out(
    client: Any,
    lock: Path,
    ask: Callable[[], T | None],
    function: Callable[..., None],
    arguments: Callable[[T], tuple],
    start: Start,
    name: Callable[[T], str] = str,
) -> Generator[tuple[T, BaseException | None], None, None]:
    """Give as many tasks as there are workers, until none is left and all have ended.

    A worker does one at a time, and its end is told as that of this task, whatever Dask's
    ``allowed-failures`` are. Workers may come and go; while there is none, this waits.

    Args:
        client: a :class:`distributed.Client` of the cluster.
        lock: a file that this process holds in the folder of the results.
        ask: for the next task; it is asked again after each end, and says None where there is
            none now.
        function: what a worker calls; it must bear to be called again with the same task, where
            Dask has lost that it ended.
        arguments: those of a task; both can be pickled.
        start: what a worker calls before its first task.
        name: of a task, for Dask's dashboard.

    Yields:
        Each task at its end, with its error; a ``WorkerDied`` may be asked for again.

    Raises:
        UnfitWorker: a worker lacks what it needs; before any task, for those that are there.
    """
    needed = Surroundings.of_this_process(lock)
    at_work: dict[Future, T] = {}
    known, looked, more = _Known(client, needed), 0.0, True
    workers: set[str] = set()
    try:
        while True:
            if not looked or time.monotonic() - looked >= _LOOK:
                workers, looked = known.workers(), time.monotonic()
            while more and len(at_work) < len(workers):
                if (task := ask()) is None:
                    more = False
                else:
                    packed = pack(start, function, arguments(task))
                    at_work[_submit(client, name(task), packed, needed)] = task
            if not more and not at_work:
                return
            time.sleep(_POLL)
            for future in [future for future in at_work if future.done()]:
                yield at_work.pop(future), _error(future)
                more = True
    finally:
        _give_up(client, at_work)


def _submit(client: Any, name: str, packed: bytes, needed: Surroundings) -> Future:
    """Not to a certain worker: Dask forgets a task that prefers one that has gone."""
    key = f"{name}-{uuid.uuid4().hex}"
    return client.submit(_work, packed, needed, key, key=key, pure=False)


class _Known:
    """The workers that are there, each checked once."""

    def __init__(self, client: Any, needed: Surroundings):
        self._client, self._needed = client, needed
        self._checked: set[str] = set()

    def workers(self) -> set[str]:
        """Their addresses.

        Raises:
            UnfitWorker: one is not fit.
        """
        workers = set(self._client.nthreads())
        new = workers - self._checked
        if new:
            self._check(new)
        elif not self._checked:
            print("no worker is there yet; waiting for the first", file=sys.stderr)
            self._checked.add("")
        self._checked |= new
        return workers

    def _check(self, workers: set[str]) -> None:
        found = self._client.run(self._needed.check, workers=list(workers), on_error="return")
        for address, error in found.items():
            if isinstance(error, UnfitWorker):
                raise error
            if isinstance(error, Exception) and not isinstance(error, OSError):  # not: it has gone
                raise UnfitWorker(
                    f"worker {address} cannot import recbole_sigrec {recbole_sigrec.__version__} "
                    f"({error}): install that version there"
                )


def _error(future: Any) -> BaseException | None:
    """Why a task has failed.

    Raises:
        SIGRecError: the scheduler has gone, or has lost the task.
        UnfitWorker: see :func:`hand_out`.
    """
    if future.status in ("cancelled", "lost"):
        raise SIGRecError(
            "the cluster's scheduler has gone; the same command goes on, with another"
        )
    error = future.exception() if future.status == "error" else None
    if isinstance(error, UnfitWorker):
        raise error
    return WorkerDied("its worker has ended") if isinstance(error, KilledWorker) else error


def _give_up(client: Any, at_work: dict[Future, Any]) -> None:
    """End tasks that nobody waits for: Dask cannot, but it can begin their workers anew.

    Those of a cluster that this process has started end with it.
    """
    if not at_work or client.cluster is not None:
        return
    keys = {future.key for future in at_work}
    with contextlib.suppress(Exception):  # the cluster may be gone, workers may have no nanny
        busy = [where for where, known in client.processing().items() if keys & set(known)]
        client.cancel(list(at_work))
        client.run(_end, workers=busy, on_error="ignore")


def _end(dask_worker: Any) -> None:
    """End this worker, which its nanny then begins anew."""
    if dask_worker.nanny is not None:
        os._exit(1)


_one_at_a_time = threading.Lock()  # a run sets seeds, threads and logs of the whole process


def _work(packed: bytes, needed: Surroundings, key: str) -> None:
    """A task in a worker.

    Raises:
        WorkerDied: it was begun before, by a worker that has ended.
        UnfitWorker: this worker lacks what it needs.
    """
    with _one_at_a_time:
        needed.check()
        with needed.entered():
            begun = Event(key)
            if begun.is_set():
                raise WorkerDied("its worker has ended")
            begun.set()
            try:
                _begin_and_call(packed)
            finally:
                begun.clear()


def _begin_and_call(packed: bytes) -> None:
    start, function, arguments = unpack(packed, CLUSTER)
    try:
        if start is not None:
            start()
    except SIGRecError as error:
        raise UnfitWorker(f"a worker on {platform.node()}: {error}") from None
    function(*arguments)
