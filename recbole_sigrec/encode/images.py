"""Images to features: a vision model of timm's without its classifier."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import partial
from itertools import chain
from os.path import isfile
from pathlib import Path

import numpy as np
import torch

from recbole_sigrec.encode.sources import file_stamps
from recbole_sigrec.encode.store import encode_rows
from recbole_sigrec.errors import SIGRecError

DEFAULT_MODEL = "vit_base_patch32_clip_224.openai"
MOST_PIXELS = 50_000_000  # a file of a few kB can hold more than memory does


def encode_images(
    source,
    out: Path,
    model: str | None = None,
    weights: Path | None = None,
    batch_size: int = 64,
) -> Counter:
    """Features of image files, written resumably with their ids; see :func:`encode_rows`.

    An image that is not there, cannot be decoded, or has more than ``MOST_PIXELS`` is missing.

    Args:
        source: an ``ImageFolder``, or an ``ItemTable`` of paths (None where there is none).
        out: ``<modality>_feat.npy``; must not exist.
        model: a timm model's name, or a local folder with its ``config.json`` and weights; default
            ``DEFAULT_MODEL``.
        weights: a file with the named model's weights (``.safetensors`` or ``.pth``, which is read
            with ``weights_only=True``), instead of those from the hub.
        batch_size: images that are decoded, and go through the model, at a time.

    Returns:
        Why images are missing → how many.

    Raises:
        DataError: see :func:`encode_rows`.
        SIGRecError: timm is not installed, or the model cannot be loaded.
    """
    name = model or DEFAULT_MODEL
    network, transform = load_vision_model(name, weights)
    files = chain([weights], sorted(Path(name).rglob("*")) if Path(name).is_dir() else ())
    images = chain.from_iterable(source.blocks(batch_size))
    inputs = f"{name} {file_stamps(files)} {file_stamps(images)}"
    return encode_rows(source, partial(encode_files, network, transform), batch_size, out, inputs)


def load_vision_model(name: str, weights: Path | None = None):
    """A model of timm's, which gives its features, and the transform of its images.

    Raises:
        SIGRecError: timm is not installed, or the model cannot be loaded.
    """
    try:
        import timm
    except ImportError:
        raise SIGRecError(
            "images are encoded by timm, which is not installed: "
            'pip install "recbole_sigrec[image]"'
        ) from None
    except RuntimeError as error:  # torchvision's operators do not fit the torch that is installed
        raise SIGRecError(
            f"timm cannot be imported ({error}); install the torchvision that belongs to torch "
            f"{torch.__version__}"
        ) from None
    if weights is not None and not weights.is_file():
        raise SIGRecError(f"there is no file {weights} of weights")
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
def encode_files(network, transform, paths: list[Path | None]) -> tuple[np.ndarray, Counter]:
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


def read_image(path: Path | None):
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
