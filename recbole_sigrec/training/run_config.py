"""The config of a run: as given, or a checkpoint's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_sigrec.config import Config
from recbole_sigrec.config.keys import RESUME_KEYS
from recbole_sigrec.config.registry import model_name
from recbole_sigrec.config.values import parse_command_line, parse_value
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.training import checkpoint
from recbole_sigrec.training.checkpoint_config import config_of, model_of
from recbole_sigrec.user_paths import user_path

_SOURCES = ("refit", "warm_start")


def run_config(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    command_line: Sequence[str] = (),
) -> Config:
    """The config of a run; see :class:`recbole_sigrec.config.Config` for the arguments.

    With ``refit`` or ``warm_start`` it is that of the checkpoint, but for the keys given: with
    ``refit`` only those that a resumed run may change.

    Raises:
        ConfigError: a value is wrong, or may not be given.
        DataError: the checkpoint cannot be read.
    """
    given = {
        k: parse_value(v, k) if isinstance(v, str) else v for k, v in (config_dict or {}).items()
    }
    given.update(parse_command_line(command_line))
    sources = [key for key in _SOURCES if given.get(key)]
    if not sources:
        config = Config(model, dataset, config_file_list, config_dict, command_line)
        for key in _SOURCES:
            if config[key]:
                raise ConfigError(f"config key [{key}]: give it as an argument, not in a file")
        return config
    key, file = sources[0], str(user_path(given[sources[0]]))
    if len(sources) > 1:
        raise ConfigError("config keys [refit] and [warm_start]: give one of them")
    if config_file_list or given.get("resume"):
        what = "config files" if config_file_list else "config key [resume]"
        raise ConfigError(
            f"config key [{key}]: the configuration is that of {file}; leave out {what}"
        )
    state = checkpoint.load_model(file)
    if isinstance(model, str) and model_name(model) != state["model"]:
        raise ConfigError(f"{file} is of model [{state['model']}], not [{model}]")
    kind = model_of(state, file, model if isinstance(model, type) else None)
    if key == "warm_start":
        return config_of(state, kind, file, {"refit": None, **given}, dataset)
    started_from = json.loads(state["config"])["warm_start"]
    if started_from:
        raise ConfigError(
            f"config key [refit]: {file} was itself trained on from {started_from}, so that its "
            f"epochs alone do not make it again. Refit that one, or train anew"
        )
    free = RESUME_KEYS - {"epochs"} | {"refit"}
    changed = sorted(set(given) - free)
    if changed or dataset not in (None, state["dataset"]):
        what = f"[{changed[0]}]" if changed else f"data set [{dataset}]"
        raise ConfigError(
            f"config key [refit]: {file} is trained again as it was, with its data, for "
            f"{state['epoch'] + 1} epochs; {what} may not be given"
        )
    return config_of(state, kind, file, {**given, "epochs": state["epoch"] + 1})
