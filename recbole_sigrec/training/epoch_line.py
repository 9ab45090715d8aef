"""What a training says of an epoch: one line on the terminal, all of it in the log file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from recbole_sigrec.config import Config
from recbole_sigrec.display.progress import wipe_bars

DETAILS = logging.getLogger("recbole_sigrec.details")
"""Takes what is too long for a terminal: the configuration, the model, RecBole's lines of an epoch.
The log file has all of it."""


def log_file() -> str | None:
    """The file into which the log is written; None if there is none."""
    files = (h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler))
    return next((file.baseFilename for file in files), None)


@contextlib.contextmanager
def brief_terminal(config: Config) -> Iterator[None]:
    """Within the block, the terminal does not show :data:`DETAILS`, but their warnings.

    With ``verbose``, it shows them. A line of the log does not run into a progress bar.
    """

    def is_shown(record: logging.LogRecord) -> bool:
        is_detail = record.name == DETAILS.name and record.levelno < logging.WARNING
        if is_detail and not config["verbose"]:
            return False
        wipe_bars()
        return True

    # A subclass may be a user's, or write into a file.
    terminals = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
    try:
        for handler in terminals:
            handler.addFilter(is_shown)
        yield
    finally:
        for handler in terminals:
            handler.removeFilter(is_shown)


def epoch_line(trainer: Any, epoch: int, score: float | None = None) -> str:
    """An epoch in a line: loss, seconds, score, best score, what is left of the patience.

    That is how many validations more without a better score end the training. What is learned may
    raise it, see :func:`recbole_sigrec.training.patience.wait_for_learned`.

    Args:
        trainer: a ``SafeTrainer`` after the epoch.
        score: of its validation; None if there was none.
    """
    seconds = trainer.epoch_seconds[-1]
    parts = [f"epoch {epoch:>3}", f"loss {trainer.train_loss_dict[epoch]:.4f}"]
    if score is None:
        return " | ".join([*parts, f"{seconds:.1f} s"])
    seconds += trainer.evaluation_seconds[-1]
    patience = trainer.stopping_step if trainer.cur_step else trainer.config["stopping_step"]
    name = trainer.valid_metric.lower()
    parts += [f"{seconds:.1f} s", f"{name} {score:.4f}", f"best {trainer.best_valid_score:.4f}"]
    return " | ".join([*parts, f"patience {patience + 1 - trainer.cur_step}"])
