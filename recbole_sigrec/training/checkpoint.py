"""Checkpoints: written atomically, read without unpickling code.

A checkpoint is a dict of tensors, numbers, strings, lists and dicts, so that
``torch.load(weights_only=True)`` reads it; SciPy matrices and NumPy arrays (RecBole's ItemKNN keeps
them as parameters) are stored as tensors and restored as they were.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_sigrec.config import Config
from recbole_sigrec.data.identity import check_identity
from recbole_sigrec.errors import ConfigError, DataError, some
from recbole_sigrec.files import written_whole
from recbole_sigrec.json_object import jsonable
from recbole_sigrec.training.divergence import not_finite, with_nan
from recbole_sigrec.user_paths import user_path

FORMAT = "recbole_sigrec checkpoint 3"

_PARTS = {
    **{"model": str, "dataset": str, "config": str, "data_path": str, "versions": dict},
    **{"epoch": int, "valid_result": dict, "state_dict": dict, "other_parameter": dict},
    **{"data": dict, "row_hashes": dict, "chosen": dict},
}
"""What the checkpoint of a model holds: name → type."""

_OF_OTHERS = (
    "it does not hold the users and items that its rows are. Train the model with this plugin "
    "(recbole-sigrec run --model=…), or load it with what wrote it"
)


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


def copy(state: dict[str, Any]) -> Any:
    """A checkpoint's content, encoded, that shares no tensor with a model that trains on."""
    return _copied(encode(state))


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


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


def save(state: dict[str, Any], path: str | Path, new: bool = False) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        state: what it holds.
        path: the file; the folders above it are made.
        new: whether no earlier file is replaced.

    Raises:
        DataError: there is a file of that name, and none is to be replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path, new) as file:
        torch.save({"format": FORMAT, **encode(state)}, file)


def load(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint written by :func:`save`.

    Raises:
        DataError: there is no such file, or it is not a checkpoint of this plugin.
    """
    path = user_path(path)
    if not path.is_file():
        raise DataError(f"checkpoint [{path}] does not exist, or is no file")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        with zipfile.ZipFile(path) as parts:  # torch does not compare the checksums
            damaged = parts.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is another one")
    except Exception as error:  # torch, zipfile and its unpickler raise many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "GLOBAL recbole." in str(error):
            raise DataError(f"checkpoint [{path}] is one of RecBole's own: {_OF_OTHERS}") from None
        raise DataError(
            f"checkpoint [{path}] cannot be read: it is damaged, or not written by recbole_sigrec "
            f"({reason})"
        ) from None
    written = state.get("format") if isinstance(state, dict) else None
    if written != FORMAT:
        if isinstance(written, str) and written.startswith(FORMAT.rstrip("0123456789")):
            raise DataError(
                f"checkpoint [{path}] was written by another version of recbole_sigrec "
                f"([{written}], not [{FORMAT}]); use that version, or train anew"
            )
        raise DataError(f"[{path}] is not a checkpoint of recbole_sigrec: {_OF_OTHERS}")
    try:
        return decode(state)
    except Exception as error:  # what is marked as an array may be anything
        raise DataError(f"checkpoint [{path}] is damaged: {error}") from None


def load_model(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the checkpoint of a model: :func:`load`, and every part is there and sound.

    Raises:
        DataError: it is not, or a parameter is NaN.
    """
    state = load(path, device)
    for name, kind in _PARTS.items():
        if not isinstance(state.get(name), kind):
            what = "is damaged in" if name in state else "lacks"
            raise DataError(
                f"checkpoint [{path}] {what} its part [{name}]; use another, or train anew"
            )
    for name, check in (("config", _check_config), ("data", check_identity)):
        try:
            check(state[name])
        except ValueError as error:
            told = f"checkpoint [{path}] is damaged in its part [{name}]: {error}"
            raise DataError(told) from None
    best = state.get("best") or {}
    whole = isinstance(best, dict) and all(
        isinstance(best.get(name, {}), dict) for name in ("state_dict", "other_parameter", "chosen")
    )
    if not whole:
        raise DataError(f"checkpoint [{path}] is damaged in its part [best]; train anew")
    if not all(is_result(part.get("valid_result", {})) for part in (state, best)):
        raise DataError(f"checkpoint [{path}] is damaged in its part [valid_result]; train anew")
    for part in (state, best):
        parameters = (part.get(name) or {} for name in ("state_dict", "other_parameter"))
        bad = [name for held in parameters for name in with_nan(held)]
        if bad:
            raise _diverged(path, f"NaN parameters ({some(bad)})")
    return state


def _check_config(text: str) -> None:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"it is a {type(values).__name__}")
    negatives = values.get("train_neg_sample_args")
    if not isinstance(negatives, dict) or "distribution" not in negatives:
        raise ValueError(f"[train_neg_sample_args] is [{negatives}]")


def is_result(value: Any) -> bool:
    """Whether a value is the metrics of an evaluation: name → number."""
    return isinstance(value, dict) and all(map(is_number, value.values()))


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _diverged(path: str | Path, what: str) -> DataError:
    return DataError(
        f"checkpoint [{path}] holds {what}: its training has diverged, or it was changed; use "
        f"another, or train anew"
    )


def fill(net: AbstractRecommender, state: dict[str, Any], path: str | Path) -> None:
    """Give a model the parameters of a checkpoint.

    Args:
        net: changed in place.
        state: the checkpoint, or its part ``best``.
        path: its file, for the message.

    Raises:
        ConfigError: they do not fit.
        DataError: one is infinite.
    """
    try:
        net.load_state_dict(state["state_dict"])
    except RuntimeError as error:
        what = " ".join(str(error).split())  # torch breaks lines
        raise ConfigError(
            f"checkpoint [{path}] does not fit the model of this config: {what}"
        ) from None
    net.load_other_parameter(state["other_parameter"])
    take = getattr(net, "take_chosen_values", None)
    if take is not None:
        try:
            take(state["chosen"])
        except ValueError as error:
            told = f"checkpoint [{path}] is damaged in its part [chosen]: {error}"
            raise DataError(told) from None
    if bad := not_finite(net):
        raise _diverged(path, f"infinite parameters ({some(bad)})")


def config_json(config: Config, changed: Mapping[str, Any] | None = None) -> str:
    """A config's final values, some of them ``changed``, as a JSON text."""
    values = config.final_config_dict | dict(changed or {})
    return json.dumps(jsonable(values), sort_keys=True)
