"""From a source's interactions and features to a data-set folder: filter, split, write."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import recbole_sigrec
from recbole_sigrec.data.cold_items import write_cold_items
from recbole_sigrec.data.encoder_files import encoder_path, write_encoder
from recbole_sigrec.errors import DataError, some
from recbole_sigrec.files import sha256
from recbole_sigrec.preparation.pairs import Pairs
from recbole_sigrec.preparation.split import expected_parts, k_core, split_pairs
from recbole_sigrec.preparation.writer import (
    Blocks,
    Written,
    write_features,
    write_interactions,
    write_manifest,
)
from recbole_sigrec.tables.tokens import LONGEST, is_token

FORMAT = "recbole_sigrec data set 1"
"""What ``manifest.json`` calls itself."""


@dataclasses.dataclass(frozen=True)
class Features:
    """One modality of a source.

    Attributes:
        blocks: the items of the data set → their rows, in any order, with or without other items'.
        origin: where they are from, for the manifest: a file, or an encoder and its revision.
        encoder: the content of the file of the encoder that made them, if that is known; asked for
            after ``blocks``, from which it may learn.
        tokens: the item of each row, where that is known before the rows are read.
    """

    blocks: Callable[[pd.Index], Blocks]
    origin: dict[str, Any]
    encoder: Callable[[], bytes | None] = lambda: None
    tokens: np.ndarray | None = None


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
    keep_cold_items: bool = False,
) -> dict[str, Any]:
    """Filter and split a source's interactions, and write them with its features.

    Args:
        source: what was read.
        folder: an empty folder, see :func:`recbole_sigrec.files.new_folder`.
        name: the data set's name.
        split: a name of :data:`recbole_sigrec.preparation.split.SPLITS`.
        ratios: integers, training : validation : test; 0 leaves a part out.
        k: the k of the k-core; 0 filters nothing.
        seed: of the random order.
        keep_cold_items: whether items with features that have no interaction in the source are in
            the data set, see :mod:`recbole_sigrec.data.cold_items`. An item that the k-core leaves
            out had some, and is none of them.

    Returns:
        What ``manifest.json`` holds.

    Raises:
        DataError: nothing is left, a part is empty that the split asks for, or the features fit no
            item.
    """
    pairs = source.pairs
    steps = _filter(pairs, split, k)
    parts = split_pairs(pairs, split, ratios, seed)
    needed = expected_parts(split, ratios, pairs.labels)
    sizes = write_interactions(folder / f"{name}.inter", pairs, parts, needed)
    _, degrees = pairs.degrees()
    items = [token for token, n in zip(pairs.item_tokens, degrees, strict=True) if n]
    cold_rows = _cold_rows(source)
    cold = list(dict.fromkeys(chain(*cold_rows.values()))) if keep_cold_items else []
    if cold:
        _check_tokens(cold)
        write_cold_items(folder, cold)
    modalities = _write_modalities(source, folder, items + cold)
    for modality, rows in cold_rows.items():
        modalities[modality]["cold"] = len(rows)
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
        "settings": {
            **{"split": split, "ratios": list(ratios), "k_core": k, "seed": seed},
            "keep_cold_items": keep_cold_items,
        },
        "steps": steps,
        "cold_items": len(cold),
        "split": dict(zip(("train", "valid", "test"), sizes, strict=True)),
        "modalities": modalities,
    }
    return write_manifest(folder, manifest)


def _filter(pairs: Pairs, split: str, k: int) -> list[dict[str, Any]]:
    """Drop repetitions and what is not in the k-core; the counts after each step."""
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
    return steps


def _cold_rows(source: Source) -> dict[str, pd.Series]:
    """Modality → the tokens of its rows whose items have no interaction in the source."""
    taken = set(source.pairs.item_tokens)
    rows = {
        name: pd.Series(features.tokens, dtype=object)
        for name, features in source.features.items()
        if features.tokens is not None
    }
    return {name: tokens[~tokens.isin(taken)] for name, tokens in rows.items()}


def _check_tokens(tokens: list[str]) -> None:
    if wrong := [token for token in tokens if not is_token(token)]:
        raise DataError(
            f"items without an interaction cannot be kept by the name(s) "
            f"{some(repr(token)[:80] for token in wrong)}: an id must not be empty or longer than "
            f"{LONGEST} characters, or hold tabs, line ends or other control characters, or begin "
            f"or end with a space. Mend the ids of the features"
        )


def _write_modalities(source: Source, folder: Path, items: list[str]) -> dict[str, dict[str, Any]]:
    """Write the features of the items, and their encoders; what the manifest says of each."""
    modalities = {}
    for modality, features in source.features.items():
        blocks = features.blocks(pd.Index(items))
        written = write_features(folder, modality, items, blocks)
        if (encoder := features.encoder()) is not None:
            write_encoder(encoder_path(folder / f"{modality}_feat.npy"), encoder)
        modalities[modality] = {**features.origin, **dataclasses.asdict(written)}
        _warn(modality, written, len(items))
    return modalities


def _warn(modality: str, written: Written, n_items: int) -> None:
    """Say what the user may not expect of a modality's rows."""
    for count, what in (
        (written.missing, f"of {n_items} items have no features (or a zero row)"),
        (written.repeated, "rows repeat an item; the first of each is kept"),
        (written.not_finite, "rows hold NaN or infinity; those items count as missing"),
    ):
        if count:
            logging.getLogger().warning(f"modality {modality}: {count} {what}")


_WITHOUT = {
    "valid": "there is no validation part: `run` trains all epochs and keeps the last one's model; "
    "`compare` and `tune` refuse the data set",
    "test": "there is no test part: `run` does not test the model; `compare` refuses the data set",
}
"""Part → what it means that there is none."""


def summary(manifest: dict[str, Any]) -> str:
    """The figures of a manifest in a few lines, for the command line."""
    lines = [
        f"{step['step']}: {step['users']} users, {step['items']} items, "
        f"{step['interactions']} interactions"
        for step in manifest["steps"]
    ]
    read, distinct = (step["interactions"] for step in manifest["steps"][:2])
    if read > distinct:
        lines.insert(2, f"{read - distinct} interactions repeat a pair; each pair counts once")
    if manifest["source"].get("columns", {}).get("rating"):
        lines.append("ratings are no weights: every interaction that is kept counts once")
    for file, reasons in manifest["source"]["skipped"].items():
        told = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
        lines.insert(0, f"skipped in {file}: {told}")
    lines.append("split: " + ", ".join(f"{part} {n}" for part, n in manifest["split"].items()))
    lines += [told for part, told in _WITHOUT.items() if not manifest["split"][part]]
    if manifest["settings"]["keep_cold_items"]:
        lines.append(f"items without an interaction: {manifest['cold_items']}")
    for name, modality in manifest["modalities"].items():
        lines.append(
            f"modality {name}: {modality['dimension']} dimensions, {modality['items']} items, "
            f"{modality['missing']} missing"
        )
        if modality.get("cold"):
            kept = manifest["settings"]["keep_cold_items"]
            lines[-1] += f"; {modality['cold']} rows of items without an interaction, " + (
                "kept" if kept else "left out (--keep_cold_items keeps them)"
            )
    return "\n".join(lines)
