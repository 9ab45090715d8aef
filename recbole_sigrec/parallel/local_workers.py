"""Dask workers on this machine, each a process that is begun anew where it is killed.

Dask's own ``LocalCluster`` loses a worker that is killed while it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dask.config
from distributed import LocalCluster, Security, Worker

from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.parallel.lifetime import end_others, end_with_parent

_LOOK = 0.2  # seconds between two looks at which workers are there

_LOCALHOST = "127.0.0.1"


def security() -> Security:
    """The certificates of Dask's configuration, or new ones that end with this process.

    Whoever can connect to a scheduler can run code as its user: on a machine with other users,
    and in a network, each connection is encrypted and authenticated.
    """
    if dask.config.get("distributed.comm.tls.ca-file", None):
        return Security(require_encryption=True)
    return Security.temporary()


@contextlib.contextmanager
def local_workers(n: int, scratch: Path) -> Iterator[Any]:
    """A scheduler in this process, and workers beside it, for the time of a ``with`` block.

    They end with this process, whatever ends it, and at once if the block is left by an exception.

    Args:
        n: how many workers.
        scratch: a folder for their temporary files; it is removed, also before.

    Raises:
        SIGRecError: a worker cannot start.
    """
    others = multiprocessing.active_children()
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    safe = security()
    try:
        with dask.config.set({"temporary-directory": str(scratch.absolute())}):
            made: Any = LocalCluster(
                n_workers=0,
                host=_LOCALHOST,
                dashboard_address=f"{_LOCALHOST}:0",
                security=safe,
                silence_logs=logging.CRITICAL,
            )
        with made as cluster:
            given = cluster.scheduler_address, safe, str(scratch.absolute())
            with _kept_alive(n, given, cluster):
                yield cluster
    finally:
        end_others(others)
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _kept_alive(n: int, given: tuple, cluster: Any) -> Iterator[None]:
    """Workers of which each is begun anew when it ends; they end with the block.

    Raises:
        SIGRecError: one has ended by itself before all were there.
    """
    stop, failed = threading.Event(), threading.Event()
    alive = [_begin(given) for _ in range(n)]

    def watch() -> None:
        while not stop.is_set():
            wait([process.sentinel for process in alive], _LOOK)
            for place, process in enumerate(alive):
                if not process.is_alive() and not stop.is_set():
                    if (process.exitcode or 0) > 0:
                        failed.set()
                        stop.wait(1)
                    alive[place] = _begin(given)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        while len(cluster.scheduler.workers) < n:
            if failed.wait(_LOOK):
                raise SIGRecError(
                    "a worker of this machine could not start, as in a script without "
                    '`if __name__ == "__main__":`'
                )
        yield
    finally:
        stop.set()
        watcher.join()
        for process in alive:
            process.terminate()


def _begin(given: tuple) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_work, args=given)
    process.start()
    return process


def _work(address: str, safe: Security, scratch: str) -> None:
    """A worker process: one task at a time, and no limit of memory."""
    end_with_parent()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)

    async def serve() -> None:
        settings: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "dashboard": False}
        async with Worker(address, security=safe, local_directory=scratch, **settings) as worker:
            await worker.finished()

    asyncio.run(serve())
