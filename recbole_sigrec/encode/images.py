"""Images to features: a vision model of timm's without its classifier."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import partial
from itertools import chain
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_sigrec.data.encoder_files import find_encoder
from recbole_sigrec.encode.networks import (
    Network,
    full_name,
    library_version,
    read_network,
    weights_digest,
)
from recbole_sigrec.encode.sources import ImageFolder, ItemTable, file_stamps
from recbole_sigrec.encode.store import encode_rows
from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.extras import need
from recbole_sigrec.json_object import jsonable
from recbole_sigrec.user_paths import user_path

if TYPE_CHECKING:
    from PIL.Image import Image

LIBRARY = "timm"
DEFAULT_MODEL = "vit_base_patch32_clip_224.openai"
MOST_PIXELS = 50_000_000  # a file of a few kB can hold more than memory does
PREPROCESSING = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
"""timm's settings on which the transform of images depends."""


def encode_images(
    source: ImageFolder | ItemTable,
    out: Path,
    model: str | None = None,
    weights: Path | None = None,
    batch_size: int = 64,
    like: str | Path | None = None,
) -> Counter:
    """Features of image files, written resumably with ids and encoder; see :func:`encode_rows`.

    An image that is not there, cannot be decoded, or has more than ``MOST_PIXELS`` is missing.

    Args:
        source: an ``ImageFolder``, or an ``ItemTable`` of paths (None where there is none).
        out: ``<modality>_feat.npy``; must not exist.
        model: a timm model's name, or a local folder with its ``config.json`` and weights; default
            ``DEFAULT_MODEL``.
        weights: a file with the named model's weights (``.safetensors`` or ``.pth``, which is read
            with ``weights_only=True``), instead of those from the hub.
        batch_size: images that are decoded, and go through the model, at a time.
        like: a feature file, or the ``<modality>_encoder.safetensors`` beside it: that encoder is
            used. ``model`` or ``weights`` may then name a folder or file that holds the same.

    Returns:
        Why images are missing → how many.

    Raises:
        DataError: see :func:`encode_rows`; or ``like`` has no encoder that is whole, or its model
            has changed.
        SIGRecError: timm is not installed, the model cannot be loaded, or is not that of ``like``.
    """
    load = load_described if like is None else partial(load_like, find_encoder(user_path(like)))
    network, transform, known = load(model, weights)
    encode = partial(encode_files, network, transform)
    stamps = file_stamps(chain.from_iterable(source.blocks(batch_size)))
    return encode_rows(source, encode, batch_size, user_path(out), stamps, known.saved(LIBRARY))


def load_like(path: Path, model: str | None, weights: Path | None) -> tuple[Any, Any, Network]:
    """As :func:`load_described`, the model of an encoder's file.

    Args:
        path: the file.
        model: the same model, or a folder that holds it; None: where it was.
        weights: a file with the same weights; None: the file where they were, if any.

    Raises:
        DataError: the file is damaged or foreign, or the model has changed.
        SIGRecError: timm is not installed, the model cannot be loaded, or is another.
    """
    saved = read_network(path, LIBRARY)
    if model is None and weights is None and saved.weights_file is not None:
        weights = Path(saved.weights_file)
    loaded = load_described(saved.named(path, model), weights)
    saved.check_same(path, loaded[2])
    return loaded


def load_described(model: str | None, weights: Path | None) -> tuple[Any, Any, Network]:
    """As :func:`load_vision_model`, and what is to be known of the model."""
    name = model or DEFAULT_MODEL
    network, transform = load_vision_model(name, weights)
    settings = getattr(network, "pretrained_cfg", {})
    known = Network(
        model=full_name(name),
        weights=weights_digest(network),
        version=library_version(LIBRARY),
        weights_file=None if weights is None else str(weights.resolve()),
        preprocessing=jsonable({key: settings[key] for key in PREPROCESSING if key in settings}),
    )
    return network, transform, known


def load_vision_model(name: str, weights: Path | None = None) -> tuple[Any, Any]:
    """A model of timm's, which gives its features, and the transform of its images.

    Raises:
        SIGRecError: timm is not installed, or the model cannot be loaded.
    """
    try:
        timm = need("image", "the encoder of images")
    except RuntimeError as error:  # torchvision's operators do not fit the torch that is installed
        raise SIGRecError(
            f"timm cannot be imported ({error}); install the torchvision that belongs to torch "
            f"{torch.__version__}"
        ) from None
    if weights is not None and not weights.is_file():
        raise SIGRecError(f"there is no file {weights} of weights; name it with --weights")
    try:
        network = timm.create_model(
            f"local-dir:{name}" if Path(name).is_dir() else name,
            pretrained=True,
            num_classes=0,
            pretrained_cfg_overlay=None if weights is None else {"file": str(weights)},
        )
    except Exception as error:  # timm, torch, safetensors and the hub raise many kinds
        raise SIGRecError(
            f"model [{name}] cannot be loaded: {str(error).splitlines()[0]} Without a network, "
            f"name a folder that holds a model of timm's, or a file with --weights"
        ) from None
    network = network.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    settings = timm.data.resolve_model_data_config(network)
    return network, timm.data.create_transform(**settings, is_training=False)


@torch.inference_mode()
def encode_files(
    network: Any, transform: Any, paths: list[Path | None]
) -> tuple[np.ndarray, Counter[str]]:
    """Features of image files: float32 [n, d], zero where missing; and why, how many."""
    from PIL import Image

    rows, tensors, missing = [], [], Counter()
    for row, path in enumerate(paths):
        image, reason = read_image(path)
        if image is None:
            missing[reason] += 1
        else:
            rows.append(row)
            tensors.append(transform(image))
    if not tensors:  # a black image, for the width of what the network gives
        tensors = [transform(Image.new("RGB", (64, 64)))]
    device = next(network.parameters()).device
    found = network(torch.stack(tensors).to(device)).float().cpu().numpy()
    features = np.zeros((len(paths), found.shape[1]), dtype=np.float32)
    features[rows] = found[: len(rows)]
    return features, missing


def read_image(path: Path | None) -> tuple[Image | None, str]:
    """The image in a file as Pillow's RGB, upright, and ""; or None, and why there is none.

    The size that the file states is looked at before anything is decoded.
    """
    from PIL import Image, ImageOps

    if path is None or not isfile(path):  # Path.is_file raises for a name that is too long
        return None, "no file"
    too_large = None, f"over {MOST_PIXELS:,} pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path)
        with opened as image:
            if image.width * image.height > MOST_PIXELS:
                return too_large
            return ImageOps.exif_transpose(image).convert("RGB"), ""
    except Image.DecompressionBombError:
        return too_large
    except Exception:  # Pillow's decoders raise many kinds for a damaged file
        return None, "cannot be decoded"
