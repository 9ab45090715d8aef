"""Saved encoders: ``<modality>_encoder.safetensors``, beside the features that one has made.

Such a file holds tensors and, as JSON in its metadata, the kind of the encoder and its settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from recbole_sigrec.errors import DataError
from recbole_sigrec.files import written_whole

_SUFFIX = "_encoder.safetensors"
_ENTRY = "recbole_sigrec_encoder"  # of the metadata; safetensors writes several in a random order
_MOST_BYTES = 99_000_000  # of the settings; safetensors reads no header of more than 100 MB
_NO_TENSORS = {"none": np.zeros(1, np.uint8)}  # safetensors 0.4.0 reads no file without a tensor


@dataclasses.dataclass(frozen=True)
class SavedEncoder:
    """What the file of an encoder holds.

    Attributes:
        kind: ``tfidf``, ``multi_hot``, ``sentence-transformers`` or ``timm``.
        settings: in JSON's types.
        tensors: name → array.
    """

    kind: str
    settings: dict[str, Any]
    tensors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The content of the file; equal encoders have equal ones.

        Raises:
            DataError: the settings are larger than safetensors allows.
        """
        about = {"kind": self.kind, "settings": self.settings}
        text = json.dumps(about, ensure_ascii=False)
        size = len(json.dumps(text, ensure_ascii=False).encode())  # a text in the header's JSON
        if size > _MOST_BYTES:
            raise DataError(
                f"the encoder [{self.kind}] cannot be saved: its words or values take {size:,} "
                f"bytes, and at most {_MOST_BYTES:,} can be saved; encode fewer or shorter columns"
            )
        return save(self.tensors or _NO_TENSORS, {_ENTRY: text})


def read_encoder(path: Path, *kinds: str) -> SavedEncoder:
    """Read the file of an encoder; nothing in it is run or unpickled.

    Args:
        path: the file.
        kinds: those that the caller can use.

    Raises:
        DataError: the file is not there, is damaged or foreign, or is of another kind.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path} of a saved encoder")
    with damage_told(path), safe_open(path, framework="numpy") as file:
        about = json.loads((file.metadata() or {})[_ENTRY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        saved = SavedEncoder(about["kind"], about["settings"], tensors)
    if saved.kind not in kinds:
        raise DataError(
            f"{path} holds an encoder of kind [{saved.kind}]; name one of kind {' or '.join(kinds)}"
        )
    return saved


@contextlib.contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Any error in reading the file of an encoder, as one of ours."""
    try:
        yield
    except Exception as error:  # safetensors, json, pydantic and missing keys raise many kinds
        raise DataError(
            f"{path} is no saved encoder, or is damaged ({type(error).__name__}: {error}); name "
            f"another file, or encode all items anew"
        ) from None


def write_encoder(path: Path, content: bytes) -> None:
    """Write the file of an encoder whole; one with the same content stays.

    Raises:
        DataError: see :func:`refuse_other`.
    """
    refuse_other(path, content)
    if not path.exists():
        with written_whole(path) as file:
            file.write(content)


def refuse_other(path: Path, content: bytes) -> None:
    """See that the file of another encoder would not be overwritten.

    Raises:
        DataError: the path exists, with another content.
    """
    if path.exists() and not (path.is_file() and path.read_bytes() == content):
        raise DataError(f"{path} exists, with another encoder; move it away")


def encoder_path(features: Path) -> Path:
    """Where the encoder of a feature file belongs, ``<modality>_encoder.safetensors``."""
    return features.with_name(features.stem.removesuffix("_feat") + _SUFFIX)


def encoder_file(features: Path) -> Path | None:
    """The saved encoder beside a feature file, if there is one."""
    path = encoder_path(features)
    return path if path.is_file() else None


def find_encoder(like: Path) -> Path:
    """The saved encoder that a feature file, or that file itself, stands for.

    Raises:
        DataError: there is none.
    """
    if like.name.endswith(_SUFFIX):
        return like
    path = encoder_file(like)
    if path is None:
        raise DataError(
            f"{like} has no saved encoder, {encoder_path(like)} is not there: name another file, "
            f"or encode all items anew"
        )
    return path
