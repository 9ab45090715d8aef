"""Long work in a folder: one command at a time, and worker processes that end with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable
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


def worker_pool(jobs: int, start: Callable | None = None, *arguments) -> ProcessPoolExecutor:
    """New processes (neither CUDA nor OpenMP survives a fork), which end if this one is killed.

    Args:
        start: what each calls first, with ``arguments``.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, _start, (start, arguments))


def _start(start: Callable | None, arguments: tuple) -> None:
    parent = multiprocessing.parent_process()
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if start is not None:
        start(*arguments)
