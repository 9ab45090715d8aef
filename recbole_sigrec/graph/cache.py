"""Graphs kept on disk, under a hash of all that they are made of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from filelock import FileLock, Timeout

from recbole_sigrec.display.progress import working
from recbole_sigrec.files import written_whole

FORMAT = 2
"""Version of the files and of the graphs' construction; one more wherever either changes."""

_PARTS = ("data", "indices", "indptr", "shape")  # of a graph in a file

_BLOCK = 2**24  # bytes hashed at a time


def cached_graph(
    folder: str | Path | None,
    kind: str,
    arrays: Mapping[str, Any],
    parameters: Mapping[str, Any],
    build: Callable[[], sp.csr_matrix],
) -> sp.csr_matrix:
    """A graph from the cache, or built and put there.

    The file's name holds a hash of the arrays (bytes, shape, type), the parameters, the kind and
    ``FORMAT``; the file holds one of the graph. It is written under another name and renamed, so
    that a killed run leaves no half file. Of two processes that want the same graph one builds it
    and the other waits; the system drops a process's lock when it ends, so a lock file that is left
    over is harmless. A file that cannot be read or was changed is built again, with a warning; the
    folder may be deleted at any time.

    Args:
        folder: where the graphs are kept; ``None``: nowhere.
        kind: the file name's first part, e.g. ``semantic``.
        arrays: name → tensor, NumPy array (memory-mapped, too), SciPy matrix or ``None``.
        parameters: name → number, string, bool or ``None``.
        build: makes the graph.

    Returns:
        float32 CSR [n, n].

    Cost: about 1 s for each GB of arrays.
    """
    log = logging.getLogger()
    if folder is None:
        return _timed(kind, build)
    path = Path(folder) / f"{kind}-{graph_key(kind, arrays, parameters)}.npz"
    with _locked(path):
        graph = _read(path)
        if graph is not None:
            log.info(f"graph {kind} read from cache {path}")
            return graph
        graph = _timed(kind, build)
        try:
            with written_whole(path) as file:
                parts = {part: getattr(graph, part) for part in _PARTS}
                np.savez(file, hash=_hash(path, graph), **parts)
        except OSError as error:
            log.warning(f"graph cache {path} cannot be written ({error.strerror or error})")
    return graph


def graph_key(kind: str, arrays: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """The hash of a graph's inputs, 32 hexadecimal digits."""
    key = hashlib.blake2b(digest_size=16)
    key.update(json.dumps([FORMAT, kind, dict(parameters)], sort_keys=True).encode())
    for name in sorted(arrays):
        _add(key, name, arrays[name])
    return key.hexdigest()


def _hash(path: Path, graph: sp.csr_matrix) -> str:
    """The hash of a graph, and of the name of its file: no other graph can take its place."""
    return graph_key(path.stem, {"graph": graph}, {})


def _add(key: Any, name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    elif sp.issparse(value):
        value = sp.csr_matrix(value)
        for part in ("indptr", "indices", "data"):
            _add(key, f"{name}.{part}", getattr(value, part))
        value = np.array(value.shape)
    if value is None:
        key.update(f"{name} none".encode())
        return
    key.update(f"{name} {value.dtype.str} {value.shape}".encode())
    rows = max(1, _BLOCK // max(1, value[:1].nbytes))
    for start in range(0, len(value), rows):
        key.update(np.ascontiguousarray(value[start : start + rows]))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a cache file; where the folder cannot be written, go on without."""
    log, lock = logging.getLogger(), FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info(f"waiting for another process, which is at {path}")
            lock.acquire()
    except (OSError, NotImplementedError) as error:  # a file system may know no locks
        log.warning(f"graph cache {path} cannot be locked ({error})")
    try:
        yield
    finally:
        lock.release()


def _timed(kind: str, build: Callable[[], sp.csr_matrix]) -> sp.csr_matrix:
    start = time.perf_counter()
    with working(f"{kind} graph"):
        graph = build()
    logging.getLogger().info(f"graph {kind} built in {time.perf_counter() - start:.1f} s")
    return graph


def _read(path: Path) -> sp.csr_matrix | None:
    """The graph in a file; ``None`` if there is none, or none that can be read."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = [file[part] for part in _PARTS]
            written = str(file["hash"])
        graph = sp.csr_matrix(tuple(parts[:3]), shape=tuple(parts[3]))
        graph.check_format()
        n, m = graph.get_shape()
        if graph.dtype != np.float32 or n != m:
            raise ValueError(f"{graph.dtype} [{n}, {m}] is no item graph")
        if written != _hash(path, graph):
            raise ValueError("it was changed after it was written")
        return graph
    except Exception as error:  # numpy, zipfile and scipy raise many kinds
        logging.getLogger().warning(f"graph cache {path} is damaged ({error}); built again")
        return None
