"""Arrays in ``.safetensors`` files, memory-mapped, and sparse matrices among them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.errors import DataError

_TYPES = {
    "BOOL": "?",
    "BF16": "<u2",  # the upper half of a float32
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
}


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, read from the disk where they are used; read-only.

    Those of bfloat16, which NumPy does not have, are held in memory as float32. The library checks
    the header.

    Raises:
        DataError: a tensor is of another type that NumPy does not have.
        safetensors.SafetensorError, OSError: the file is damaged or not there.
    """
    from safetensors import safe_open

    arrays = {}
    with safe_open(path, framework="numpy") as tensors:
        for name in tensors.keys():
            part = tensors.get_slice(name)
            arrays[name] = tuple(part.get_shape()), part.get_dtype()
        for name, (_, kind) in arrays.items():
            if kind not in _TYPES:
                raise DataError(
                    f"{path}: tensor [{name}] is of type {kind}, which is not read; save it as "
                    f"float32 or float16"
                )
        empty = [name for name, (shape, _) in arrays.items() if 0 in shape]
        there = {name: tensors.get_tensor(name) for name in empty}
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    for name, (shape, kind) in arrays.items():
        if name not in there:
            start = 8 + size + header[name]["data_offsets"][0]
            there[name] = np.memmap(path, _TYPES[kind], "r", start, shape)
            if kind == "BF16":
                there[name] = (there[name].astype(np.uint32) << 16).view(np.float32)
    return there


def csr_arrays(name: str, matrix: sp.csr_matrix, data: bool = True) -> dict[str, np.ndarray]:
    """A sparse matrix as arrays ``<name>.indptr``, ``.indices`` and ``.data``.

    Args:
        data: whether its values are kept; not those of a binary one.
    """
    arrays = {
        f"{name}.indptr": matrix.indptr.astype(np.int64),
        f"{name}.indices": matrix.indices.astype(np.int32),
    }
    return {**arrays, f"{name}.data": matrix.data.astype(np.float32)} if data else arrays


def csr_of(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, int]
) -> sp.csr_matrix | None:
    """The inverse of :func:`csr_arrays`, float32; None where there is no such matrix."""
    if f"{name}.indptr" not in arrays:
        return None
    indices = arrays[f"{name}.indices"]
    data = arrays.get(f"{name}.data")
    if data is None:
        data = np.ones(len(indices), dtype=np.float32)
    return sp.csr_matrix((data, indices, arrays[f"{name}.indptr"]), shape=shape)
