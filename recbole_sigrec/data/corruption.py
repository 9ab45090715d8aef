"""Corrupted content, to test how models stand it: noisy rows and missing modalities.

Wrong edges are made where graphs are: :mod:`recbole_sigrec.graph.rewiring`.

What is corrupted follows from the data and ``corruption_seed`` alone, so that every model sees the
same; what a small share corrupts, a larger share corrupts too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from recbole_sigrec.config.keys import PluginKeys
from recbole_sigrec.data.features import Modality
from recbole_sigrec.errors import ConfigError

_NOISE, _DROP = 0, 1  # a random stream for each kind; 2 is that of rewired edges


def corrupt(modalities: dict[str, Modality], keys: PluginKeys) -> Iterator[str]:
    """Corrupt features and masks as ``noisy_features`` and ``dropped_modalities`` say, in place.

    Yields:
        What was done, for the log.

    Raises:
        ConfigError: no item would have a modality any more.
    """
    if keys.noisy_features > 0:
        for name, modality in modalities.items():
            n = add_noise(modality, keys.noisy_features, keys.corruption_seed, name)
            yield f"modality {name}: {n} rows replaced by noise"
    if keys.dropped_modalities > 0:
        dropped = drop(modalities, keys.dropped_modalities, keys.corruption_seed)
        for name, n in dropped.items():
            yield f"modality {name}: {n} items without it by dropped_modalities"


def add_noise(modality: Modality, share: float, seed: int, name: str) -> int:
    """Replace rows by noise, normal with the mean and deviation of each dimension, in place.

    Args:
        share: of the items that have the modality.
        seed, name: decide which rows, and on the noise.

    Returns:
        How many rows: the share, rounded.
    """
    rng = np.random.default_rng([seed, _NOISE, zlib.crc32(name.encode())])
    present = np.flatnonzero(modality.mask)
    rows = rng.permutation(present)[: round(share * len(present))]
    values = modality.features[present].astype(np.float64)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    modality.features[rows] = rng.normal(mean, deviation, (len(rows), values.shape[1]))
    return len(rows)


def drop(modalities: dict[str, Modality], share: float, seed: int) -> dict[str, int]:
    """Mark pairs of an item and a modality as missing, in place; their rows become zero.

    Args:
        share: of all pairs in which the item has the modality.

    Returns:
        How many items of each modality; together the share, rounded.

    Raises:
        ConfigError: no item would have a modality any more.
    """
    names = list(modalities)
    present = [np.flatnonzero(modality.mask) for modality in modalities.values()]
    owner = np.repeat(np.arange(len(names)), [len(items) for items in present])
    items = np.concatenate(present) if present else owner
    rng = np.random.default_rng([seed, _DROP])
    chosen = rng.permutation(len(items))[: round(share * len(items))]
    dropped = {}
    for n, (name, modality) in enumerate(modalities.items()):
        rows = items[chosen[owner[chosen] == n]]
        if len(rows) == len(present[n]):
            raise ConfigError(
                f"config key [dropped_modalities] = [{share}] leaves no item the modality [{name}]"
            )
        modality.mask[rows] = False
        modality.features[rows] = 0.0
        dropped[name] = len(rows)
    return dropped
