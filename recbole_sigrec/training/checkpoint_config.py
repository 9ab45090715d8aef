"""The config and the model's class of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_sigrec.config import Config
from recbole_sigrec.config.keys import AUTO, keys_of
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.errors import ConfigError, DataError


def config_of(
    state: Mapping[str, Any],
    model: type,
    model_file: str,
    overrides: Mapping[str, Any],
    dataset: str | None = None,
) -> Config:
    """The config of a checkpoint, to read its data again, or other data.

    Args:
        state: the checkpoint.
        model: its model's class.
        model_file: its file.
        overrides: config values that differ now.
        dataset: the data set; none given: that of the checkpoint.

    Raises:
        DataError: there is no data where it was, and ``data_path`` is not given.
    """
    values = json.loads(state["config"])
    values |= {key: own for key, own in state["chosen"].items() if values.get(key) == AUTO}
    for key in keys_of("derived") | {"dataset", "resume", "warm_start", "bundle", "result_file"}:
        values.pop(key, None)
    folder = Path(state["data_path"])  # as it was on the machine of the training
    own = folder.name == state["dataset"]
    if "data_path" not in overrides and dataset is None and not folder.is_dir():
        raise DataError(
            f"{model_file} was trained on the data in {folder}, which is not there now. Give the "
            f"folder that holds [{state['dataset']}]: data_path=…"
        )
    values["data_path"] = str(folder.parent if own else folder)
    if values["train_neg_sample_args"]["distribution"] == "none":
        values["train_neg_sample_args"] = None  # the form in which RecBole takes it
    values.update(overrides)
    name = dataset or state["dataset"]
    return Config(model, name, config_dict=values, command_line=(), parse_strings=False)


def model_of(state: Mapping[str, Any], model_file: str, model: type | None = None) -> type:
    """The class of a checkpoint's model.

    Args:
        model: the class, where it is the user's own.

    Raises:
        ConfigError: it is another one, or not known.
    """
    name = state["model"]
    if model is not None and model.__name__ != name:
        raise ConfigError(f"{model_file} is of model [{name}], not [{model.__name__}]")
    if model is not None:
        return model
    try:
        return resolve_model(name)
    except ConfigError as error:
        raise ConfigError(
            f"{model_file}: {error} If [{name}] is a class of your own, give it: model={name}"
        ) from None
