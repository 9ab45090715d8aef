"""Worker processes that end with the process that started them."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import pickle
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.parallel.lifetime import end_with_parent, ended_on_error

CLUSTER = "cluster"  # the option whose value is no number of processes


def _remedy(name: str, option: str) -> str:
    many = "On a cluster" if option == CLUSTER else f"With {option} above 1"
    more = ", which the workers can import, too" if option == CLUSTER else f"; or use {option} = 1"
    return (
        f"{many} each process imports it anew: put the class in a file, such as my_model.py, and "
        f"write `from my_model import {name}`{more}"
    )


def check_importable(classes: Iterable[Any], jobs: int, option: str = "jobs") -> None:
    """See that worker processes can import classes, before any is started.

    Args:
        classes: others than classes are passed over.
        jobs: how many processes there are; one alone imports nothing.
        option: the name of that number, for the message; or ``CLUSTER``.

    Raises:
        ConfigError: a class is defined in a notebook, in an interactive session, or in a function.
    """
    main = sys.modules["__main__"]
    a_file = Path(getattr(main, "__file__", "")).is_file() or getattr(main, "__spec__", None)
    for one in classes:
        if (jobs == 1 and option != CLUSTER) or not isinstance(one, type):
            continue
        if one.__module__ == "__main__" and not a_file:
            where = "in a notebook or an interactive session"
        elif "<locals>" in one.__qualname__:
            where = "in a function"
        else:
            continue
        raise ConfigError(
            f"class {one.__qualname__} is defined {where}. {_remedy(one.__name__, option)}"
        )


@dataclasses.dataclass(frozen=True)
class Start:
    """What a worker process calls before its first task.

    Attributes:
        function, arguments: it is called once for each key, at most.
        key: of those who hand out the tasks; a process may work for several, one after another.
    """

    function: Callable[..., None]
    arguments: tuple
    key: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self) -> None:
        global _started
        if _started != self.key:
            self.function(*self.arguments)
            _started = self.key


_started = ""  # in a worker process: the key of what it has called


def pack(start: Start | None, function: Callable[..., Any], arguments: tuple) -> bytes:
    """A task, as :func:`unpack` reads it in a worker process."""
    return pickle.dumps((start, function, arguments))


def unpack(packed: bytes, option: str = "jobs") -> tuple[Start | None, Callable[..., Any], tuple]:
    """What :func:`pack` has packed.

    Raises:
        ConfigError: a class of it cannot be imported here.
    """
    try:
        return pickle.loads(packed)
    except (AttributeError, ImportError) as error:
        raise ConfigError(
            f"a process cannot import what it is given ({error}). {_remedy('it', option)}"
        ) from None


@dataclasses.dataclass(frozen=True)
class Workers:
    """Processes that unpack their tasks themselves: what one lacks is an error, not its end."""

    pool: ProcessPoolExecutor
    start: Start | None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """As that of an executor."""
        return self.pool.submit(_call, pack(self.start, function, arguments))


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
                yield Workers(pool, Start(start, arguments) if start else None)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        pool.shutdown(cancel_futures=True)


def _call(packed: bytes) -> Any:
    """A task in a worker process."""
    start, function, arguments = unpack(packed)
    if start is not None:
        start()
    return function(*arguments)
