"""What tests give to the workers of a cluster: importable by name, in whatever process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
from recbole.model.general_recommender import BPR

from recbole_sigrec.errors import ConfigError, DataError


def begin(fails: bool = False) -> None:
    if fails:
        raise DataError("there is no data here")


def note(folder: str, name: object) -> None:
    """Leave a file that says which process has done a task, and where."""
    (Path(folder) / f"{name}.{os.getpid()}").write_text(os.getcwd(), "utf-8")


def die(folder: str, name: object, times: int) -> None:
    """A bad task kills its process, until that was done often enough; then as :func:`note`."""
    if name == "bad" and len(list(Path(folder).glob(f"died-{name}.*"))) < times:
        note(folder, f"died-{name}")
        os.kill(os.getpid(), signal.SIGKILL)
    note(folder, name)


def refuse(folder: str, name: object) -> None:
    raise ConfigError(f"task {name} cannot be done")


def wait_for_ever(folder: str, name: object) -> None:
    note(folder, name)
    time.sleep(600)


class Refusing(BPR):
    """A model that a user has set up wrongly, with the seed 1."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        if config["seed"] == 1:
            raise ConfigError("config key [mine] = [1]: give 2")


@contextlib.contextmanager
def killer(moments: int, seed: int, begun: Callable[[], bool]) -> Iterator[list[int]]:
    """Kill a worker of this process at random moments while the block runs.

    Args:
        moments: how many.
        begun: whether the first may come.

    Yields:
        The processes that were killed; filled as the block goes on.
    """
    random, stop, killed = Random(seed), threading.Event(), []

    def kill() -> None:
        while not begun():
            if stop.wait(0.01):
                return
        while len(killed) < moments and not stop.wait(random.uniform(0, 0.4 if not killed else 5)):
            workers = sorted(worker_pids())
            if workers:
                victim = random.choice(workers)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def worker_pids() -> set[int]:
    """Of the processes that this one has started by ``spawn``."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any("spawn_main" in part for part in child.cmdline()):
                found.add(child.pid)
    return found
