"""Writing a data-set folder in MMRec's layout: whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from recbole_sigrec.data.features import check_name
from recbole_sigrec.data.pairs import Pairs
from recbole_sigrec.data.split import Batches
from recbole_sigrec.errors import DataError, some

Blocks = Iterable[tuple[Sequence[str], np.ndarray]]
"""Feature rows as they are read: the item tokens [b] of some rows, and the rows [b, d]."""

_BYTES = 2**20  # bytes hashed at a time


@contextlib.contextmanager
def new_folder(out: str | Path, name: str) -> Iterator[Path]:
    """A folder to write the data set ``<out>/<name>/`` in, which gets that name at the end.

    Until then it is ``<out>/.<name>.part``: after an error it is removed, and after a kill the next
    run removes it, so that ``<out>/<name>`` is there only if it is whole.

    Raises:
        DataError: there is such a data set (it is never overwritten), another process is writing
            it, the name is no folder's, or what is written does not fit on the disk.
    """
    out = Path(out)
    if name != Path(name).name or name.startswith(".") or not name.isprintable():
        raise DataError(f"[{name}] cannot name a data set; give it a plain folder name")
    final, part = out / name, out / f".{name}.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / f".{name}.lock", timeout=0):
            if final.exists():
                raise DataError(
                    f"{final} is there already, and is not overwritten; give the new data set "
                    f"another name, or move that one away"
                )
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                yield part
                part.rename(final)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except Timeout:
        raise DataError(f"another process is writing {final}; wait for it") from None
    except OSError as error:
        raise DataError(
            f"{final} was not written: {error.strerror or error} ({error.filename or part}). "
            f"Nothing is left of it; mend that, or name another folder, and run it again"
        ) from error


def write_interactions(path: Path, pairs: Pairs, parts: Batches) -> list[int]:
    """An ``.inter`` file with ``userID``, ``itemID`` and ``x_label``.

    Args:
        path: the file.
        pairs: whose tokens the numbers in ``parts`` stand for.
        parts: the pairs in order, each with its label.

    Returns:
        The pairs in training, validation and test.

    Raises:
        DataError: a part is empty, which no run could use.
    """
    users, items = pairs.user_tokens, pairs.item_tokens
    sizes = np.zeros(3, dtype=np.int64)
    with _synced(path) as file:
        file.write(b"userID\titemID\tx_label\n")
        for batch in parts:
            sizes += np.bincount(batch[2], minlength=3)
            lines = (
                f"{users[user]}\t{items[item]}\t{label}\n"
                for user, item, label in zip(*batch, strict=True)
            )
            file.write("".join(lines).encode("utf-8"))
    for size, part in zip(sizes, ("training", "validation", "test"), strict=True):
        if size == 0:
            raise DataError(
                f"the {part} part would be empty ({sizes.sum()} interactions in all); change the "
                f"filters, the ratios or the split"
            )
    return sizes.tolist()


@dataclasses.dataclass(frozen=True)
class Written:
    """What became of the feature rows of one modality, for the manifest.

    Attributes:
        dimension, dtype: of the file.
        items: items with a row that is not zero.
        missing: items without a row, or with a zero one (both are zero rows in the file).
        unused: rows of items that the data set does not have.
        repeated: rows of items that had one; the first is kept.
        not_finite: rows with NaN or infinite values; such an item counts as missing.
    """

    dimension: int
    dtype: str
    items: int
    missing: int
    unused: int
    repeated: int
    not_finite: int


def write_features(folder: Path, modality: str, tokens: Sequence[str], blocks: Blocks) -> Written:
    """``<modality>_feat.npy``, a row for each item, and ``<modality>_ids.txt`` where needed.

    The rows are of float16 if they came so, else float32. One block is held in memory at a time.

    Args:
        folder: the data set's folder.
        modality: its name.
        tokens: all items of the data set.
        blocks: rows in any order, of these and of other items.

    Raises:
        DataError: no row belongs to an item, all that do are zero or not finite, or blocks
            differ in width.
    """
    check_name(modality)
    items, numbered = _row_order(tokens)
    seen, present = np.zeros(len(items), dtype=bool), np.zeros(len(items), dtype=bool)
    unused = repeated = not_finite = 0
    dtype, width, examples = None, 0, []
    with _synced(folder / f"{modality}_feat.npy") as file:
        for names, rows in blocks:
            if dtype is None:
                width, examples = rows.shape[1], list(names[:5])
                dtype = np.dtype(np.float16 if rows.dtype == np.float16 else np.float32)
                start = _start_matrix(file, (len(items), width), dtype)
            if rows.shape[1] != width:
                raise DataError(
                    f"modality [{modality}] has rows of {width} and of {rows.shape[1]} numbers"
                )
            place = items.get_indexer(names)
            known = place >= 0
            first = known & ~pd.Series(place).duplicated().to_numpy()
            first[first] &= ~seen[place[first]]
            unused += int((~known).sum())
            repeated += int((known & ~first).sum())
            order = np.argsort(place[first])
            place = place[first][order]
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
                rows = rows[first][order].astype(dtype)
            finite = np.isfinite(rows).all(axis=1)
            not_finite += int((~finite).sum())
            rows[~finite] = 0
            seen[place], present[place] = True, rows.any(axis=1)
            _write_rows(file, start, place, rows)
    if seen.any() and not present.any():
        raise DataError(
            f"modality [{modality}]: the rows of all items of the data set are zero, or not "
            f"finite, so that all count as missing. Encode them again, or leave the modality out"
        )
    if not present.any():
        raise DataError(
            f"modality [{modality}]: no row belongs to an item of the data set. Rows are of items "
            f"{some(examples) or '(none)'}; the data set has {some(tokens)}. Mend the ids"
        )
    if not numbered:
        with _synced(folder / f"{modality}_ids.txt") as file:
            file.writelines(f"{token}\n".encode() for token in items)
    n = int(present.sum())
    return Written(width, dtype.name, n, len(items) - n, unused, repeated, not_finite)


def _row_order(tokens: Sequence[str]) -> tuple[pd.Index, bool]:
    """The item of each row, and whether those are the numbers 0 … n−1, which need no ids file.

    ``tokens`` are distinct.
    """
    n = len(tokens)
    digits = re.compile(f"(0|[1-9][0-9]{{0,{len(str(n))}}})")
    numbered = all(digits.fullmatch(token) and int(token) < n for token in tokens)
    return pd.Index([str(n) for n in range(n)] if numbered else tokens), numbered


def _start_matrix(file, shape: tuple[int, int], dtype: np.dtype) -> int:
    """Begin a ``.npy`` file of zeros and return the place of its first row."""
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    start = file.tell()
    file.truncate(start + shape[0] * shape[1] * dtype.itemsize)
    return start


def _write_rows(file, start: int, place: np.ndarray, rows: np.ndarray) -> None:
    """Write rows [b, d] at ascending places, those of neighbouring places at once."""
    size = rows.shape[1] * rows.itemsize
    breaks = np.flatnonzero(np.diff(place) != 1) + 1
    for run in np.split(np.arange(len(place)), breaks):
        if len(run):
            file.seek(start + int(place[run[0]]) * size)
            file.write(rows[run[0] : run[-1] + 1].tobytes())


def write_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """``manifest.json``: what is given, and the SHA-256 of every file beside it (``files``)."""
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    whole = {**manifest, "files": hashes}
    with _synced(folder / "manifest.json") as file:
        file.write((json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
    return whole


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _synced(path: Path):
    """A new binary file that is on the disk when it is closed."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
