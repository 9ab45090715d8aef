"""run(): config → data set → loaders → model → trainer → result."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.sampler import RepeatableSampler
from recbole.utils import init_logger, init_seed
from texttable import Texttable

import recbole_sigrec
from recbole_sigrec import checkpoint, distributed
from recbole_sigrec.allocator import kept_memory
from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.data.loaders import loader_class
from recbole_sigrec.errors import ConfigError, DataError
from recbole_sigrec.registry import resolve_model
from recbole_sigrec.sampler import Sampler
from recbole_sigrec.trainer import check_shared, trainer_class

PICKLED = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")


def run(
    model=None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    command_line: Sequence[str] = (),
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: int | str | None = None,
    group_offset: int = 0,
) -> dict[str, Any]:
    """Train a model on a data set, and test it at its best validation epoch.

    Args:
        model: a name (ours or RecBole's) or a model class.
        dataset: name of a folder in ``data_path``, or ml-100k, which RecBole bundles.
        config_file_list, config_dict, command_line: see :class:`recbole_sigrec.config.Config`.
        saved: whether checkpoints are written; without them the last epoch's model is tested.
        nproc: processes on this machine that train the model together, one per GPU or on the CPU.
        world_size, ip, port, group_offset: for several machines, see
            :func:`recbole_sigrec.distributed.spawn`; they share ``data_path`` and
            ``checkpoint_dir``.

    Returns:
        The result: ``model, dataset, seed, config, split, best_valid_result, test_result, epochs,
        best_epoch, seconds_per_epoch, seconds_per_evaluation, seconds_setup, peak_rss_mb,
        n_parameters, processes, checkpoint, versions``; also written to ``result_file`` if that is
        set. Times and memory are those of the first process.

    Raises:
        ConfigError, DataError: the input is wrong; raised before training starts.
    """
    given = (model, dataset, config_file_list, config_dict, command_line)
    if nproc == 1 and world_size <= 1:
        return _run(given, saved)
    quiet()
    config = Config(*given)
    check_shared(config["MODEL_TYPE"], config["model"])
    return distributed.spawn(_run, (given, saved), nproc, world_size, ip, port, group_offset)


def _run(given: tuple, saved: bool) -> dict[str, Any]:
    """:func:`run` in this process, alone or one of several; ``given``: the Config's arguments."""
    started = time.perf_counter()
    quiet()
    config = Config(*given)
    distributed.connect(config["device"])
    if distributed.is_first():
        check_outputs(config)
    threads = config["threads"] or max(1, torch.get_num_threads() // distributed.place().nproc)
    with machine_settings(threads):
        result = _train_and_test(config, saved, started)
    if not distributed.is_first():
        return result
    if config["result_file"]:
        write_json(result, config["result_file"])
    table = "\n" + result_table(result)
    logging.getLogger().info(table)
    if not logging.getLogger().isEnabledFor(logging.INFO):
        print(table)
    return result


@contextlib.contextmanager
def machine_settings(threads: int):
    """For the time of a run: the number of CPU threads, denormal numbers flushed to zero, and
    :func:`~recbole_sigrec.allocator.kept_memory`.

    Gradients below 1e-38 make a CPU step several times slower. What was set before is restored.
    """
    before = torch.get_num_threads()
    kept_denormals = float(np.float64(1e-310) * 1.0) != 0.0
    try:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        with kept_memory():
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(not kept_denormals)


@contextlib.contextmanager
def paused_collection():
    """For the time of the set-up: without Python's collector of cyclic garbage.

    RecBole makes several sets and tensors for each user, which the collector goes through again and
    again; that is a quarter of the set-up's time with 100,000 users. What was set is restored.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _train_and_test(config, saved: bool, started: float) -> dict[str, Any]:
    """The result of :func:`run` for a config; ``started`` is when its set-up began."""
    seed_split(config)
    if distributed.is_first():
        init_logger(config)
    logger = logging.getLogger()
    logger.info(config)

    with paused_collection():
        data = create_dataset(config)
        logger.info(data)
        loaders = data_preparation(config, data)
        trainer = make_trainer(config, loaders[0])
    return fit_and_test(trainer, loaders, saved, started)


def make_trainer(config, train_data):
    """The trainer of a config's model, new or at the epoch of the checkpoint ``resume``."""
    with distributed.first_goes_first():  # it may write graphs that the others read
        net = build_model(config, train_data)
    logging.getLogger().info(net)
    trainer = trainer_class(config["MODEL_TYPE"], config["model"])(config, net)
    if config["resume"]:
        trainer.resume_checkpoint(config["resume"], train_data)
    return trainer


def fit_and_test(trainer, loaders, saved: bool, started: float) -> dict[str, Any]:
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
    test = trainer.evaluate(test_data, load_best_model=saved, show_progress=False)

    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "config": json.loads(checkpoint.config_json(config)),
        "split": {
            name: len(part.dataset)
            for name, part in (("train", train_data), ("valid", valid_data), ("test", test_data))
        },
        "best_valid_result": dict(best_valid or {}),
        "test_result": dict(test),
        "epochs": len(trainer.train_loss_dict) + trainer.start_epoch,
        "best_epoch": trainer.best_epoch,
        "seconds_per_epoch": _median(trainer.epoch_seconds),
        "seconds_per_evaluation": _median(trainer.evaluation_seconds),
        "seconds_setup": round(seconds_setup, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "n_parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "processes": distributed.place().world_size,
        "checkpoint": trainer.saved_model_file if saved else None,
        "versions": versions(),
    }


def split_seed(config) -> int:
    """The seed of a config's split, where it is drawn."""
    return config["seed"] if config["split_seed"] is None else config["split_seed"]


def seed_split(config) -> None:
    """Seed what draws a random split: before :func:`create_dataset` and :func:`data_preparation`.

    :func:`build_model` seeds what follows.
    """
    init_seed(split_seed(config), config["reproducibility"])


def create_dataset(config) -> MultimodalDataset:
    """The data set of a config; RecBole's pickled data sets are neither read nor written.

    Raises:
        DataError: the data cannot be used as it is.
    """
    return MultimodalDataset(config)


def data_preparation(config, dataset, parts=None):
    """Split the data set, or take its ``parts`` as they are, and make its loaders.

    Sets ``eval_batch_size`` (in scores, as RecBole counts it) from the number of items and
    ``eval_memory_mb`` where the user has set none.

    Returns:
        (training, validation, test) loaders, RecBole's classes.

    Raises:
        ConfigError: there are fewer items than the largest cutoff of ``topk``.
        DataError: the evaluation needs labels that are not there.
    """
    check_cutoffs(config, dataset)
    label = config["LABEL_FIELD"]
    if "labeled" in config["eval_args"]["mode"].values() and label not in dataset.inter_feat:
        raise DataError(
            f"config key [eval_args] has mode: labeled, and data set [{config['dataset']}] has no "
            f"field [{label}]: name it under load_col, or make it with threshold"
        )
    parts = dataset.build() if parts is None else parts
    if config["eval_batch_size"] is None:
        full = set(config["eval_args"]["mode"].values()) == {"full"}
        memory = config["eval_memory_mb"]
        # Sampled evaluation counts pairs, not scores: RecBole's own default there.
        config["eval_batch_size"] = evaluation_batch(dataset.item_num, memory) if full else 4096
    samplers = _samplers(config, dataset, parts)
    loaders = []
    for phase, part, sampler in zip(("train", "valid", "test"), parts, samplers, strict=True):
        shuffle = bool(config["shuffle"]) and phase == "train"
        loader = loader_class(config, phase, sampler)
        loaders.append(loader(config, part, sampler, shuffle=shuffle))
    return tuple(loaders)


def check_cutoffs(config, dataset) -> None:
    """See that a data set has as many items as the largest cutoff of ``topk``.

    Raises:
        ConfigError: it has fewer.
    """
    n_items = dataset.item_num - 1
    if max(config["topk"]) > n_items:
        raise ConfigError(
            f"config key [topk] = [{config['topk']}]: the data set has {n_items} items; give "
            f"cutoffs up to that, and valid_metric one of them"
        )


def evaluation_batch(n_items: int, memory_mb: int) -> int:
    """Scores per evaluation batch: as many whole users as ``memory_mb`` holds, at least one.

    Evaluation holds the scores, and while they are masked and ranked about three times as much.
    """
    users = max(1, int(memory_mb * 2**20 // (16 * n_items)))
    return users * n_items


def _samplers(config, dataset, parts):
    """One sampler for all phases (RecBole's rule), as (train, valid, test); None where unused."""
    phases = ("train", "valid", "test")
    alpha = config["train_neg_sample_args"]["alpha"]
    alpha = 1.0 if alpha == "none" else alpha
    base, result = None, []
    for phase in phases:
        distribution = config[f"{phase}_neg_sample_args"]["distribution"]
        if distribution == "none":
            result.append(None)
            continue
        if base is not None:
            if base.distribution != distribution:
                base.set_distribution(distribution)
        elif config["repeatable"]:
            if config["negative_items"] != "all":
                raise ConfigError(
                    f"config keys [repeatable] = [True] and [negative_items] = "
                    f"[{config['negative_items']}]: RecBole's sampler of repeatable items draws "
                    f"from all; set negative_items: all"
                )
            base = RepeatableSampler(list(phases), dataset, distribution, alpha)
        else:
            base = Sampler(list(phases), list(parts), distribution, alpha, config["negative_items"])
            if phase == "train":
                base.check_training()
        result.append(base.set_phase(phase))
    return result


def build_model(config, train_data):
    """The model of a config on its device, initialised from the config's seed."""
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    return config.model_class(config, train_data.dataset).to(config["device"])


def load_data_and_model(model_file: str, model: type | None = None, **overrides):
    """Load a saved model with its data, as RecBole's function of that name does.

    Args:
        model_file: a ``.pth`` checkpoint of this plugin.
        model: the model's class, where it is the user's own.
        overrides: config values that differ now, e.g. ``data_path``.

    Returns:
        (config, model, dataset, train_data, valid_data, test_data).

    Raises:
        ConfigError: the checkpoint is of a model class that is not given, or of another one.
        DataError: the file is not a checkpoint, or its data is gone.
    """
    quiet()
    state = checkpoint.load(model_file)
    if model is None:
        model = _model_of(state["model"], model_file)
    elif model.__name__ != state["model"]:
        raise ConfigError(f"{model_file} is of model [{state['model']}], not [{model.__name__}]")
    values = json.loads(state["config"])
    for key in ("device", "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "model", "dataset"):
        values.pop(key, None)
    for key in ("single_spec", "local_rank", "valid_neg_sample_args", "test_neg_sample_args"):
        values.pop(key, None)
    if Path(values["data_path"]).name == state["dataset"]:
        values["data_path"] = str(Path(values["data_path"]).parent)
    if values["train_neg_sample_args"]["distribution"] == "none":
        values["train_neg_sample_args"] = None  # the form in which RecBole takes it
    values.update(overrides)
    config = Config(model, state["dataset"], config_dict=values, parse_strings=False)
    seed_split(config)
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    net = build_model(config, loaders[0])
    if config["device"].type != "cpu":  # tensors that are no parameters stay where they are put
        state = checkpoint.load(model_file, config["device"])
    net.load_state_dict(state["state_dict"])
    net.load_other_parameter(state["other_parameter"])
    return config, net, dataset, *loaders


def _model_of(name: str, model_file: str) -> type:
    """The class of the model that a checkpoint names."""
    try:
        return resolve_model(name)
    except ConfigError as error:
        raise ConfigError(
            f"{model_file}: {error} If [{name}] is a class of your own, give it: "
            f"load_data_and_model(…, model={name})"
        ) from None


def check_outputs(config) -> None:
    """See that everything a run writes can be written, before it starts.

    Raises:
        ConfigError: a path cannot be written, or RecBole's pickled data sets are asked for.
    """
    for key in PICKLED:
        if config[key]:
            raise ConfigError(
                f"config key [{key}] = [{config[key]}]: pickled data sets and loaders are not "
                f"supported (a pickle file can run code when it is read); remove the key"
            )
    _check_writable("config key [checkpoint_dir]", Path(config["checkpoint_dir"]))
    if config["graph_cache_dir"]:
        _check_writable("config key [graph_cache_dir]", Path(config["graph_cache_dir"]))
    for folder in ("log", "log_tensorboard"):  # RecBole's, in the working directory
        _check_writable("the log", Path(folder))
    if config["result_file"]:
        path = Path(config["result_file"])
        if path.is_dir():
            raise ConfigError(f"config key [result_file] = [{path}] is a folder; name a file")
        _check_writable("config key [result_file]", path.parent)


def _check_writable(what: str, folder: Path) -> None:
    probe = folder / f".recbole_sigrec-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"{what}: folder [{folder}] cannot be written ({error.strerror}); name another"
        ) from None


def write_json(value: Any, path: str | Path) -> None:
    """Write JSON, see :func:`write_text`."""
    write_text(json.dumps(checkpoint.jsonable(value), indent=2) + "\n", path)


def write_text(text: str, path: str | Path) -> None:
    """Write a file under another name first, then rename it: never a half file."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def result_table(result: dict[str, Any]) -> str:
    """Best validation and test result as a small table: metrics down, cutoffs across."""
    cutoffs = sorted({int(key.partition("@")[2] or 0) for key in result["test_result"]})
    names = list(dict.fromkeys(key.partition("@")[0] for key in result["test_result"]))
    table = Texttable(max_width=0)
    table.set_deco(Texttable.HEADER)
    table.set_precision(4)
    head = [f"@{k}" if k else "" for k in cutoffs]
    table.set_cols_dtype(["t", *["t"] * (2 * len(cutoffs))])
    table.set_cols_align(["l", *["r"] * (2 * len(cutoffs))])
    rows = [["", *(f"valid {h}" for h in head), *(f"test {h}" for h in head)]]
    for name in names:
        row = [name]
        for part in ("best_valid_result", "test_result"):
            values = (result[part].get(f"{name}@{k}" if k else name) for k in cutoffs)
            row += ["" if value is None else f"{value:.4f}" for value in values]
        rows.append(row)
    table.add_rows(rows)
    title = f"{result['model']} on {result['dataset']}, best epoch {result['best_epoch']}"
    return f"{title}\n{table.draw()}"


def peak_rss_mb() -> float:
    """The peak of this process's resident memory in MiB; on Linux not that of its parent's."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on."""
    found = {"python": platform.python_version(), "recbole_sigrec": recbole_sigrec.__version__}
    for name in ("recbole", "torch", "numpy", "scipy", "pandas", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _median(seconds: list[float]) -> float | None:
    return round(statistics.median(seconds), 4) if seconds else None


def quiet() -> None:
    """Silence deprecation notices that RecBole's own code causes and no user can act on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"recbole\.")
