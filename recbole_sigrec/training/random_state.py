"""The states of all random generators that training draws from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def random_states(loader: torch.Generator) -> dict[str, Any]:
    """The states of torch, NumPy, Python and a loader's generator, for a checkpoint."""
    name, keys, *rest = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": list(random.getstate()[1]),
        "loader": loader.get_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = [torch.cuda.get_rng_state()]
    return states


def restore_random_states(states: dict[str, Any], loader: torch.Generator | None) -> None:
    """Set the generators to the states of :func:`random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    random.setstate((3, tuple(states["python"]), None))
    if loader is not None:
        loader.set_state(states["loader"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0].cpu())


@contextlib.contextmanager
def numbers_of(seed: int) -> Iterator[None]:
    """In the block torch draws from this seed; after it as if nothing had been drawn.

    Around an evaluation, since some of RecBole's models draw their scores: Random, ADMMSLIM among
    equal ones, DiffRec with ``sampling_noise``.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
