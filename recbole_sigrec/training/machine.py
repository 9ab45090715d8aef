"""The machine during a run: threads, memory, garbage collection."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch

from recbole_sigrec.kernels.allocator import kept_memory


@contextlib.contextmanager
def machine_settings(threads: int) -> Iterator[None]:
    """For the time of a run: CPU threads, denormal numbers flushed to zero, and kept memory.

    The last is :func:`~recbole_sigrec.kernels.allocator.kept_memory`. Gradients below 1e-38 make a
    CPU step several times slower. What was set before is restored.
    """
    before = torch.get_num_threads()
    kept_denormals = float(np.float64(1e-310) * 1.0) != 0.0
    try:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        with kept_memory():
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(not kept_denormals)


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """For the time of the set-up: without Python's collector of cyclic garbage.

    RecBole makes several sets and tensors for each user, which the collector goes through again and
    again; that is a quarter of the set-up's time with 100,000 users. What was set is restored.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def peak_rss_mb() -> float:
    """The peak of this process's resident memory in MiB.

    Linux tells it without that of the parent process. Where a system tells no peak, this is the
    memory of now.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss) / 2**20  # Windows has peak_wset
