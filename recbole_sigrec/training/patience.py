"""Early stopping of a model that adds automatic item scores to what it learns."""

from __future__ import annotations

from typing import Any

import numpy as np


def wait_for_learned(trainer: Any, learned: float, score: float) -> float:
    """Let a trainer wait as long for what is learned as for the whole.

    Item scores are good from the start, so that the whole may rest while what is learned gets
    better. And where they rank alone, the score is the same at each validation.

    Args:
        trainer: a ``SafeTrainer``; its ``stopping_step``, ``more_patience`` and
            ``best_learned_score`` are changed.
        learned: the score of what is learned alone.
        score: that of the whole.

    Returns:
        The score; the next worse number where it equals the best, which RecBole would take for a
        better one.
    """
    if trainer.cur_step == 0:
        trainer.more_patience = 0
    if learned > trainer.best_learned_score:
        trainer.best_learned_score, trainer.more_patience = learned, trainer.cur_step + 1
    trainer.stopping_step = trainer.config["stopping_step"] + trainer.more_patience
    if score == trainer.best_valid_score:
        worse = -np.inf if trainer.valid_metric_bigger else np.inf
        return float(np.nextafter(score, worse))
    return score
