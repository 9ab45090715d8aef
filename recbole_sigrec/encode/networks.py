"""Encoders that are neural networks: which one made features, and whether another is the same."""

from __future__ import annotations

import hashlib
import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from recbole_sigrec.data.encoder_files import SavedEncoder, damage_told, read_encoder
from recbole_sigrec.errors import DataError, SIGRecError

if TYPE_CHECKING:
    import torch

_ALIKE = ("weights", "max_tokens", "preprocessing")  # where one of these differs, so do the vectors


class Network(pydantic.BaseModel):
    """A network and its settings.

    Attributes:
        model: its name, or the path of its folder.
        weights: see :func:`weights_digest`.
        version: of the library that runs it, None where that is not known.
        revision: the commit on the hub, None where it is not known.
        weights_file: the path of the file that its weights are from, None where none was named.
        max_tokens: tokens after which it cuts a text.
        preprocessing: what is done to an image before.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    weights: str
    version: str | None
    revision: str | None = None
    weights_file: str | None = None
    max_tokens: int | None = None
    preprocessing: dict[str, Any] = {}

    def saved(self, kind: str) -> bytes:
        """The content of its encoder's file."""
        return SavedEncoder(kind, self.model_dump(exclude_defaults=True)).to_bytes()

    def named(self, path: Path, model: str | None) -> str:
        """The model to load: this one, or a folder that may hold it too.

        Args:
            path: the file that this was read from.
            model: the model that the user names, if any.

        Raises:
            SIGRecError: the user names another model, or the folder of this one is gone.
        """
        if model is not None and model != self.model and not Path(model).is_dir():
            raise SIGRecError(
                f"{path}: the features are from model [{self.model}], not [{model}]; leave out "
                f"--model, or name a folder that holds the same model"
            )
        name = model or self.model
        if Path(name).is_absolute() and not Path(name).is_dir():
            raise SIGRecError(
                f"{path}: the features are from the model in folder [{name}], which is not there; "
                f"name the folder that holds it now with --model"
            )
        return name

    def check_same(self, path: Path, loaded: Network) -> None:
        """See that a network that was loaded gives the vectors of this one.

        Args:
            path: the file that this was read from.

        Raises:
            DataError: its weights or settings differ.
        """
        differ = [name for name in _ALIKE if getattr(self, name) != getattr(loaded, name)]
        if differ:
            raise DataError(
                f"model [{loaded.model}], version {loaded.version} of its library, is not the one "
                f"of {path}, version {self.version}: {' and '.join(differ)} differ. Name the model "
                f"that made the features, or encode all items anew"
            )
        if loaded.version != self.version:
            logging.getLogger().warning(
                f"{path} is from version {self.version} of the encoder's library, installed is "
                f"{loaded.version}: vectors may differ slightly"
            )


def read_network(path: Path, kind: str) -> Network:
    """The network whose settings an encoder's file holds.

    Raises:
        DataError: see :func:`read_encoder`.
    """
    saved = read_encoder(path, kind)
    with damage_told(path):
        return Network(**saved.settings)


def full_name(model: str) -> str:
    """A model's name; the whole path of a folder."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def library_version(library: str) -> str | None:
    """The version of an installed library, None where it is not known."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def weights_digest(network: torch.nn.Module) -> str:
    """SHA-256 of a network's weights, whatever their names and order, which libraries change."""
    import torch  # slow, and not needed for TF-IDF

    tensors = (tensor for tensor in network.state_dict().values() if tensor.is_floating_point())
    parts = {
        hashlib.sha256(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).digest()
        for tensor in tensors
    }
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()
