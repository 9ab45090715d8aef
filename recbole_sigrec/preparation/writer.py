"""Writing a data-set folder in MMRec's layout: whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from recbole_sigrec.data.features import check_name
from recbole_sigrec.display.progress import progress
from recbole_sigrec.errors import DataError, some
from recbole_sigrec.files import sha256, synced
from recbole_sigrec.preparation.pairs import Pairs
from recbole_sigrec.preparation.split import Batches
from recbole_sigrec.user_paths import user_path

Blocks = Iterable[tuple[Sequence[str] | np.ndarray, np.ndarray]]
"""Feature rows as they are read: the item tokens [b] of some rows, and the rows [b, d]."""


def dataset_folder(out: str | Path, name: str) -> Path:
    """``<out>/<name>``.

    Raises:
        DataError: the name is no folder's.
    """
    if name != Path(name).name or name.startswith(".") or not name.isprintable():
        raise DataError(f"[{name}] cannot name a data set; give it a plain folder name")
    return user_path(out) / name


def write_interactions(path: Path, pairs: Pairs, parts: Batches, needed: set[int]) -> list[int]:
    """An ``.inter`` file with ``userID``, ``itemID`` and ``x_label``.

    Args:
        path: the file.
        pairs: whose tokens the numbers in ``parts`` stand for.
        parts: the pairs in order, each with its label.
        needed: the labels of the parts that may not be empty.

    Returns:
        The pairs in training, validation and test.

    Raises:
        DataError: a part is empty that is needed.
    """
    users, items = pairs.user_tokens, pairs.item_tokens
    sizes = np.zeros(3, dtype=np.int64)
    with synced(path) as file, progress(path.name, unit="rows") as bar:
        file.write(b"userID\titemID\tx_label\n")
        for batch in parts:
            sizes += np.bincount(batch[2], minlength=3)
            lines = (
                f"{users[user]}\t{items[item]}\t{label}\n"
                for user, item, label in zip(*batch, strict=True)
            )
            file.write("".join(lines).encode("utf-8"))
            bar.update(len(batch[2]))
    for label, part in enumerate(("training", "validation", "test")):
        if sizes[label] == 0 and label in needed:
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
        unused: rows of items that the data set does not have: without an interaction, or filtered.
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
    dtype, width, start, examples = None, 0, 0, []
    with synced(folder / f"{modality}_feat.npy") as file:
        for names, rows in blocks:
            if dtype is None:
                width, examples = rows.shape[1], list(names[:5])
                dtype = np.dtype(np.float16 if rows.dtype == np.float16 else np.float32)
                start = _start_matrix(file, (len(items), width), dtype)
            if rows.shape[1] != width:
                raise DataError(
                    f"modality [{modality}] has rows of {width} and of {rows.shape[1]} numbers"
                )
            place = items.get_indexer(pd.Index(names))
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
        with synced(folder / f"{modality}_ids.txt") as file:
            file.writelines(f"{token}\n".encode() for token in items)
    n = int(present.sum())
    return Written(width, str(dtype), n, len(items) - n, unused, repeated, not_finite)


def _row_order(tokens: Sequence[str]) -> tuple[pd.Index, bool]:
    """The item of each row, and whether those are the numbers 0 … n−1, which need no ids file.

    ``tokens`` are distinct.
    """
    n = len(tokens)
    digits = re.compile(f"(0|[1-9][0-9]{{0,{len(str(n))}}})")
    numbered = all(digits.fullmatch(token) and int(token) < n for token in tokens)
    return pd.Index([str(n) for n in range(n)] if numbered else tokens), numbered


def _start_matrix(file: IO[bytes], shape: tuple[int, int], dtype: np.dtype) -> int:
    """Begin a ``.npy`` file of zeros and return the place of its first row."""
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    start = file.tell()
    file.truncate(start + shape[0] * shape[1] * dtype.itemsize)
    return start


def _write_rows(file: IO[bytes], start: int, place: np.ndarray, rows: np.ndarray) -> None:
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
    with synced(folder / "manifest.json") as file:
        file.write((json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
    return whole
