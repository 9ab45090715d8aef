"""The trainers, one for each of RecBole's kinds, and which of them trains a model."""

from __future__ import annotations

import recbole.trainer
from recbole.utils import ModelType, get_trainer

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.training.loop import LeanLoop
from recbole_sigrec.training.trainer import SafeTrainer


class Trainer(SafeTrainer, LeanLoop):
    """RecBole's Trainer."""


class TraditionalTrainer(SafeTrainer, recbole.trainer.TraditionalTrainer, LeanLoop):
    """RecBole's trainer of models without an optimizer."""


class NCLTrainer(SafeTrainer, recbole.trainer.NCLTrainer):
    """RecBole's trainer of NCL."""


class RecVAETrainer(SafeTrainer, recbole.trainer.RecVAETrainer):
    """RecBole's trainer of RecVAE."""


TRAINERS = {
    kind.__name__: kind for kind in (Trainer, TraditionalTrainer, NCLTrainer, RecVAETrainer)
}
"""RecBole's name of a trainer → ours."""


def trainer_class(model_type: ModelType, model_name: str) -> type[SafeTrainer]:
    """The trainer of a model: RecBole's choice, made safe.

    Raises:
        ConfigError: RecBole trains the model in a way that this plugin does not know.
    """
    name = get_trainer(model_type, model_name).__name__
    if name not in TRAINERS:
        raise ConfigError(f"model [{model_name}] is trained by RecBole's {name}, not known here")
    return TRAINERS[name]


def check_shared(model_type: ModelType, model_name: str) -> None:
    """See that several processes can train a model.

    Raises:
        ConfigError: RecBole trains it in a loop of its own.
    """
    trainer = trainer_class(model_type, model_name)
    if not issubclass(trainer, LeanLoop):
        raise ConfigError(
            f"model [{model_name}] is trained by RecBole's {trainer.__name__}, in which several "
            f"processes cannot take part; run it with --nproc=1"
        )
