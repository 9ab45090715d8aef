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
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recbole_sigrec.data.encoder_files import encoder_path, refuse_other, write_encoder
from recbole_sigrec.display.progress import progress
from recbole_sigrec.encode.sources import ImageFolder, ItemTable, Values
from recbole_sigrec.errors import DataError
from recbole_sigrec.files import locked, write_json

PROGRESS = "progress.json"  # in the folder of a file that is being written
_ROWS = "rows.npy"  # the matrix, there too

_READ = 4096  # rows whose checksum is taken at a time

Source = Values | ItemTable | ImageFolder

Encode = Callable[[list], tuple[np.ndarray, Counter]]
"""Values → float [n, d], with a zero row for a missing one, and how many are missing for what."""


def encode_rows(
    source: Source,
    encode: Encode,
    size: int,
    out: Path,
    inputs: str,
    encoder: bytes | None = None,
) -> Counter:
    """Encode a source into ``out``, a float16 matrix of one row per value.

    It grows in the folder ``.<name>.part``, of its full size from the start, through a memory map
    that is opened anew for each block, so that memory does not grow with the rows; a file there
    says how many are done, of which inputs, and their checksum. At the end
    ``<modality>_ids.txt`` (where the source has ids), ``<modality>_encoder.safetensors`` (where the
    encoder can be saved), then the matrix get their own names, and the folder is removed. A run
    with the same inputs goes on where another was killed; one with other inputs, or where that
    folder was damaged or made by an earlier version, starts again.

    Args:
        source: see :mod:`recbole_sigrec.encode.sources`; at least one value.
        encode: see :data:`Encode`.
        size: values that are encoded at a time.
        out: the ``.npy`` file; must not exist.
        inputs: what the rows depend on beside the source and ``encoder``.
        encoder: the content of the encoder's file, see :mod:`recbole_sigrec.data.encoder_files`;
            None: it is not saved.

    Returns:
        Why values are missing → how many.

    Raises:
        DataError: ``out``, other ids or another encoder exist, another process writes it, there is
            no space for it, or a value does not fit into float16.
    """
    key = hashlib.blake2b(f"{source.digest()} {inputs}".encode(), digest_size=16)
    ids_path = check_absent(out, source)
    if encoder is not None:
        key.update(encoder)
        refuse_other(encoder_path(out), encoder)
    inputs = key.hexdigest()
    part = _part(out)
    rows, ids = part / _ROWS, part / "ids.txt"
    with _write_errors(out):
        part.mkdir(exist_ok=True)
    busy = DataError(f"{out} is being written by another process")
    with locked(part / "lock", busy), _write_errors(out):
        done, missing, checksum = _progress(part, inputs, len(source))
        if not done:  # what another run has left is no progress of this one
            (part / PROGRESS).unlink(missing_ok=True)
        with progress(out.name, unit="items", total=len(source), initial=done) as bar:
            for block in source.blocks(size, done):
                found, why = encode(block)
                if done == 0:
                    _allocate(rows, (len(source), found.shape[1]))
                checksum = zlib.crc32(_write(rows, done, found, out), checksum)
                done, missing = done + len(block), missing + why
                state = {"inputs": inputs, "done": done, "missing": missing, "checksum": checksum}
                write_json({**state, "seal": _seal(state)}, part / PROGRESS)
                bar.update(len(block))
        tokens = source.ids()
        if tokens is not None:
            with open(ids, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{token}\n" for token in tokens)
            os.replace(ids, ids_path)
        if encoder is not None:
            write_encoder(encoder_path(out), encoder)
        os.replace(rows, out)
        _remove_finished(out)
    if missing.total() == len(source):
        logging.getLogger().warning(f"{out}: all {len(source)} items are missing, all rows zero")
    return missing


def check_absent(out: Path, source: Source) -> Path:
    """See that nothing of the user's would be overwritten.

    Returns:
        The file of the ids.

    Raises:
        DataError: ``out`` exists, or an ids file with other ids than the source's.
    """
    if out.exists():
        _remove_finished(out)
        raise DataError(f"{out} exists; move it away, or name another file with --out")
    ids_path = out.with_name(f"{out.stem.removesuffix('_feat')}_ids.txt")
    tokens = source.ids()
    if tokens is None or not ids_path.exists():
        return ids_path
    with open(ids_path, encoding="utf-8", errors="replace") as file:
        lines = (line.rstrip("\n") for line in file)
        if any(a != b for a, b in itertools.zip_longest(lines, tokens)):
            raise DataError(f"{ids_path} exists, with other items; move it away")
    return ids_path


def _part(out: Path) -> Path:
    """The folder of a file that is being written."""
    return out.with_name(f".{out.name}.part")


def _remove_finished(out: Path) -> None:
    """Remove that folder once the matrix has left it; a run may have been killed before it did."""
    if not (_part(out) / _ROWS).exists():
        shutil.rmtree(_part(out), ignore_errors=True)


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


def _progress(part: Path, inputs: str, n_rows: int) -> tuple[int, Counter, int]:
    """The rows done by a run with the same inputs, what it found missing, and their checksum.

    Nothing is done where the files are not as that run wrote them.

    Cost: the rows that are done are read once.
    """
    nothing = 0, Counter(), 0
    try:
        state = json.loads((part / PROGRESS).read_text("utf-8"))
        if state["inputs"] != inputs:
            return nothing
        if "seal" not in state:
            logging.getLogger().warning(
                f"{part} was made by an earlier version; all rows are encoded anew"
            )
            return nothing
        seal, done, checksum = state.pop("seal"), state["done"], 0
        if seal != _seal(state):
            raise ValueError(f"{PROGRESS} has changed")
        rows = np.load(part / _ROWS, mmap_mode="r", allow_pickle=False)
        if rows.dtype != np.float16 or len(rows) != n_rows or not rows.flags.c_contiguous:
            raise ValueError(f"rows.npy is {rows.dtype} {rows.shape}")
        for start in range(0, done, _READ):
            checksum = zlib.crc32(rows[start : min(start + _READ, done)].tobytes(), checksum)
        if checksum != state["checksum"]:
            raise ValueError("rows.npy has changed")
        return done, Counter(state["missing"]), checksum
    except FileNotFoundError:
        return nothing
    except Exception as error:  # NumPy and JSON raise many kinds
        logging.getLogger().warning(f"{part} is damaged ({error}); all rows are encoded anew")
        return nothing


def _seal(state: dict[str, Any]) -> int:
    """A checksum of what the file of the progress says."""
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


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


def _write(path: Path, start: int, rows: np.ndarray, out: Path) -> bytes:
    """Put rows into the matrix, on the disk when this returns; they are returned as float16."""
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float16)
    if not np.isfinite(rows).all():
        raise DataError(f"{out}: the encoder gave values that are not finite in float16")
    matrix = np.lib.format.open_memmap(path, mode="r+")
    matrix[start : start + len(rows)] = rows
    matrix.flush()
    return rows.tobytes()
