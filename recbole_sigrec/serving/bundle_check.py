"""Whether the parts of a bundle fit each other, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pydantic

from recbole_sigrec.json_object import validated

_FORMS = {
    "users.vectors": ("f", "users", "vectors"),
    "items.vectors": ("f", "items", "vectors"),
    "items.offset": ("f", "items"),
    "items.count": ("iu", "items"),
    "fold_in.map": ("f", "vectors", "vectors"),
    "graph.dense": ("f", "items", "items"),
    "parts": ("f", "items", "vectors"),
    "content": ("f", "items", "features"),
    "has": ("b", "items"),
    "mean": ("f", "features"),
}
"""Array, or the first part of its name → kind of number and sizes; equal words are equal sizes, of
features in each modality. The first in which a word occurs tells the size."""

_MATRICES = {
    "graph": ("items", "items"),
    "training": ("users", "items"),
    "validation": ("users", "items"),
}
"""Matrix in CSR → its sizes."""


class _Scoring(pydantic.BaseModel):
    item_score_weight: float
    history_parts: list[str]
    modality_weights: dict[str, float]


class _Manifest(pydantic.BaseModel):
    model: str
    dataset: str
    scoring: _Scoring
    files: dict[str, str]
    encoders: list[str]


def check_manifest(manifest: Any) -> None:
    """See that a manifest has what is read of it.

    Raises:
        ValueError: it has not; the message begins with the key.
    """
    try:
        held = validated(_Manifest, manifest)
    except ValueError as error:
        raise ValueError(f"manifest.json, {error}") from None
    for name in held.files:
        if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"}:
            raise ValueError(f"manifest.json, [files]: [{name[:200]}] is no name of a file")


def check_parts(
    scoring: Mapping[str, Any],
    users: Any,
    items: Any,
    columns: Any,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """See that tokens, columns and arrays fit each other and the manifest's ``scoring``.

    Raises:
        ValueError: they do not; the message begins with the file or the array.

    Cost: the indices of the matrices are read once.
    """
    for name, tokens in (("users.json", users), ("items.json", items)):
        texts = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
        if not texts or not tokens or len(set(tokens)) < len(tokens):
            raise ValueError(f"{name}: it must be a list of distinct texts")
    lists = isinstance(columns, dict) and all(isinstance(c, list) for c in columns.values())
    if not lists or any(len(column) != len(items) for column in columns.values()):
        raise ValueError("columns.json: each column must have a value for each item")
    sizes = {"users": len(users), "items": len(items)}
    for name in _needed(scoring, arrays):
        if name not in arrays:
            raise ValueError(f"{name} is not there")
    for kind, form in _FORMS.items():
        for name in (name for name in arrays if name == kind or name.startswith(f"{kind}.")):
            _check_array(name, arrays[name], form, sizes)
    for name, (rows, columns_) in _MATRICES.items():
        if f"{name}.indptr" in arrays:
            _check_matrix(name, arrays, sizes[rows], sizes[columns_])


def _needed(scoring: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    yield "items.count"
    yield from (f"parts.{name}" for name in scoring["history_parts"])
    for modality in scoring["modality_weights"]:
        yield from (f"{kind}.{modality}" for kind in ("content", "has", "mean"))
    vectors = "users.vectors", "items.vectors", "fold_in.map"
    if any(name in arrays for name in vectors):
        yield from vectors
    elif "graph.dense" not in arrays:
        yield "graph.indptr"
    if "graph.indptr" in arrays:
        yield "graph.data"
    yield from (f"{name}.indices" for name in _MATRICES if f"{name}.indptr" in arrays)


def _check_array(
    name: str, array: np.ndarray, form: tuple[str, ...], sizes: dict[str, int]
) -> None:
    """One array; ``sizes`` learns those that are not known yet."""
    kinds, *words = form
    modality = name.partition(".")[2]
    words = [f"features of {modality}" if word == "features" else word for word in words]
    shape = tuple(sizes.setdefault(word, n) for word, n in zip(words, array.shape))
    if array.dtype.kind not in kinds or array.shape != shape or len(shape) != len(words):
        raise ValueError(
            f"{name} is {array.dtype} of shape {array.shape}, which does not fit {shape}, "
            f"[{', '.join(words)}]"
        )


def _check_matrix(name: str, arrays: Mapping[str, np.ndarray], rows: int, columns: int) -> None:
    starts, indices = arrays[f"{name}.indptr"], arrays[f"{name}.indices"]
    data = arrays.get(f"{name}.data", indices)
    whole = all(part.ndim == 1 and part.dtype.kind in "iu" for part in (starts, indices))
    if not whole or starts.shape != (rows + 1,) or data.shape != indices.shape:
        raise ValueError(f"{name}.indptr, .indices and .data are not those of {rows} rows")
    if data is not indices and data.dtype.kind != "f":
        raise ValueError(f"{name}.data is {data.dtype}")
    if starts[0] != 0 or starts[-1] != len(indices) or (starts[1:] < starts[:-1]).any():
        raise ValueError(f"{name}.indptr does not divide {len(indices)} indices into rows")
    if len(indices) and not (indices.min() >= 0 and indices.max() < columns):
        raise ValueError(f"{name}.indices are beyond {columns} columns")
