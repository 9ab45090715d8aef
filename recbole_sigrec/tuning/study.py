"""The study of a search: its file, what it searches, and which trial is next."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from recbole_sigrec.comparison.arms import Arm, Setting, content_hash, difference, settled_values
from recbole_sigrec.config import Config
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError, some
from recbole_sigrec.extras import need
from recbole_sigrec.tuning.space import Space, size, to_text

DATABASE, TABLE = "study.db", "trials.csv"  # in a search's folder

HASH = "sha256"  # of a trial, among its attributes

STARTUP_TRIALS = 4
"""Trials that are drawn at random, before the sampler looks at their scores."""

PRUNING_TRIALS = 2
"""Trials that are completed before any other is pruned."""

WARMUP_EPOCHS = 30
"""Epochs in which no trial is pruned: validation may fall for the first 20 before it rises."""

ATTEMPTS = 3
"""Times that a configuration is begun whose search is cut off before its first validation: the
system may kill the search for the memory that it needs."""

DRAWS = 20  # of the sampler that may all be known configurations, before one is drawn at random

SCORED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is searched."""

    arm: Arm  # the model
    setting: Setting  # what is given for it
    base: Config  # of the first trial
    space: Space  # of the keys that are searched
    default: Mapping[str, Any]  # the first trial's values of these keys, in the space's terms
    out: Path  # the folder of the study and its results
    trials: int  # how many configurations are tried
    jobs: int  # how many at a time, in processes of this machine
    threads: int  # of each trial, if the config names none
    storage: str | None = None  # URL of a PostgreSQL database; None: a file in the folder
    on_cluster: bool = False  # whether trials are made by the workers of a cluster

    @property
    def metric(self) -> str:
        """The validation metric that is searched for, as RecBole names it in results."""
        return self.base["valid_metric"].lower()

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.base["valid_metric_bigger"] else "minimize"

    @property
    def alone(self) -> bool:
        """Whether trials are made one by one, in this process."""
        return self.jobs == 1 and not self.on_cluster

    @property
    def place(self) -> str:
        """Where the study is, for messages; without a password."""
        if self.storage is None:
            return str(self.out / DATABASE)
        return f"study [{self.study_name}] in {make_url(self.storage)}"

    @property
    def study_name(self) -> str:
        """Of the study; in a database, where there may be others, the path of the folder."""
        return "tune" if self.storage is None else str(self.out.absolute())

    def config(self, values: Mapping[str, Any]) -> Config:
        """The config of a trial."""
        return self.setting.config(self.arm, checkpoint_dir=str(self.out), **values)


@contextlib.contextmanager
def damage_told(task: Task) -> Iterator[None]:
    """What SQLite and Optuna say of a file that is no study, or not a whole one, as our error.

    What :func:`write_errors_told` tells is raised as it is: the study may be sound.
    """
    try:
        yield
    except SIGRecError:
        raise
    except Exception as error:  # SQLAlchemy, Optuna and json raise many kinds
        if _is_unusable(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{task.place} is no study of Optuna, or is damaged ({reason}). {_remedy(task)}"
        ) from None


@contextlib.contextmanager
def write_errors_told(task: Task) -> Iterator[None]:
    """What a database says where the study cannot be written, as on a full disk, as our error."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        remedy = "make space on the disk, or see to the rights of the file and its folder"
        if task.storage is not None:
            remedy = "see to the database and its address"
        raise SIGRecError(
            f"{task.place} cannot be written ({reason}); {remedy}, and the same command goes on"
        ) from error


def _is_unusable(error: BaseException | None) -> bool:
    """Whether the database could not be opened, read or written, whatever it holds."""
    while error is not None and not isinstance(error, sqlite3.OperationalError):
        if isinstance(error, OperationalError) and not isinstance(error.orig, sqlite3.Error):
            return True
        error = error.__cause__
    lacks = ("no such ", "no column ")  # it was opened, and is no whole study
    return error is not None and not any(what in str(error) for what in lacks)


def _remedy(task: Task) -> str:
    if task.storage is not None:
        return "Name another --out, or delete the study, and the search begins anew"
    return f"Name another --out, or delete [{task.out}], and the search begins anew"


def open_study(task: Task) -> optuna.Study:
    """The study in the folder or the database, or a new one.

    Raises:
        DataError: the file is not a study, or not the one whose trials are in the table.
        SQLAlchemyError, StorageInternalError: the file cannot be opened or written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with damage_told(task):
        study = optuna.create_study(
            storage=_storage(task),
            pruner=optuna.pruners.MedianPruner(PRUNING_TRIALS, WARMUP_EPOCHS),
            study_name=task.study_name,
            direction=task.direction,
            load_if_exists=True,
        )
        if study.direction.name.lower() != task.direction:  # none is an IndexError
            raise ValueError(f"its direction is {study.direction.name.lower()}")
        if not study.get_trials(deepcopy=False) and (task.out / TABLE).is_file():
            raise DataError(
                f"{task.place} has no trial, but {TABLE} in [{task.out}] has some. {_remedy(task)}"
            )
    return study


def _storage(task: Task) -> optuna.storages.RDBStorage:
    if task.storage is not None:
        return optuna.storages.RDBStorage(task.storage, engine_kwargs={"pool_pre_ping": True})
    waits = {"connect_args": {"timeout": 60}}  # seconds, while another process writes
    return optuna.storages.RDBStorage(f"sqlite:///{task.out / DATABASE}", engine_kwargs=waits)


def check_storage(storage: str | None) -> None:
    """See that a database can hold a study that several machines write.

    Raises:
        ConfigError: it is not the URL of a PostgreSQL database.
        SIGRecError: its driver is not installed.
    """
    if storage is None:
        return
    needed = "postgresql+psycopg://USER@HOST/DATABASE"
    try:
        url = make_url(storage)
    except ArgumentError:
        raise ConfigError(f"storage: it is no URL; give {needed}") from None
    if url.drivername != "postgresql+psycopg":
        raise ConfigError(f"storage = [{url}]: give a PostgreSQL database, {needed}")
    need("cluster", f"storage = [{url}]")


def end_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    task: Task,
    state: TrialState,
    score: float | None = None,
) -> None:
    """Tell the end of a trial, with a hash of its values and scores."""
    with damage_told(task):
        known = study.get_trials(deepcopy=False)[trial.number]
        trial.set_user_attr(HASH, _trial_hash(known, score))
        study.tell(trial, score, state)


def _trial_hash(trial: FrozenTrial, score: float | None) -> str:
    params = trial.user_attrs["params"]
    return content_hash({"of": [trial.params, params, trial.intermediate_values, score]})


def check_trials(study: optuna.Study, task: Task) -> None:
    """See that all trials are there, and those with a score as they ended.

    Raises:
        DataError: one is gone or was changed.
    """
    bare = []
    with damage_told(task):
        for place, trial in enumerate(study.get_trials(deepcopy=False)):
            if trial.number != place or not isinstance(trial.user_attrs["params"], dict):
                raise ValueError(f"trial {place} is not there, or lacks its values")
        for trial in study.get_trials(deepcopy=False, states=SCORED):
            score = trial.value if trial.state == TrialState.COMPLETE else None
            if HASH not in trial.user_attrs:
                bare.append(trial.number)
            elif trial.user_attrs[HASH] != _trial_hash(trial, score):
                raise DataError(
                    f"{task.place}: trial {trial.number} was changed after it ended. "
                    f"{_remedy(task)}"
                )
    if bare:
        print(
            f"warning: an earlier version made trial {some(bare)} in {task.place}, "
            f"without a hash: whether they were changed since cannot be told",
            file=sys.stderr,
        )


def check_same(study: optuna.Study, task: Task, fingerprint: str) -> None:
    """Write into the study what it searches, or see that it is what it searched before.

    Args:
        fingerprint: that of the data, see :class:`Split`.

    Raises:
        ConfigError: it is something else.
    """
    now = {
        "config": settled_values(task.base),
        "search space": {
            key: json.loads(optuna.distributions.distribution_to_json(distribution))
            for key, distribution in task.space.items()
        },
        "data set": {"fingerprint": fingerprint},
    }
    with damage_told(task):
        before = study.user_attrs.get("task")
    if before is None:
        study.set_user_attr("task", now)
        return
    for part, what in now.items():
        with damage_told(task):
            changed = difference(before[part], what)
        if changed:
            raise ConfigError(
                f"{task.place} is a search with another {part}: {changed}. It is kept as it is; "
                f"name another --out"
            )


def end_interrupted(study: optuna.Study) -> None:
    """End the trials that were running when the search was cut off."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def was_cut_off(trial: FrozenTrial) -> bool:
    """Whether a trial ended because the search was cut off; it does not count as one."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def best_trial(study: optuna.Study, task: Task) -> FrozenTrial:
    """The completed trial with the best score; there must be one.

    Of equal scores, that whose configuration was begun first: a trial that was cut off and run anew
    has another number, and a search has one result however often it was cut off.

    Raises:
        DataError: the study is damaged.
    """
    first: dict[str, int] = {}
    with damage_told(task):
        for trial in study.get_trials(deepcopy=False):
            first.setdefault(to_text(trial.user_attrs["params"]), trial.number)
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        scores = [trial.value for trial in complete if trial.value is not None]
        best = max(scores) if task.direction == "maximize" else min(scores)
        equal = [trial for trial in complete if trial.value == best]
        return min(equal, key=lambda trial: first[to_text(trial.user_attrs["params"])])


def given_up(study: optuna.Study) -> set[str]:
    """The configurations, as JSON, that were begun ``ATTEMPTS`` times without a validation.

    A trial counts where it was alone at work: of several the system may have killed another.
    """
    vain = Counter(
        to_text(trial.user_attrs["params"])
        for trial in study.get_trials(deepcopy=False)
        if was_cut_off(trial) and not trial.intermediate_values  # later it needs no more memory
        if trial.user_attrs.get("alone") and "stopped" not in trial.user_attrs  # by the user
    )
    return {text for text, times in vain.items() if times >= ATTEMPTS}


def next_trial(study: optuna.Study, task: Task) -> optuna.Trial | None:
    """The next trial; none where all are made. One process at a time may ask.

    First comes the default configuration, then what was cut off, then what is drawn.
    """
    trials = study.get_trials(deepcopy=False)
    if not any(trial.state == TrialState.WAITING for trial in trials):
        counted = [trial for trial in trials if not was_cut_off(trial)]
        lost = given_up(study)
        tried = {to_text(trial.user_attrs["params"]) for trial in counted} | lost
        made = len(counted) + len(lost)
        if made >= task.trials or len(tried) >= size(task.space):
            return None
        known = [task.default, *(trial.user_attrs["params"] for trial in trials)]
        params = next((params for params in known if to_text(params) not in tried), None)
        if params is None:  # a search that goes on draws as if it had not been cut off
            scored = [trial for trial in counted if trial.state in SCORED]
            params = _draw(task, scored, tried, task.base["seed"] + made)
        study.enqueue_trial(dict(params), user_attrs={"params": dict(params)})
    return study.ask(task.space)


def _draw(task: Task, scored: list[FrozenTrial], tried: set[str], seed: int) -> dict[str, Any]:
    """A configuration that is not among those tried.

    It is drawn in a study in memory, so that a known configuration leaves no trace.
    """
    tpe = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
    scratch = optuna.create_study(direction=task.direction, sampler=tpe)
    scratch.add_trials(scored)
    while to_text((trial := scratch.ask(task.space)).params) in tried:
        scratch.tell(trial, state=TrialState.FAIL)
        if trial.number == len(scored) + DRAWS - 1:
            scratch.sampler = optuna.samplers.RandomSampler(seed)
    return trial.params
