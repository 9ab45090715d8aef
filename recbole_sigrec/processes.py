"""Long work in a folder: one command at a time, and worker processes that end with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Thread

from filelock import FileLock, Timeout

from recbole_sigrec.errors import ConfigError


@contextlib.contextmanager
def alone_in(folder: Path):
    """Hold the folder's lock; the operating system drops it when this process ends.

    Raises:
        ConfigError: another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another command is at work in [{folder}]; name another") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def worker_pool(
    jobs: int, start: Callable | None = None, *arguments
) -> Iterator[ProcessPoolExecutor]:
    """New processes (neither CUDA nor OpenMP survives a fork) for the time of a ``with`` block.

    They end if this process is killed, and at once if the block is left by an exception, such as
    that of Ctrl-C: the pool by itself would begin what is queued, and wait for it.

    Args:
        start: what each calls first, with ``arguments``.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _start, (start, arguments))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start(start: Callable | None, arguments: tuple) -> None:
    parent = multiprocessing.parent_process()
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if start is not None:
        start(*arguments)
