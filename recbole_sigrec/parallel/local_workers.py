"""Dask workers on this machine, each a process that is begun anew where it is killed.

Dask's own ``LocalCluster`` loses a worker that is killed while it starts, and may fail when it is
closed after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dask.config
from distributed import Scheduler, Security, Worker

from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.parallel.lifetime import end_others, end_with_parent

_LOOK = 0.1  # seconds between two looks at which workers are there

_SECONDS = 5  # in which a scheduler closes

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
def local_workers(n: int, scratch: Path) -> Iterator[tuple[str, Security]]:
    """A scheduler in this process, and workers beside it, for the time of a ``with`` block.

    They end with this process, whatever ends it, and at once if the block is left by an exception.

    Args:
        n: how many workers.
        scratch: a folder for their temporary files; it is removed, also before.

    Yields:
        The scheduler's address, and what a client needs to be let in.

    Raises:
        SIGRecError: a worker cannot start.
    """
    others = multiprocessing.active_children()
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    safe = security()
    try:
        with _scheduler(safe, str(scratch.absolute())) as scheduler:
            with _kept_alive(n, (scheduler.address, safe, str(scratch.absolute())), scheduler):
                yield scheduler.address, safe
    finally:
        end_others(others)
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _scheduler(safe: Security, scratch: str) -> Iterator[Scheduler]:
    """A scheduler in a thread of its own, silent, seen from this machine alone."""
    started: Future[tuple[Scheduler, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        try:
            with dask.config.set({"temporary-directory": scratch}):
                scheduler = await Scheduler(
                    host=_LOCALHOST, dashboard_address=f"{_LOCALHOST}:0", security=safe
                )
        except BaseException as error:
            started.set_exception(error)
            raise
        started.set_result((scheduler, asyncio.get_running_loop(), stop))
        await stop.wait()
        await scheduler.close()

    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL)
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        scheduler, loop, stop = started.result()
        try:
            yield scheduler
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(_SECONDS)
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def _kept_alive(n: int, given: tuple, scheduler: Scheduler) -> Iterator[None]:
    """Workers of which each is begun anew when it ends; they end with the block.

    Raises:
        SIGRecError: one has ended by itself before all were there.
    """
    stop, failed = threading.Event(), threading.Event()
    alive = [_begin(given) for _ in range(n)]

    def watch() -> None:
        while not stop.wait(_LOOK):
            for place, process in enumerate(alive):
                if process.is_alive():
                    continue
                if (process.exitcode or 0) > 0:  # not: killed
                    failed.set()
                    stop.wait(1)
                with contextlib.suppress(BrokenPipeError):  # it was killed as it began
                    alive[place] = _begin(given)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        while len(scheduler.workers) < n:
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
