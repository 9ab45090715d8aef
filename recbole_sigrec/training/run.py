"""run(): config → data set → loaders → model → trainer → result."""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType, init_logger, init_seed

from recbole_sigrec.bundling.make import make_bundle
from recbole_sigrec.config import AUTO, Config
from recbole_sigrec.config.script import script_arguments
from recbole_sigrec.data.cold_items import held_out_items
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.data.identity import differences
from recbole_sigrec.data.parts import PHASES, Loaders, create_dataset, data_preparation
from recbole_sigrec.data.seeds import seed_split
from recbole_sigrec.display.progress import bars_wanted, working
from recbole_sigrec.files import write_json
from recbole_sigrec.model.automatic import AUTOMATIC, choose_values
from recbole_sigrec.model.item_scores import GRAPH_ALONE
from recbole_sigrec.parallel import distributed
from recbole_sigrec.parallel.pool import check_importable
from recbole_sigrec.recbole_repairs.evaluator import OVER_ALL_ITEMS
from recbole_sigrec.recbole_repairs.log_files import own_log_file
from recbole_sigrec.recbole_repairs.models import model_errors
from recbole_sigrec.recbole_repairs.notices import quiet
from recbole_sigrec.serving.bundle import write_bundle
from recbole_sigrec.training import checkpoint
from recbole_sigrec.training.epoch_line import DETAILS, brief_terminal, log_file
from recbole_sigrec.training.machine import machine_settings, paused_collection, peak_rss_mb
from recbole_sigrec.training.output_check import check_outputs
from recbole_sigrec.training.result import RunResult, result_table, versions
from recbole_sigrec.training.run_config import run_config
from recbole_sigrec.training.trainer import SafeTrainer
from recbole_sigrec.training.trainer_kinds import check_shared, trainer_class
from recbole_sigrec.training.warm_start import warm_start


def run(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
    command_line: Sequence[str] | None = None,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: int | str | None = None,
    group_offset: int = 0,
) -> RunResult:
    """Train a model on a data set, and test it at its best validation epoch.

    Args:
        model: a name (ours or RecBole's) or a model class.
        dataset: name of a folder in ``data_path``, or ml-100k, which RecBole bundles.
        config_file_list, config_dict, command_line: see :class:`recbole_sigrec.config.Config`.
        saved: whether checkpoints are written; without them the last epoch's model is tested.
        nproc: processes on this machine that train the model together, one per GPU or on the CPU.
        world_size, ip, port, group_offset: for several machines, see
            :func:`recbole_sigrec.parallel.distributed.spawn`; they share ``data_path`` and
            ``checkpoint_dir``.

    Returns:
        The result; also written to ``result_file`` if that is set. Times and memory are those of
        the first process.

    Raises:
        ConfigError, DataError: the input is wrong; raised before training starts.
    """
    if command_line is None:  # here, since every process of several would read them
        command_line = script_arguments(model)
    given = (model, dataset, config_file_list, config_dict, command_line)
    check_importable([model], max(nproc, world_size), "nproc")
    if nproc == 1 and world_size <= 1:
        return _run(given, saved)
    quiet()
    config = run_config(*given)
    check_shared(config["MODEL_TYPE"], config["model"])
    places = nproc, world_size, ip, port, group_offset
    return RunResult(**distributed.spawn(_run, (given, saved), *places))


def _run(given: tuple, saved: bool) -> RunResult:
    """:func:`run` in this process, alone or one of several; ``given``: the Config's arguments."""
    started = time.perf_counter()
    quiet()
    config = run_config(*given)
    distributed.connect(config["device"])
    if distributed.is_first():
        check_outputs(config)
    threads = config["threads"] or max(1, torch.get_num_threads() // distributed.place().nproc)
    with machine_settings(threads):
        trainer, loaders, result = _train_and_test(config, saved, started)
    if not distributed.is_first():
        return result
    table = "\n" + result_table(result)
    logging.getLogger().info(table)
    if not logging.getLogger().isEnabledFor(logging.INFO):
        print(table)
    if config["result_file"]:  # after the table, which a full disk does not take along
        write_json(result, config["result_file"])
    if config["bundle"]:
        metrics = {"valid": result.best_valid_result, "test": result.test_result}
        about = {"metrics": metrics, "versions": result.versions}
        bundle = make_bundle(config, trainer.model, loaders[0], loaders[1], about)
        write_bundle(bundle, config["bundle"])
        logging.getLogger().info(f"Bundle written to {config['bundle']}")
    return result


def _train_and_test(
    config: Config, saved: bool, started: float
) -> tuple[SafeTrainer, Loaders, RunResult]:
    """What :func:`run` makes of a config; ``started`` is when its set-up began."""
    seed_split(config)
    if distributed.is_first():
        with own_log_file():
            init_logger(config)
    logger = logging.getLogger()
    with brief_terminal(config):
        if (file := log_file()) and not config["verbose"]:
            logger.info(f"the configuration and all metrics of each epoch: {os.path.relpath(file)}")
        DETAILS.info(config)
        with paused_collection(), bars_wanted(bool(config["show_progress"])):
            resumed = config["resume"] and checkpoint.load_model(config["resume"])
            data = create_dataset(config, resumed["data"] if resumed else None)
            logger.info(data)
            loaders = data_preparation(config, data)
            _log_parts(config, data, loaders)
            trainer = make_trainer(config, loaders)
        return trainer, loaders, fit_and_test(trainer, loaders, saved, started)


def make_trainer(config: Config, loaders: Loaders) -> SafeTrainer:
    """The trainer of a config's model, new or at the epoch of the checkpoint ``resume``.

    Keys of the config that say ``auto`` get their values; those of a resumed run are what they
    were.
    """
    train_data = loaders[0]
    if config["resume"]:
        before = json.loads(checkpoint.load_model(config["resume"])["config"])
        for key in AUTOMATIC:
            if config[key] == AUTO and key in before:
                config[key] = before[key]
    with bars_wanted(bool(config["show_progress"])):
        choose_values(config, loaders)
        with distributed.first_goes_first():  # it may write graphs that the others read
            net = build_model(config, train_data)
    DETAILS.info(net)
    trainer = trainer_class(config["MODEL_TYPE"], config["model"])(config, net)
    if config["warm_start"]:
        warm_start(net, config["warm_start"], train_data)
    if config["resume"]:
        trainer.resume_checkpoint(config["resume"], train_data)
    return trainer


def build_model(config: Config, train_data: AbstractDataLoader) -> AbstractRecommender:
    """The model of a config on its device, initialised from the config's seed.

    Raises:
        ConfigError: a model of RecBole's cannot be made with the config.
    """
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    closed_form = config["MODEL_TYPE"] == ModelType.TRADITIONAL  # its fit is its construction
    with model_errors(config), working(config["model"]) if closed_form else nullcontext():
        return config.model_class(config, train_data.dataset).to(config["device"])


def fit_and_test(trainer: SafeTrainer, loaders: Loaders, saved: bool, started: float) -> RunResult:
    """Train, test at the best epoch: the result of :func:`run`.

    Args:
        trainer: see :func:`make_trainer`.
        loaders: those of training, validation and test.
        saved: see :func:`run`.
        started: when the set-up began, by ``time.perf_counter``.
    """
    config, net = trainer.config, trainer.model
    train_data, valid_data, test_data = loaders
    seconds_setup = time.perf_counter() - started

    show = bool(config["show_progress"]) and sys.stderr.isatty()
    _, best_valid = trainer.fit(train_data, valid_data, saved=saved, show_progress=show)
    if saved:
        trainer.load_best()
    for key, value in trainer.chosen_values().items():
        config[key] = value
        alone = "; the item graph ranks alone" if value == GRAPH_ALONE else ""
        logging.getLogger().info(f"auto: {key} = {value}{alone}")
    test: dict[str, float] = {}
    if test_data is not None:
        test = trainer.evaluate(test_data, load_best_model=False, show_progress=show)
        cold = held_out_items(train_data.dataset, test_data.dataset)
        if cold is not None and config["eval_args"]["mode"]["test"] == "full":
            with trainer.ranking_among(cold):
                found = trainer.evaluate(test_data, load_best_model=False, show_progress=show)
            # Coverage and the like are over all items, which are not ranked here.
            ranked = {k: v for k, v in found.items() if k.partition("@")[0] not in OVER_ALL_ITEMS}
            test |= {f"cold_{name}": value for name, value in ranked.items()}

    sizes = (len(part.dataset) if part else 0 for part in loaders)  # pyright: ignore[reportArgumentType]
    return RunResult(
        model=config["model"],
        dataset=config["dataset"],
        seed=config["seed"],
        config=json.loads(checkpoint.config_json(config)),
        split=dict(zip(PHASES, sizes, strict=True)),
        best_valid_result=dict(best_valid or {}),
        test_result=dict(test),
        epochs=len(trainer.train_loss_dict) + trainer.start_epoch,
        best_epoch=trainer.best_epoch,
        seconds_per_epoch=_median(trainer.epoch_seconds),
        seconds_per_evaluation=_median(trainer.evaluation_seconds),
        seconds_setup=round(seconds_setup, 3),
        peak_rss_mb=round(peak_rss_mb(), 1),
        n_parameters=sum(p.numel() for p in net.parameters() if p.requires_grad),
        processes=distributed.place().world_size,
        checkpoint=trainer.saved_model_file if saved else None,
        versions=versions(),
    )


def _log_parts(config: Config, data: MultimodalDataset, loaders: Loaders) -> None:
    """Say what a refit, or a run without validation or test, means."""
    if config["refit"] and data.split_off is not None:
        changed = differences(checkpoint.load_model(config["refit"])["data"], data.split_off)
        if changed:
            logging.getLogger().warning(
                f"{config['refit']} was trained on other data; now there are {'; '.join(changed)}"
            )
        logging.getLogger().info(
            f"Refit of {config['refit']}: all interactions, of training, validation and test, are "
            f"trained on for {config['epochs']} epochs, as many as its best one needed. Nothing is "
            f"left to validate or test on"
        )
        return
    _, valid, test = loaders
    if valid is None:
        logging.getLogger().warning(
            "no validation part: all epochs are trained, and the last one's model is kept"
        )
    if test is None:
        logging.getLogger().warning("no test part: the model is not tested")


def _median(seconds: list[float]) -> float | None:
    return round(statistics.median(seconds), 4) if seconds else None
