"""Shared fixtures: a small data set with a planted answer, and short ways to a config and a model.

Nothing here needs a network, a GPU or files outside pytest's temporary folders.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from tqdm import tqdm

from recbole_sigrec import Config, run
from recbole_sigrec.data.parts import create_dataset, data_preparation
from recbole_sigrec.model.automatic import choose_values
from recbole_sigrec.training.run import build_model
from recbole_sigrec.training.trainer_kinds import trainer_class

torch.set_num_threads(1)
# tqdm's own lock is shared with forked processes: one that a test kills while it holds the lock
# would never give it back, and the next progress bar would wait for ever.
tqdm.set_lock(threading.RLock())
settings.register_profile(
    "small",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("small")
ON_GPU = os.environ.get("RECBOLE_SIGREC_GPU") == "1"  # benchmarks/gpu.sh


@pytest.fixture(scope="session", autouse=True)
def _session_folder(tmp_path_factory):
    """RecBole writes log/ and log_tensorboard/ where it runs: for session fixtures, here."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def _test_folder(_session_folder, tmp_path, monkeypatch):
    """… and for each test, in its own temporary folder.

    A run makes the processor flush denormal numbers and may set the threads, for the whole process:
    undone here, so that no test depends on those before it.
    """
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)


@dataclasses.dataclass(frozen=True)
class Planted:
    """A data set in MMRec's layout whose structure is known. All ids are tokens (file numbers).

    Attributes:
        folder: the data set's folder; its name is the data set's.
        user_group, item_group: group of each user and item.
        parts: (user, item) pairs of the training, validation and test part.
        features: modality → the rows of its feature file.
        cold_items: items that only the test part has, one per group.
        test_user: the user that only the test part has.
        zero_item: the item whose row of ``zero_modality`` is zero.
    """

    folder: Path
    user_group: np.ndarray
    item_group: np.ndarray
    parts: tuple[list[tuple[int, int]], ...]
    features: dict[str, np.ndarray]
    cold_items: list[int]
    test_user: int
    zero_item: int
    zero_modality: str = "image"

    @property
    def n_users(self) -> int:
        return len(self.user_group)

    @property
    def n_items(self) -> int:
        return len(self.item_group)


def write_planted(
    folder: Path, groups: int = 4, users_each: int = 15, items_each: int = 14, seed: int = 7
) -> Planted:
    """Write the planted data set and return what is known about it.

    A user takes six items of the own group and one of another for training, one of the own for
    validation and two for the test; the cold item of each group is in the test part of three of its
    users. Both modalities scatter around their group's centre. Item numbers are shuffled, so that
    neither RecBole's ids nor the groups follow the order of the feature files.
    """
    rng = np.random.default_rng(seed)
    n_users, n_items = groups * users_each + 1, groups * items_each
    user_group = np.arange(n_users) % groups
    item_group = rng.permutation(np.arange(n_items) % groups)
    test_user = n_users - 1
    cold = [int(np.flatnonzero(item_group == g)[-1]) for g in range(groups)]
    parts: tuple[list, list, list] = ([], [], [])
    for user in range(n_users):
        own = np.setdiff1d(np.flatnonzero(item_group == user_group[user]), cold)
        other = np.setdiff1d(np.flatnonzero(item_group != user_group[user]), cold)
        own = rng.permutation(own)
        if user == test_user:
            parts[2].extend((user, int(i)) for i in own[:3])
            continue
        parts[0].extend((user, int(i)) for i in own[:6])
        parts[0].append((user, int(rng.choice(other))))
        parts[1].append((user, int(own[6])))
        parts[2].extend((user, int(i)) for i in own[7:9])
        if user < 3 * groups:
            parts[2].append((user, cold[user_group[user]]))
    trained = {i for _, i in parts[0]}
    assert trained == set(range(n_items)) - set(cold)

    features = {}
    for name, width in (("image", 12), ("text", 8)):
        centre = rng.normal(size=(groups, width))
        noise = 0.3 * rng.normal(size=(n_items, width))
        features[name] = (centre[item_group] + noise).astype(np.float32)
    zero_item = int(np.setdiff1d(np.arange(n_items), cold)[5])
    features["image"][zero_item] = 0.0

    folder.mkdir(parents=True)
    lines = [(u, i, label) for label, part in enumerate(parts) for u, i in part]
    with open(folder / f"{folder.name}.inter", "w", encoding="utf-8") as file:
        file.write("userID\titemID\trating\ttimestamp\tx_label\n")
        for place in rng.permutation(len(lines)):
            user, item, label = lines[place]
            file.write(f"{user}\t{item}\t1.0\t{place}\t{label}\n")
    for name, values in features.items():
        np.save(folder / f"{name}_feat.npy", values)
    return Planted(
        folder, user_group, item_group, parts, features, cold, test_user, zero_item, "image"
    )


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Planted:
    """The planted data set; read only (see ``write_planted`` for how it is made)."""
    return write_planted(tmp_path_factory.mktemp("data") / "planted")


@pytest.fixture
def copied(planted, tmp_path) -> Path:
    """A copy of the planted data that a test may change."""
    return shutil.copytree(planted.folder, tmp_path / "data" / "planted")


@pytest.fixture
def with_audio(planted, tmp_path) -> Path:
    """A folder with the planted data and a third modality, ``audio``, of 5 random dimensions."""
    folder = tmp_path / "with_audio"
    folder.mkdir()
    for file in planted.folder.iterdir():
        (folder / file.name.replace("planted", "with_audio")).write_bytes(file.read_bytes())
    audio = np.random.default_rng(3).normal(0.5, 1.0, (planted.n_items, 5)).astype(np.float32)
    np.save(folder / "audio_feat.npy", audio)
    return folder


def _make_values(folder, **overrides) -> dict:
    return {
        "data_path": str(Path(folder).parent),
        "checkpoint_dir": str(Path.cwd() / "saved"),
        "use_gpu": ON_GPU,
        "gpu_id": "0" if ON_GPU else "",
        "epochs": 2,
        "train_batch_size": 128,
        "embedding_size": 16,
        "show_progress": False,
        "state": "ERROR",
        **overrides,
    }


@pytest.fixture(scope="session")
def run_on():
    """``run_on(folder, model, **overrides)``: the result of a small run on a data set's folder."""

    def run_on(folder, model="SIGRec", **overrides):
        return run(model, folder.name, config_dict=_make_values(folder, **overrides))

    return run_on


def _make_config(model, folder, **overrides) -> Config:
    return Config(model, Path(folder).name, config_dict=_make_values(folder, **overrides))


@pytest.fixture(scope="session")
def make_values():
    """``make_values(folder, **overrides)``: the config values of ``make_config``, for ``run``."""
    return _make_values


@pytest.fixture(scope="session")
def make_config():
    """``make_config(model, folder, **overrides)``: a small CPU Config; it writes into the cwd."""
    return _make_config


@dataclasses.dataclass
class Prepared:
    """A config's data set, loaders, model and trainer."""

    config: Config
    dataset: object
    train: object
    valid: object
    test: object
    model: torch.nn.Module
    trainer: object


def _prepare(config) -> Prepared:
    dataset = create_dataset(config)
    train, valid, test = loaders = data_preparation(config, dataset)
    choose_values(config, loaders)
    model = build_model(config, train)
    trainer = trainer_class(config["MODEL_TYPE"], config["model"])(config, model)
    return Prepared(config, dataset, train, valid, test, model, trainer)


@pytest.fixture(scope="session")
def prepare():
    """``prepare(config)``: a config's data set, loaders, model and trainer, as ``run`` has them."""
    return _prepare
