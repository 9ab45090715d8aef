"""The allocator keeps what a step frees, and gives it back at the end."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from recbole_sigrec.kernels import allocator
from recbole_sigrec.training.machine import machine_settings

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")

STEPS = """
import contextlib, resource, sys
import torch
from recbole_sigrec.kernels.allocator import kept_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

start = resident()
with kept_memory() if sys.argv[1] == "kept" else contextlib.nullcontext():
    for _ in range(20):
        torch.ones(3 * 2**22)  # 48 MiB, above what glibc keeps by itself
    before = faults()
    torch.ones(3 * 2**22)
    made, held = faults() - before, resident() - start
print(made, held, resident() - start)
"""


def measured(how):
    """In a process of its own: the page faults of a step that makes a tensor of 48 MiB, and the
    MiB that are held when it has been freed, and at the end."""
    command = [sys.executable, "-c", STEPS, how]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(value) for value in shown.split()]


@glibc
def test_what_is_freed_is_kept_till_the_end():
    pages = 3 * 2**24 // resource.getpagesize()
    faults, held, left = measured("plain")
    assert faults > 0.9 * pages and held < 30 and left < 30
    faults, held, left = measured("kept")
    assert faults < 0.1 * pages and held > 40 and left < 30


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    with allocator.kept_memory():
        pass


@glibc
@pytest.mark.parametrize("old", [False, True])
def test_a_run_keeps_memory(monkeypatch, old):
    """An old glibc takes a threshold of 32 MiB, and refuses 64."""
    calls = []

    class Library:
        def mallopt(self, *given):
            calls.append(given)
            return not (old and given[1] == 2**26 and given[0] == allocator._M_MMAP_THRESHOLD)

        def malloc_trim(self, pad):
            calls.append(pad)

    monkeypatch.setattr(allocator, "_glibc", Library)
    with machine_settings(1):
        assert dict(calls) == {
            allocator._M_MMAP_THRESHOLD: 2**25 if old else 2**26,
            allocator._M_TRIM_THRESHOLD: 2**31 - 1,
        }
    assert dict(calls[2 + old : -1]) == allocator._USUAL
    assert calls[-1] == 0
