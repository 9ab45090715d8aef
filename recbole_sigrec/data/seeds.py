"""Seeds of what is drawn of the data: a random split, and the negatives of an evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from recbole.utils import init_seed

from recbole_sigrec.config import Config


def split_seed(config: Config) -> int:
    """The seed of a config's split, where it is drawn."""
    return config["seed"] if config["split_seed"] is None else config["split_seed"]


def seed_split(config: Config) -> None:
    """Seed what draws a random split: before the data set and its parts are made.

    :func:`recbole_sigrec.training.run.build_model` seeds what follows.
    """
    init_seed(split_seed(config), config["reproducibility"])


@contextlib.contextmanager
def fixed_draws(*key: int) -> Iterator[None]:
    """For the time of a block: NumPy's draws follow from the key alone.

    Those after it go on as if there had been none.
    """
    before = np.random.get_state()
    np.random.seed(key)
    try:
        yield
    finally:
        np.random.set_state(before)
