"""Files of features: which there are, and reading them as matrices. Nothing is unpickled."""

from __future__ import annotations

import logging
import mmap
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from recbole_sigrec.errors import DataError, some
from recbole_sigrec.tensor_files import map_tensors

FEATURE_SUFFIXES = (".npy", ".npz", ".safetensors")

LARGEST = 1e30
"""The largest number in a feature file: the sums of such numbers are in float32's range."""

MOST_UNPACKED = 2**30
"""Bytes that a ``.npz`` may unpack to, since they are held in memory."""

_BLOCK = 2**22  # numbers checked or copied at a time

_PICKLE = "a pickle, which can run any code when it is read, and so is not"
_SAVED = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), "torch's, which unpickles: it is not read"),
    **dict.fromkeys((".pkl", ".pickle"), _PICKLE),
}
"""Suffixes of files that hold what Python has saved, as features → what they are."""

_FOREIGN = {
    **_SAVED,
    **dict.fromkeys((".csv", ".tsv", ".txt", ".parquet", ".json", ".jsonl"), "a table"),
    **dict.fromkeys((".h5", ".hdf5", ".mat", ".lmdb", ".arrow", ".feather"), "of another library"),
}
"""Suffixes of files that may hold features and are not read → what they are."""

_READ = "read are .npy, .npz and .safetensors: "
_SAVES = {
    ".pt": "numpy.save({new}, torch.load({old}, weights_only=True).float().numpy())",
    ".pkl": "if you trust it, numpy.save({new}, pickle.load(open({old}, 'rb')))",
}


def find_modalities(
    folder: Path, wanted: Sequence[str] | None = None, or_else: str = ""
) -> dict[str, Path]:
    """Modality name → its ``<modality>_feat.npy|npz|safetensors`` in a data set's folder, sorted.

    A table or file of another library in place of a modality that ``wanted`` doesn't name may be
    none of features: it is logged.

    Args:
        folder: the folder.
        wanted: the modalities that are used; None: all.
        or_else: what else than to save it again or move it away helps with a file that is not read.

    Raises:
        DataError: one modality has two files; or one that is used has only a file that is not read.
    """
    found: dict[str, Path] = {}
    foreign: list[tuple[str, Path]] = []
    for path in sorted(folder.glob("*_feat.*")) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        name = path.stem.removesuffix("_feat")
        if path.suffix not in FEATURE_SUFFIXES:
            foreign.append((name, path))
            continue
        if name in found:
            raise DataError(f"modality [{name}] has two files, {found[name]} and {path}; keep one")
        found[name] = path
    for name, path in foreign:
        kind = path.suffix.lower()
        if name in found or (wanted is not None and name not in wanted):
            continue
        if kind in FEATURE_SUFFIXES or kind in _SAVED or (wanted and kind in _FOREIGN):
            raise DataError(f"{told_kind(path)}. Or move it away{or_else}")
        if kind in _FOREIGN:
            logging.getLogger().warning(f"{path.name} is not read as a modality: {told_kind(path)}")
    return found


def told_kind(path: Path) -> str:
    """What a file of another suffix than ``FEATURE_SUFFIXES`` is, what is read, and the remedy."""
    kind = path.suffix.lower()
    if kind in FEATURE_SUFFIXES:
        return f"{path}: write its suffix in small letters, {kind}"
    is_what = f"is {_FOREIGN[kind]}" if kind in _FOREIGN else f"has the suffix [{path.suffix}]"
    like = {".pth": ".pt", ".bin": ".pt", ".ckpt": ".pt", ".pickle": ".pkl"}.get(kind, kind)
    save = _SAVES.get(like, "numpy.save({new}, rows.astype('float32')), one row per item")
    names = {"old": repr(path.name), "new": repr(path.with_suffix(".npy").name)}
    return f"{path} {is_what}; {_READ}save it again, {save.format(**names)}"


def read_features(path: Path) -> np.ndarray:
    """Open a feature matrix: [rows, d], of a numeric type, every number finite in float32.

    ``.npy``, or ``.safetensors`` with one tensor (or one named ``features``), memory-mapped and so
    not held in memory, unless it is of bfloat16, which is held as float32; ``.npz`` likewise, which
    is held. :func:`recbole_sigrec.data.features.align` makes it float32.

    Raises:
        DataError: the file is unreadable, truncated or holds objects, is too large for memory, or
            is not a matrix of finite numbers up to ``LARGEST``; the rows with others are named.
    """
    if path.suffix not in FEATURE_SUFFIXES:
        raise DataError(told_kind(path))
    try:
        if path.suffix == ".npy":
            array = _map(path)
        elif path.suffix == ".npz":
            _check_unpacked(path)
            with np.load(path, allow_pickle=False) as arrays:
                array = _only(path, {name: np.asarray(arrays[name]) for name in arrays.files})
        else:
            array = _only(path, map_tensors(path))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # numpy, zipfile and safetensors raise many kinds
        raise DataError(
            f"{path} cannot be read as a numeric array ({error}); save it again as a plain float "
            f"matrix, e.g. numpy.save(file, features.astype('float32'))"
        ) from None
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        raise DataError(
            f"{path} holds an array of shape {array.shape} and type {array.dtype}; expected one "
            f"row of numbers per item, [rows, dimension]"
        )
    _check_numbers(path, array)
    return array


def _check_numbers(path: Path, array: np.ndarray) -> None:
    """See that all numbers are finite, and can be used in float32."""
    wrong: dict[str, list[int]] = {}
    for block in row_blocks(array):
        rows = array[block]
        with np.errstate(over="ignore", under="ignore"):
            numbers = rows.astype(np.float32)
        good = (np.abs(numbers) <= LARGEST).all(axis=1)
        if rows.dtype.kind == "f" and rows.dtype.itemsize > 4:
            good &= numbers.any(axis=1) | ~rows.any(axis=1)
        for row in np.flatnonzero(~good):
            if not np.isfinite(rows[row]).all():
                what = "NaN or infinite values"
            elif numbers[row].any():
                what = f"numbers over {LARGEST:g}, too large for sums in float32,"
            else:
                what = "numbers that float32 rounds to zero, and nothing else,"
            wrong.setdefault(what, []).append(block.start + row)
    for what, bad in wrong.items():
        finite = what.startswith("numbers")
        raise DataError(
            f"{path} has {what} in row(s) {some(bad)} (counted from 0); "
            + ("scale its numbers, or " if finite else "")
            + "set such a row to zero to mark the item as having no such modality"
        )


def _check_unpacked(path: Path) -> None:
    with zipfile.ZipFile(path) as packed:
        size = sum(member.file_size for member in packed.infolist())
    if size > MOST_UNPACKED:
        raise DataError(
            f"{path} unpacks to {size:,} bytes, which would be held in memory; at most "
            f"{MOST_UNPACKED:,} are. Save the matrix with numpy.save as .npy, which is not held"
        )


def _map(path: Path) -> np.ndarray:
    """A ``.npy`` file, memory-mapped where there is something to map."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "mmap length" in str(error):  # the header tells of more than the file has
            raise
        return np.load(path, allow_pickle=False)  # it is empty, or the error is told better


def row_blocks(array: np.ndarray) -> Iterator[slice]:
    """Slices of consecutive rows, of about 16 MB in float32.

    The pages of a mapped file are given back after each, else they count as this process's memory.
    """
    step = max(1, _BLOCK // array.shape[1])
    for start in range(0, len(array), step):
        yield slice(start, start + step)
        if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            array.base.madvise(mmap.MADV_DONTNEED)


def _only(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    if "features" in arrays:
        return arrays["features"]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise DataError(f"{path} holds {len(arrays)} arrays ({some(arrays)}); name one 'features'")
