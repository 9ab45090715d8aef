"""A feature file that is written block by block, and that a killed run goes on with."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from recbole_sigrec.errors import DataError

PROGRESS = "progress.json"  # in the folder of a file that is being written

Encode = Callable[[list], tuple[np.ndarray, Counter]]
"""Values → float [n, d], with a zero row for a missing one, and how many are missing for what."""


def encode_rows(source, encode: Encode, size: int, out: Path, inputs: str) -> Counter:
    """Encode a source into ``out``, a float16 matrix of one row per value.

    It grows in the folder ``.<name>.part``, of its full size from the start, through a memory map
    that is opened anew for each block, so that memory does not grow with the rows; a file there
    says how many are done, and of which inputs. At the end ``<modality>_ids.txt`` (where the
    source has ids), then the matrix get their own names, and the folder is removed. A run with the
    same inputs goes on where another was killed; one with other inputs starts again.

    Args:
        source: see :mod:`recbole_sigrec.encode.sources`; at least one value.
        encode: see :data:`Encode`.
        size: values that are encoded at a time.
        out: the ``.npy`` file; must not exist.
        inputs: what the rows depend on beside the source, e.g. the encoder.

    Returns:
        Why values are missing → how many.

    Raises:
        DataError: ``out`` or other ids exist, another process writes it, there is no space for it,
            or a value does not fit into float16.
    """
    inputs = hashlib.blake2b(f"{source.digest()} {inputs}".encode(), digest_size=16).hexdigest()
    ids_path = check_absent(out, source)
    part = out.with_name(f".{out.name}.part")
    rows, ids = part / "rows.npy", part / "ids.txt"
    with _write_errors(out):
        part.mkdir(exist_ok=True)
    with _alone(out, part / "lock"), _write_errors(out):
        done, missing = _progress(part, inputs)
        if not done or not rows.exists():  # what another run has left is no progress of this one
            done, missing = 0, Counter()
            (part / PROGRESS).unlink(missing_ok=True)
        with tqdm(
            total=len(source), initial=done, desc=out.name, unit=" items", disable=None
        ) as bar:
            for block in source.blocks(size, done):
                found, why = encode(block)
                if done == 0:
                    _allocate(rows, (len(source), found.shape[1]))
                _write(rows, done, found, out)
                done, missing = done + len(block), missing + why
                _replace_json({"inputs": inputs, "done": done, "missing": missing}, part)
                bar.update(len(block))
        if source.ids() is not None:
            with open(ids, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{token}\n" for token in source.ids())
            os.replace(ids, ids_path)
        os.replace(rows, out)
        shutil.rmtree(part)
    if missing.total() == len(source):
        logging.getLogger().warning(f"{out}: all {len(source)} items are missing, all rows zero")
    return missing


def check_absent(out: Path, source) -> Path:
    """See that nothing of the user's would be overwritten.

    Returns:
        The file of the ids.

    Raises:
        DataError: ``out`` exists, or an ids file with other ids than the source's.
    """
    if out.exists():
        raise DataError(f"{out} exists; move it away, or name another file with --out")
    ids_path = out.with_name(f"{out.stem.removesuffix('_feat')}_ids.txt")
    if source.ids() is None or not ids_path.exists():
        return ids_path
    with open(ids_path, encoding="utf-8", errors="replace") as file:
        lines = (line.rstrip("\n") for line in file)
        if any(a != b for a, b in itertools.zip_longest(lines, source.ids())):
            raise DataError(f"{ids_path} exists, with other items; move it away")
    return ids_path


@contextlib.contextmanager
def _alone(out: Path, path: Path):
    """Hold the lock of a file that two processes must not write at once."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(f"{out} is being written by another process") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _write_errors(out: Path):
    """A full disk, or a folder that cannot be written, as errors of ours; what is done is kept."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror}; name another file with --out"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DataError(
            f"{out} cannot be written: {error.strerror}; make space and run the command again, "
            f"which goes on where it stopped"
        ) from None


def _progress(part: Path, inputs: str) -> tuple[int, Counter]:
    """The rows done by a run with the same inputs, and what it found missing."""
    try:
        state = json.loads((part / PROGRESS).read_text("utf-8"))
    except FileNotFoundError:
        return 0, Counter()
    return (
        (state["done"], Counter(state["missing"])) if state["inputs"] == inputs else (0, Counter())
    )


def _allocate(path: Path, shape: tuple[int, int]) -> None:
    """A float16 ``.npy`` file of that shape, with its space reserved.

    Writing through a memory map to a file without space on the disk would kill the process.
    """
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    size = matrix.offset + matrix.nbytes
    del matrix
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def _write(path: Path, start: int, rows: np.ndarray, out: Path) -> None:
    """Put rows into the matrix, on the disk when this returns."""
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float16)
    if not np.isfinite(rows).all():
        raise DataError(f"{out}: the encoder gave values that are not finite in float16")
    matrix = np.lib.format.open_memmap(path, mode="r+")
    matrix[start : start + len(rows)] = rows
    matrix.flush()


def _replace_json(value: dict, part: Path) -> None:
    temporary = part / "progress.tmp"
    temporary.write_text(json.dumps(value), encoding="utf-8")
    os.replace(temporary, part / PROGRESS)
