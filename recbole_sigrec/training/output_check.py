"""What a run writes, and what it needs for that: seen to before the run starts."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from recbole_sigrec.bundling.scoring_form import check_form
from recbole_sigrec.config import Config
from recbole_sigrec.config.keys import PICKLED
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.extras import need
from recbole_sigrec.files import is_passed_through, place_written
from recbole_sigrec.serving.bundle import check_target


def check_outputs(config: Config) -> None:
    """See that everything a run writes can be written, before it starts.

    Raises:
        ConfigError: a path cannot be written, or RecBole's pickled data sets are asked for.
        SIGRecError: a library that the run needs is not installed.
    """
    for key in PICKLED:
        if config[key]:
            raise ConfigError(
                f"config key [{key}] = [{config[key]}]: pickled data sets and loaders are not "
                f"supported (a pickle file can run code when it is read); remove the key"
            )
    if config["log_wandb"] and find_spec("wandb") is None:
        raise ConfigError(
            "config key [log_wandb] = [True] needs wandb, which is not installed: pip install "
            "wandb, or leave the key out"
        )
    if config["knn_search"] != "exact":
        need("faiss", f"config key [knn_search] = [{config['knn_search']}]", ", or set exact")
    if config["bundle"]:
        check_form(config.model_class)
        check_target(config["bundle"], force=False, otherwise="")
        _check_writable("config key [bundle]", Path(config["bundle"]).parent)
    for key in ("checkpoint_dir", "graph_cache_dir"):
        if config[key]:
            _check_writable(f"config key [{key}]", Path(config[key]))
    for folder in ("log", "log_tensorboard"):  # RecBole's, in the working directory
        _check_writable("the log", Path(folder))
    if config["result_file"]:
        path = Path(config["result_file"])
        if path.is_dir():
            raise ConfigError(f"config key [result_file] = [{path}] is a folder; name a file")
        if not is_passed_through(path):
            _check_writable("config key [result_file]", place_written(path))


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
