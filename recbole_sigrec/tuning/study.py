"""The study of a search: its file, what it searches, and which trial is next."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from recbole_sigrec.config import Config
from recbole_sigrec.errors import ConfigError, DataError
from recbole_sigrec.evaluator.arms import Arm, Setting, difference, settled_values
from recbole_sigrec.evaluator.split import FINGERPRINT
from recbole_sigrec.tuning.space import Space, size

DATABASE = "study.db"  # in a search's folder

STARTUP_TRIALS = 4
"""Trials that are drawn at random, before the sampler looks at their scores."""

PRUNING_TRIALS = 2
"""Trials that are completed before any other is pruned."""

WARMUP_EPOCHS = 30
"""Epochs in which no trial is pruned: validation may fall for the first 20 before it rises."""

ATTEMPTS = 3
"""Times that a configuration is begun that never reaches its first validation, because the search
is cut off: it may be what the system kills the search for."""

DRAWS = 20  # of the sampler that may all be known configurations, before one is drawn at random

SCORED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is searched.

    Attributes:
        arm, setting: the model and what is given for it, see :class:`Setting`.
        base: their config, that of the first trial.
        space: the distributions of the keys that are searched.
        default: their values in the base, in the terms of the space: the first trial.
        out: the folder of the study and its results.
        trials: how many configurations are tried.
        jobs: how many at a time.
        threads: of each trial, if the config names none.
    """

    arm: Arm
    setting: Setting
    base: Config
    space: Space
    default: Mapping[str, Any]
    out: Path
    trials: int
    jobs: int
    threads: int

    @property
    def metric(self) -> str:
        """The validation metric that is searched for, as RecBole names it in results."""
        return self.base["valid_metric"].lower()

    @property
    def direction(self) -> str:
        return "maximize" if self.base["valid_metric_bigger"] else "minimize"

    def config(self, values: Mapping[str, Any]) -> Config:
        """The config of a trial."""
        return self.setting.config(self.arm, checkpoint_dir=str(self.out), **values)


def open_study(task: Task) -> optuna.Study:
    """The study in the folder, or a new one.

    Raises:
        DataError: the file is not a study.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = task.out / DATABASE
    waits = {"connect_args": {"timeout": 60}}  # seconds, while another process writes
    try:
        return optuna.create_study(
            storage=optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs=waits),
            pruner=optuna.pruners.MedianPruner(PRUNING_TRIALS, WARMUP_EPOCHS),
            study_name="tune",
            direction=task.direction,
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is no study of Optuna ({reason}); name another --out") from None


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
    before = study.user_attrs.get("task")
    if before is None:
        study.set_user_attr("task", now)
        return
    if not before["data set"]["fingerprint"].startswith(FINGERPRINT):
        raise ConfigError(
            f"{task.out / DATABASE} is of an earlier version of this plugin. It is kept as it is; "
            f"name another --out"
        )
    for part, what in now.items():
        changed = difference(before[part], what)
        if changed:
            raise ConfigError(
                f"{task.out / DATABASE} is a search with another {part}: {changed}. It is kept as "
                f"it is; name another --out"
            )


def enqueue(study: optuna.Study, params: Mapping[str, Any]) -> None:
    """Queue a configuration, in the terms of the space."""
    params = dict(params)
    study.enqueue_trial(params, user_attrs={"params": params})


def queue_again(study: optuna.Study) -> list[dict[str, Any]]:
    """Give up the trials that were running when the search was cut off, and queue them anew.

    One that was begun in vain ``ATTEMPTS`` times is not queued again. It may be cut off itself,
    anywhere: no configuration is lost, and none is queued twice.

    Returns:
        The configurations that are not queued again, in the terms of the space.
    """
    given_up = []
    waiting = [t.user_attrs["params"] for t in study.get_trials(states=(TrialState.WAITING,))]
    in_vain = _begun_in_vain(study)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        params = trial.user_attrs["params"]
        in_vain[_text(params)] += _is_in_vain(trial)
        if "error" not in trial.user_attrs and params not in waiting:  # it had not failed yet
            if in_vain[_text(params)] < ATTEMPTS:
                enqueue(study, params)
            else:
                given_up.append(params)
        study.tell(trial.number, state=TrialState.FAIL)
    return given_up


def was_cut_off(trial: FrozenTrial) -> bool:
    """Whether a trial was given up by :func:`queue_again`; it does not count as one."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def _is_in_vain(trial: FrozenTrial) -> bool:
    """Whether a trial that was cut off may be why: alone at work, not stopped by the user, and
    before its first validation, after which it needs no more memory."""
    known = trial.user_attrs
    return known.get("alone", False) and "stopped" not in known and not trial.intermediate_values


def _begun_in_vain(study: optuna.Study) -> Counter[str]:
    """How often each configuration was begun in vain."""
    trials = study.get_trials(deepcopy=False)
    cut_off = [trial for trial in trials if was_cut_off(trial) and _is_in_vain(trial)]
    return Counter(_text(trial.user_attrs["params"]) for trial in cut_off)


def next_trial(study: optuna.Study, task: Task) -> optuna.Trial | None:
    """The next trial; none where all are made. One process at a time may ask."""
    trials = study.get_trials(deepcopy=False)
    if not any(trial.state == TrialState.WAITING for trial in trials):
        counted = [trial for trial in trials if not was_cut_off(trial)]
        lost = {params for params, n in _begun_in_vain(study).items() if n >= ATTEMPTS}
        tried = {_text(trial.user_attrs["params"]) for trial in counted} | lost
        made = len(counted) + len(lost)
        if made >= task.trials or len(tried) >= size(task.space):
            return None
        scored = [trial for trial in counted if trial.state in SCORED]
        # A search that goes on draws as if it had not been cut off.
        enqueue(study, _draw(task, scored, tried, task.base["seed"] + made))
    return study.ask(task.space)


def _draw(task: Task, scored: list[FrozenTrial], tried: set[str], seed: int) -> dict[str, Any]:
    """A configuration that is not among those tried.

    It is drawn in a study in memory, so that what is drawn in vain leaves no trace.
    """
    tpe = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
    scratch = optuna.create_study(direction=task.direction, sampler=tpe)
    scratch.add_trials(scored)
    draws = 0
    while True:
        trial = scratch.ask(task.space)
        if _text(trial.params) not in tried:
            return trial.params
        scratch.tell(trial, state=TrialState.FAIL)
        draws += 1
        if draws == DRAWS:
            scratch.sampler = optuna.samplers.RandomSampler(seed)


def _text(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
