"""The C library's memory allocator, told to keep what is freed for what is made next."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_USUAL = {_M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26}  # as high as glibc itself raises them
_KEPT = 2**26  # bytes of the largest block that is kept


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """For the time of a run: freed blocks of up to 64 MiB stay with the process (up to 2 GiB).

    glibc before 2.35 keeps those of up to 32 MiB.

    A training step frees its tensors and the next makes them again. glibc gives large blocks back
    to the system in between, which then clears and maps each of their pages anew: a fifth to a
    third of the time of a step on a CPU. At the end what is free is given back. Larger blocks, and
    C libraries other than glibc, are left as they are.

    Memory: glibc before 2.38 does not always find an aligned block again, so that what is held can
    be a few times the largest of these blocks.

    Source: our choice; see mallopt(3).
    """
    library = _glibc()
    if library is None:
        yield
        return
    try:
        if not library.mallopt(_M_MMAP_THRESHOLD, _KEPT):  # before 2.35 it takes 32 MiB at most
            library.mallopt(_M_MMAP_THRESHOLD, _USUAL[_M_MMAP_THRESHOLD])
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        yield
    finally:
        for parameter, value in _USUAL.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The process's C library if it is glibc, else None."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
