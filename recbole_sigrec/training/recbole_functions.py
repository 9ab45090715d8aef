"""RecBole's own functions, with its signatures and the keys of its results.

A run by one call, and step by step with the figures of :func:`recbole_sigrec.run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType, init_seed

from recbole_sigrec.config import Config
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.data import parts
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.data.seeds import seed_split
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model.automatic import choose_values
from recbole_sigrec.recbole_repairs.notices import quiet
from recbole_sigrec.training.output_check import check_outputs
from recbole_sigrec.training.run import run
from recbole_sigrec.training.trainer import SafeTrainer
from recbole_sigrec.training.trainer_kinds import trainer_class


def run_recbole(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    queue: Any = None,
) -> dict[str, Any]:
    """Train and test a model, as RecBole's function of this name does.

    Args:
        model, dataset, config_file_list, config_dict, saved: see :func:`recbole_sigrec.run`.
        queue: if given, the result is put into it.

    Returns:
        ``best_valid_score, valid_score_bigger, best_valid_result, test_result``.

    Raises:
        ConfigError, DataError: the input is wrong; raised before training starts.
    """
    found = run(model, dataset, config_file_list, config_dict, saved)
    result = {
        "best_valid_score": found.best_valid_result.get(found.config["valid_metric"].lower()),
        "valid_score_bigger": found.config["valid_metric_bigger"],
        "best_valid_result": found.best_valid_result,
        "test_result": found.test_result,
    }
    if queue is not None:
        queue.put(result)
    return result


def objective_function(
    config_dict: dict[str, Any] | None = None,
    config_file_list: Sequence[str] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train and test one configuration of a search, as RecBole's function of this name does.

    Args:
        config_dict, config_file_list: the configuration; its keys ``model`` and ``dataset`` say
            what is trained on what.
        saved: whether checkpoints are written.

    Returns:
        ``model`` and what :func:`run_recbole` returns.
    """
    values = dict(config_dict or {})
    model, dataset = values.pop("model", None), values.pop("dataset", None)
    found = run_recbole(model, dataset, config_file_list, values, saved)
    return {"model": model, **found}


_RUN_ALONE = ("bundle", "refit", "result_file", "resume", "warm_start")
"""Keys that say what is done before or after the steps."""


def create_dataset(config: Config) -> MultimodalDataset:
    """The data set of a config, as RecBole's function of this name makes it.

    For the whole process it sets the seed, the config's ``threads``, and that denormal numbers are
    flushed to zero, as :func:`recbole_sigrec.run` does for its time.

    Raises:
        ConfigError: a key is set that only :func:`recbole_sigrec.run` follows, or the config asks
            for RecBole's pickled data sets.
        DataError: the data cannot be used as it is.
    """
    quiet()
    for key in _RUN_ALONE:
        if config[key]:
            raise ConfigError(
                f"config key [{key}] = [{config[key]}]: only run(…) and recbole-sigrec run follow "
                f"it; remove the key"
            )
    check_outputs(config)
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.set_flush_denormal(True)
    seed_split(config)
    dataset = parts.create_dataset(config)
    parts.set_evaluation_batch(config, dataset)  # RecBole's data_preparation needs it
    return dataset


def data_preparation(config: Config, dataset: MultimodalDataset) -> parts.Loaders:
    """The loaders of training, validation and test, as RecBole's function of this name makes them.

    Keys of the config that say ``auto`` get their values here. It sets the seed from which the
    model is made next.

    Returns:
        (training, validation, test); None for a part that is empty.

    Raises:
        ConfigError: the data set is not one of :func:`create_dataset`, or ``topk`` is too large.
        DataError: the split cannot be made.
    """
    if not isinstance(dataset, MultimodalDataset):
        raise ConfigError(
            f"data_preparation: [{type(dataset).__name__}] is a data set of RecBole's own; make it "
            f"with recbole_sigrec.create_dataset(config)"
        )
    loaders = parts.data_preparation(config, dataset)
    choose_values(config, loaders)
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    return loaders


def get_model(model_name: str) -> type[AbstractRecommender]:
    """The class of a model's name, this plugin's or RecBole's.

    Raises:
        ConfigError: no model has that name, or it cannot run on current libraries.
    """
    return resolve_model(model_name)


def get_trainer(model_type: ModelType, model_name: str) -> type[SafeTrainer]:
    """The class that trains a model: RecBole's choice, with checkpoints that torch reads.

    Raises:
        ConfigError: RecBole trains the model in a way that this plugin does not know.
    """
    return trainer_class(model_type, model_name)
