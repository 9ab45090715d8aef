"""From a source's interactions and features to a data-set folder: filter, split, write."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import recbole_sigrec
from recbole_sigrec.data.pairs import Pairs
from recbole_sigrec.data.split import k_core, split_pairs
from recbole_sigrec.data.writer import (
    Blocks,
    Written,
    sha256,
    write_features,
    write_interactions,
    write_manifest,
)
from recbole_sigrec.errors import DataError

FORMAT = "recbole_sigrec data set 1"
"""What ``manifest.json`` calls itself."""


@dataclasses.dataclass(frozen=True)
class Features:
    """One modality of a source.

    Attributes:
        blocks: the items of the data set → their rows, in any order, with or without other items'.
        origin: where they are from, for the manifest: a file, or an encoder and its revision.
    """

    blocks: Callable[[pd.Index], Blocks]
    origin: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Source:
    """What an importer read.

    Attributes:
        pairs: the interactions, as they are in the source; building a data set filters them.
        features: modality → its rows, read while they are written.
        files: what was read, for the manifest.
        about: the importer's name and settings, for the manifest.
        skipped: file → reason → records left out; counted while they are read.
    """

    pairs: Pairs
    features: dict[str, Features]
    files: list[Path]
    about: dict[str, Any]
    skipped: dict[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)


def build_dataset(
    source: Source,
    folder: Path,
    name: str,
    split: str = "given",
    ratios: Sequence[int] = (8, 1, 1),
    k: int = 0,
    seed: int = 2020,
) -> dict[str, Any]:
    """Filter and split a source's interactions, and write them with its features.

    Args:
        source: what was read.
        folder: an empty folder, see :func:`recbole_sigrec.data.writer.new_folder`.
        name: the data set's name.
        split: a name of :data:`recbole_sigrec.data.split.SPLITS`.
        ratios: integers, training : validation : test.
        k: the k of the k-core; 0 filters nothing.
        seed: of the random order.

    Returns:
        What ``manifest.json`` holds.

    Raises:
        DataError: nothing is left, a part is empty, or the features fit no item.
    """
    pairs = source.pairs
    steps = [{"step": "read", **pairs.counts()}]
    if split != "given":  # the source's own split may then have a pair in two parts
        pairs.labelled = False
    pairs.drop_repetitions()
    steps.append({"step": "repeated pairs dropped", **pairs.counts()})
    if k > 1:
        k_core(pairs, k)
        steps.append({"step": f"{k}-core", **pairs.counts()})
        if not steps[-1]["interactions"]:
            raise DataError(f"no interaction is left in the {k}-core; lower --k_core")
    parts = split_pairs(pairs, split, ratios, seed)
    sizes = write_interactions(folder / f"{name}.inter", pairs, parts)
    _, degrees = pairs.degrees()
    items = [token for token, n in zip(pairs.item_tokens, degrees, strict=True) if n]
    modalities = {}
    for modality, features in source.features.items():
        blocks = features.blocks(pd.Index(items))
        written = write_features(folder, modality, items, blocks)
        modalities[modality] = {**features.origin, **dataclasses.asdict(written)}
        _warn(modality, written, len(items))
    manifest = {
        "format": FORMAT,
        "recbole_sigrec": recbole_sigrec.__version__,
        "name": name,
        "source": {
            **source.about,
            "files": [
                {"file": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in source.files
            ],
            "skipped": {file: dict(n) for file, n in source.skipped.items() if n},
        },
        "settings": {"split": split, "ratios": list(ratios), "k_core": k, "seed": seed},
        "steps": steps,
        "split": dict(zip(("train", "valid", "test"), sizes, strict=True)),
        "modalities": modalities,
    }
    return write_manifest(folder, manifest)


def _warn(modality: str, written: Written, n_items: int) -> None:
    """Say what the user may not expect of a modality's rows."""
    for count, what in (
        (written.missing, f"of {n_items} items have no features (or a zero row)"),
        (written.repeated, "rows repeat an item; the first of each is kept"),
        (written.not_finite, "rows hold NaN or infinity; those items count as missing"),
    ):
        if count:
            logging.getLogger().warning(f"modality {modality}: {count} {what}")


def summary(manifest: dict[str, Any]) -> str:
    """The figures of a manifest in a few lines, for the command line."""
    lines = [
        f"{step['step']}: {step['users']} users, {step['items']} items, "
        f"{step['interactions']} interactions"
        for step in manifest["steps"]
    ]
    for file, reasons in manifest["source"]["skipped"].items():
        told = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
        lines.insert(0, f"skipped in {file}: {told}")
    lines.append("split: " + ", ".join(f"{part} {n}" for part, n in manifest["split"].items()))
    for name, modality in manifest["modalities"].items():
        lines.append(
            f"modality {name}: {modality['dimension']} dimensions, {modality['items']} items, "
            f"{modality['missing']} missing"
        )
    return "\n".join(lines)
