"""What a run can go on from: its own checkpoint, under its own config, on its own data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader

from recbole_sigrec.config import Config
from recbole_sigrec.config.keys import RESUME_KEYS
from recbole_sigrec.data.identity import Identity, differences, vocabulary
from recbole_sigrec.errors import ConfigError, DataError, some
from recbole_sigrec.recbole_repairs.models import why_not_resumed
from recbole_sigrec.training import checkpoint
from recbole_sigrec.training.checkpoint import is_number, is_result


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_validation, value))


def _is_validation(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    loss = value.get("train_loss")
    return (
        (is_number(loss) or _are_numbers(loss))
        and all(is_number(value.get(name)) for name in ("epoch", "valid_score"))
        and is_result(value.get("valid_result"))
    )


PROGRESS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("cur_step", "best_epoch", "more_patience"), is_number),
    **dict.fromkeys(("best_valid_score", "best_learned_score"), is_number),
    **dict.fromkeys(("epoch_seconds", "evaluation_seconds"), _are_numbers),
    **{"best_valid_result": is_result, "history": _is_history},
}
"""What a ``*.last.pth`` file keeps of a trainer as it is: attribute → what it must be."""


def read_last(resume_file: str, config: Config, device: torch.device) -> dict[str, Any]:
    """What a ``*.last.pth`` file holds.

    Raises:
        ConfigError: it cannot be resumed, or is of another model or data set than the config.
        DataError: it is not a checkpoint.
    """
    reason = why_not_resumed(config)
    if reason:
        raise ConfigError(f"a run of {config['model']} cannot be resumed: {reason}")
    state = checkpoint.load_model(resume_file, device)
    if "optimizer" not in state:
        raise ConfigError(
            f"checkpoint [{resume_file}] holds the best model alone; resume from the *.last.pth "
            f"file beside it"
        )
    for key in ("model", "dataset"):
        if state[key] != config[key]:
            raise ConfigError(
                f"checkpoint [{resume_file}] is of {key} {state[key]}, not {config[key]}"
            )
    for name, is_sound in PROGRESS.items():
        if not is_sound(state[name]):
            raise DataError(f"checkpoint [{resume_file}] is damaged in its part [{name}]")
    return state


def check_same_config(resume_file: str, saved: dict[str, Any], config: Config) -> None:
    """See that a resumed run is the run that was: another seed would split the data anew.

    Raises:
        ConfigError: a value is another one.
    """
    now = json.loads(checkpoint.config_json(config))
    keys = (set(saved) | set(now)) - RESUME_KEYS
    changed = sorted(key for key in keys if saved.get(key) != now.get(key))
    if changed:
        key = changed[0]
        raise ConfigError(
            f"checkpoint [{resume_file}] was trained with another config: {some(changed)}; "
            f"[{key}] was [{saved.get(key)}], it is [{now.get(key)}]. Resume with the same "
            f"values, or train anew"
        )


def check_same_data(resume_file: str, saved: Identity, train_data: AbstractDataLoader) -> None:
    """See that a resumed run has the data that it had, each row with the token that it had.

    Raises:
        DataError: the data has changed.
    """
    part: Any = train_data.dataset
    changed = differences(saved, part)
    if not changed and any(saved[kind] != own for kind, own in vocabulary(part).items()):
        changed = ["users or items in another order"]
    if changed:
        config = part.config
        raise DataError(
            f"checkpoint [{resume_file}] cannot be resumed: data set [{config['dataset']}] in "
            f"{config['data_path']} has {'; '.join(changed)}. Resume with the data that it had, or "
            f"train anew"
        )
