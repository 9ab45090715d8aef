"""Processes that end with the process that started them, however it ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from threading import RLock, Thread, current_thread, main_thread

from tqdm import tqdm

_SECONDS = 5  # in which a process ends after it was asked to


def end_with_parent() -> None:
    """Called in a new process: it ends when its parent has, even if that was killed.

    Ctrl-C, which a terminal sends to all processes, is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm's own lock is a semaphore of the system's, which a killed process leaves behind.
    tqdm.set_lock(RLock())
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def ended_on_error() -> Iterator[None]:
    """If an exception leaves the block, the new processes that were started in it end at once.

    Such as that of Ctrl-C.
    """
    others = multiprocessing.active_children()
    try:
        yield
    except BaseException:
        end_others(others)
        raise


def end_others(but: Iterable[BaseProcess]) -> None:
    """End the processes that this one has started, but some, at once."""
    new = [child for child in multiprocessing.active_children() if child not in but]
    for process in new:
        process.terminate()
    for process in new:
        process.join(_SECONDS)
        process.kill()


@contextlib.contextmanager
def kept_ctrl_c() -> Iterator[None]:
    """After the block, Ctrl-C does what it did before.

    When dask-jobqueue is imported, it makes Ctrl-C end a process as if nothing were wrong.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) != before:
            signal.signal(signal.SIGINT, before)


class _Terminated(BaseException):
    """SIGTERM has come."""


@contextlib.contextmanager
def left_on_sigterm() -> Iterator[None]:
    """SIGTERM leaves the block by an exception, as Ctrl-C does, and then ends this process.

    Only in the main thread, which alone hears of signals.
    """
    if current_thread() is not main_thread():
        yield
        return

    def leave(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, before)
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
