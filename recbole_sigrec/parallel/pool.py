"""Worker processes that end with the process that started them."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.parallel.lifetime import end_with_parent, ended_on_error

_REMEDY = (
    "With {option} above 1 each process imports it anew: put the class in a file, such as "
    "my_model.py, and write `from my_model import {name}`; or use {option} = 1"
)


def check_importable(classes: Iterable[Any], jobs: int, option: str = "jobs") -> None:
    """See that worker processes can import classes, before any is started.

    Args:
        classes: others than classes are passed over.
        jobs: how many processes there are; one alone imports nothing.
        option: the name of that number, for the message.

    Raises:
        ConfigError: a class is defined in a notebook, in an interactive session, or in a function.
    """
    main = sys.modules["__main__"]
    a_file = Path(getattr(main, "__file__", "")).is_file() or getattr(main, "__spec__", None)
    for one in classes:
        if jobs == 1 or not isinstance(one, type):
            continue
        if one.__module__ == "__main__" and not a_file:
            where = "in a notebook or an interactive session"
        elif "<locals>" in one.__qualname__:
            where = "in a function"
        else:
            continue
        remedy = _REMEDY.format(name=one.__name__, option=option)
        raise ConfigError(f"class {one.__qualname__} is defined {where}. {remedy}")


@dataclasses.dataclass(frozen=True)
class Workers:
    """Processes that unpack their tasks themselves: what one lacks is an error, not its end."""

    pool: ProcessPoolExecutor
    start: tuple[Callable[..., None], tuple] | None  # what each calls first, and its arguments

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """As that of an executor."""
        return self.pool.submit(_call, pickle.dumps((self.start, function, arguments)))


@contextlib.contextmanager
def worker_pool(
    jobs: int, start: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[Workers]:
    """New processes (neither CUDA nor OpenMP survives a fork) for the time of a ``with`` block.

    They end if this process is killed, and at once if the block is left by an exception, such as
    that of Ctrl-C: the pool by itself would begin what is queued, and wait for it.

    Args:
        start: what each calls first, with ``arguments``.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, end_with_parent)
    try:
        with ended_on_error():
            try:
                yield Workers(pool, (start, arguments) if start else None)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        pool.shutdown(cancel_futures=True)


_started = False  # in a worker process: whether it has called what it calls first


def _call(packed: bytes) -> Any:
    """A task in a worker process.

    Raises:
        ConfigError: a class of it cannot be imported here.
    """
    global _started
    try:
        start, function, arguments = pickle.loads(packed)
    except (AttributeError, ImportError) as error:
        raise ConfigError(
            f"a process cannot import what it is given ({error}). "
            f"{_REMEDY.format(name='it', option='jobs')}"
        ) from None
    if start and not _started:
        start[0](*start[1])
        _started = True
    return function(*arguments)
