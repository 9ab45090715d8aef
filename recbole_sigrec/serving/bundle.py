"""The bundle: a folder with all that recommending needs.

- ``manifest.json``: model, data set, config, metrics, versions, digests, and the SHA-256 of each
  file; its own is in ``manifest.sha256``.
- ``users.json``, ``items.json``: the tokens, in the order of the arrays' rows.
- ``arrays.safetensors``: the arrays, see :data:`ARRAYS`.
- ``columns.json``: what is known of the items, as their titles: column → a value for each item.
- ``<modality>_encoder.safetensors``: what made the features of a modality, where it is known.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from recbole_sigrec.errors import DataError, some
from recbole_sigrec.files import check_free, new_folder, sha256, write_json, write_text
from recbole_sigrec.serving.bundle_check import check_manifest, check_parts
from recbole_sigrec.tensor_files import map_tensors
from recbole_sigrec.user_paths import user_path

FORMAT = 1

ARRAYS = {
    "users.vectors": "float32 [n_users, d], where the model scores by a product of vectors",
    "items.vectors": "float32 [n_items, d], likewise",
    "items.offset": "float32 [n_items], added to every user's scores",
    "items.count": "int32 [n_items], training interactions",
    "graph.indptr, graph.indices, graph.data": "B in CSR: row j weighs item j of a history",
    "graph.dense": "float32 [n_items, n_items]: B, where most of its entries are not zero",
    "training.indptr, training.indices": "items of each user's training interactions, in CSR",
    "validation.indptr, validation.indices": "likewise, of the validation part",
    "parts.<name>": "float32 [n_items, d]: addends of items.vectors",
    "content.<modality>": "float32 [n_items, d_m]: the features",
    "has.<modality>": "bool [n_items]: which items have the modality",
    "mean.<modality>": "float32 [d_m]: the mean of the items that have it",
    "fold_in.map": "float32 [d, d], see recbole_sigrec.serving.new_users",
}
"""Name → what it is. Indices are int32, ``indptr`` int64; there is no padding."""


@dataclasses.dataclass
class Bundle:
    """What the folder holds.

    Attributes:
        manifest: see the module's text.
        users, items: tokens.
        arrays: see :data:`ARRAYS`.
        columns: column → a value for each item.
        encoders: modality → the content of its encoder's file.
    """

    manifest: dict[str, Any]
    users: list[str]
    items: list[str]
    arrays: dict[str, np.ndarray]
    columns: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    encoders: dict[str, bytes] = dataclasses.field(default_factory=dict)


def write_bundle(bundle: Bundle, path: str | Path, force: bool = False) -> None:
    """Write a bundle, whole or not at all.

    Args:
        force: whether an earlier bundle there is replaced; nothing else is.

    Raises:
        DataError: there is something already, or it cannot be written.
    """
    from safetensors.numpy import save_file

    check_target(path, force=force)
    with new_folder(path, replace=force) as folder:
        write_json(bundle.users, folder / "users.json")
        write_json(bundle.items, folder / "items.json")
        write_json(bundle.columns, folder / "columns.json")
        arrays = {name: np.ascontiguousarray(array) for name, array in bundle.arrays.items()}
        try:
            save_file(arrays, folder / "arrays.safetensors")
        except SafetensorError as error:  # as of a full disk
            raise DataError(
                f"{path} was not written: {error}; make space, or name another"
            ) from None
        (folder / "arrays.safetensors").chmod(0o644)  # the library lets the owner alone read
        for modality, content in bundle.encoders.items():
            (folder / encoder_name(modality)).write_bytes(content)
        files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        manifest = {**bundle.manifest, "format": FORMAT, "files": files}
        manifest["encoders"] = list(bundle.encoders)
        write_json(manifest, folder / "manifest.json")
        write_text(sha256(folder / "manifest.json") + "\n", folder / "manifest.sha256")


def check_target(path: str | Path, **force: Any) -> None:
    """See that a bundle may be written there.

    Args:
        force: as :func:`recbole_sigrec.files.check_free` takes it; an earlier bundle may then be
            replaced, and nothing else.

    Raises:
        DataError: there is something already that is not to be replaced.
    """
    path = user_path(path)
    check_free(path, path.exists(), **force)
    if not path.exists():
        return
    try:
        files = set(json.loads((path / "manifest.json").read_text("utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(
            f"{path} is no bundle, and so is not replaced; name another folder"
        ) from None
    stray = {file.name for file in path.iterdir()} - files - {"manifest.json", "manifest.sha256"}
    if stray:
        raise DataError(
            f"{path} has files that are no bundle's, {some(sorted(stray))}, and is not replaced; "
            f"move them away, or name another folder"
        )


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle, after its files have been compared with their hashes.

    Raises:
        DataError: it is not there or no bundle, of a newer format, or not as it was written; the
            message names the file.

    Cost: the files are read once, at about 1 GB/s; the arrays stay on the disk until they are used.
    """
    path = user_path(path)
    manifest = _manifest(path)
    try:
        check_manifest(manifest)
    except ValueError as error:
        raise _unreadable(path, error) from None
    try:
        for name, digest in manifest["files"].items():
            if not (path / name).is_file():
                raise DataError(f"bundle [{path}] lacks its file {name}; export it again")
            if sha256(path / name) != digest:
                raise DataError(f"{path / name} was changed or cut after it was written; {_AGAIN}")
    except OSError as error:  # the name of a file may be too long for one
        raise _unreadable(path, error) from None
    try:
        users, items, columns = (
            json.loads((path / f"{name}.json").read_text("utf-8"))
            for name in ("users", "items", "columns")
        )
        arrays = map_tensors(path / "arrays.safetensors")
        check_parts(manifest["scoring"], users, items, columns, arrays)
        encoders = {name: (path / encoder_name(name)).read_bytes() for name in manifest["encoders"]}
    except (OSError, ValueError, SafetensorError, RecursionError) as error:
        raise _unreadable(path, error) from None
    return Bundle(manifest, users, items, arrays, columns, encoders)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"bundle [{path}] cannot be read: {error}; {_AGAIN}")


def encoder_name(modality: str) -> str:
    """The file of a modality's encoder."""
    return f"{modality}_encoder.safetensors"


_AGAIN = "export it again"


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise DataError(f"bundle [{path}] does not exist; recbole-sigrec export makes one")
    names = ("manifest.json", "manifest.sha256")
    absent = [name for name in names if not (path / name).is_file()]
    if absent:
        raise DataError(f"[{path}] is no bundle, or not a whole one: it lacks {some(absent)}")
    try:
        manifest = dict(json.loads((path / names[0]).read_text("utf-8")))
        newer = manifest.get("format", 0) > FORMAT
    except (ValueError, TypeError, RecursionError):
        manifest, newer = {}, False
    if newer:
        raise DataError(
            f"bundle [{path}] is of format {manifest['format']}, and this version of "
            f"recbole_sigrec reads formats up to {FORMAT}; update recbole_sigrec"
        )
    if sha256(path / names[0]) != (path / names[1]).read_text("utf-8", "replace").strip():
        raise DataError(f"{path / names[0]} was changed after it was written; {_AGAIN}")
    return manifest
