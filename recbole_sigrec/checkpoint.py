"""Checkpoints: written atomically, read without unpickling code.

A checkpoint is a dict of tensors, numbers, strings, lists and dicts, so that
``torch.load(weights_only=True)`` reads it; SciPy matrices and NumPy arrays (RecBole's ItemKNN keeps
them as parameters) are stored as tensors and restored as they were.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.errors import DataError

FORMAT = "recbole_sigrec checkpoint 1"


def encode(value: Any) -> Any:
    """Arrays and sparse matrices as marked dicts of tensors; containers recursively.

    Raises:
        TypeError: a value has no safe form.
    """
    if sp.issparse(value):
        coo = value.tocoo()
        parts = {name: torch.from_numpy(getattr(coo, name)) for name in ("row", "col", "data")}
        return {"__sparse__": value.format, "shape": list(value.shape), **parts}
    if isinstance(value, np.ndarray):
        return {"__array__": torch.from_numpy(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def decode(value: Any) -> Any:
    """The inverse of :func:`encode` (tuples come back as lists); arrays are on the CPU."""
    if isinstance(value, dict):
        if "__sparse__" in value:
            row, col, data = (value[name].cpu().numpy() for name in ("row", "col", "data"))
            matrix = sp.coo_matrix((data, (row, col)), shape=tuple(value["shape"]))
            return matrix.asformat(value["__sparse__"])
        if "__array__" in value:
            return value["__array__"].cpu().numpy()
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def save(state: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint: under another name first, then renamed, so that no half file is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"format": FORMAT, **encode(state)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint written by :func:`save`.

    Raises:
        DataError: there is no such file, or it is not a checkpoint of this plugin.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"checkpoint [{path}] does not exist")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch, zipfile and its unpickler raise many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"checkpoint [{path}] cannot be read: it is damaged, or not written by recbole_sigrec "
            f"({reason})"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DataError(f"[{path}] is not a checkpoint of recbole_sigrec")
    return decode(state)


def jsonable(value: Any) -> Any:
    """A config value in JSON's types; what JSON does not know is written as a string."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def config_json(config) -> str:
    """A config's final values as a JSON text."""
    return json.dumps(jsonable(config.final_config_dict), sort_keys=True)
