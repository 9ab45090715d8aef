"""The names of RecBole's log files, which tell the second of a run's start."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import recbole.utils.logger


@contextlib.contextmanager
def own_log_file() -> Iterator[None]:
    """While RecBole opens a run's log: its name gets a random part.

    Runs of one config that start within a second would write one log.
    """
    module = recbole.utils.logger
    original = module.get_local_time
    try:
        module.get_local_time = lambda: f"{original()}-{secrets.token_hex(4)}"
        yield
    finally:
        module.get_local_time = original
