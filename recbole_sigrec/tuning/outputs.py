"""What a search writes: ``trials.csv``, ``best.yaml``, and a line for each trial.

Several searches together write ``models.yaml``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from recbole_sigrec.config.property_files import BY_MODEL, by_model
from recbole_sigrec.config.yaml_files import parse_yaml
from recbole_sigrec.errors import ConfigError, SIGRecError
from recbole_sigrec.files import write_csv, write_text
from recbole_sigrec.json_object import JsonObject
from recbole_sigrec.training.result import versions
from recbole_sigrec.tuning.space import decode
from recbole_sigrec.tuning.study import DATABASE, TABLE, Task, best_trial, was_cut_off

BEST = "best.yaml"  # in a search's folder
MODELS = "models.yaml"  # beside the folders of several


@dataclasses.dataclass(frozen=True, eq=False)
class TuningResult(JsonObject):
    """What a search found.

    Attributes:
        model, dataset: what was searched, on what.
        metric: the validation metric, as ``recall@20``.
        score: its best value.
        best_epoch: the epoch of that value.
        values: the best configuration: key → value.
        file: its property file.
        command: what runs it.
        trials: every trial as in ``trials.csv``.
    """

    model: str
    dataset: str
    metric: str
    score: float
    best_epoch: int
    # dict has a method of that name, which is not a default value
    values: dict[str, Any] = dataclasses.field()  # pyright: ignore[reportIncompatibleMethodOverride]
    file: str
    command: str
    trials: list[dict[str, Any]]


def check_folder(task: Task) -> None:
    """See that no file is overwritten that is not a search's.

    Raises:
        ConfigError: the folder has such a file.
    """
    for name in (TABLE, BEST):
        path = task.out / name
        own = task.out / (DATABASE if task.storage is None else TABLE)
        if path.exists() and not own.is_file():
            raise ConfigError(f"[{path}] is there without a {own.name}; name another --out")


def row(trial: FrozenTrial, task: Task) -> dict[str, Any]:
    """A trial as in ``trials.csv``; its epochs are those up to its last validation."""
    scores = trial.intermediate_values
    cut_off = was_cut_off(trial)
    seconds = trial.duration.total_seconds() if trial.duration and not cut_off else None
    best = (max if task.direction == "maximize" else min)(scores.values(), default=None)
    return {
        "trial": trial.number,
        "state": "cut off" if cut_off else trial.state.name.lower(),
        task.metric: best,
        # of equal scores the last is the best epoch's, as in RecBole
        "best_epoch": max((epoch for epoch in scores if scores[epoch] == best), default=None),
        "epochs": max(scores, default=-1) + 1,
        "seconds": None if seconds is None else round(seconds, 1),
        **decode(trial.user_attrs["params"]),
        "error": trial.user_attrs.get("error", ""),
    }


def line(trial: FrozenTrial, task: Task) -> str:
    """A trial in a line, for the terminal."""
    shown = row(trial, task)
    score = "none" if shown[task.metric] is None else f"{shown[task.metric]:.6f}"
    values = " ".join(f"{key}={shown[key]}" for key in task.space)
    return (
        f"trial {trial.number:>3}  {shown['state']:<8}  {task.metric} {score} at epoch "
        f"{shown['best_epoch']} of {shown['epochs']}  {shown['seconds']} s  {values}  "
        f"{shown['error']}"
    ).rstrip()


def write_table(study: optuna.Study, task: Task) -> None:
    """Write ``trials.csv``."""
    rows = [row(trial, task) for trial in study.get_trials(deepcopy=False)]
    write_csv([rows[0], *([one[name] for name in rows[0]] for one in rows)], task.out / TABLE)


def write_best(study: optuna.Study, task: Task) -> TuningResult:
    """Write ``best.yaml``, and give the result of the search.

    Raises:
        SIGRecError: no trial was completed.
        DataError: the study is damaged.
    """
    trials = study.get_trials(deepcopy=False)
    rows = [row(trial, task) for trial in trials]
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        errors = [f"trial {r['trial']}: {r['error']}" for r in rows if r["error"]]
        errors.append("all were cut off before their first validation")
        raise SIGRecError(f"no trial in [{task.out}] was completed; {errors[0]}")
    best = best_trial(study, task)
    assert best.value is not None
    write_text(_best_file(study, task), task.out / BEST)
    return TuningResult(
        model=task.base["model"],
        dataset=task.base["dataset"],
        metric=task.metric,
        score=best.value,
        best_epoch=rows[best.number]["best_epoch"],
        values=decode(best.params),
        file=str(task.out / BEST),
        command=run_command(task),
        trials=rows,
    )


def read_models(folder: Path, dataset: str) -> dict[str, dict[str, Any]]:
    """Model → values of an earlier ``models.yaml`` in a folder; nothing where there is none.

    Raises:
        ConfigError: there is another file of that name, or one of another data set.
    """
    path = folder / MODELS
    if not path.exists():
        return {}
    text = path.read_text("utf-8", errors="replace")
    content = None
    if text.startswith(_models_head(dataset)):
        with contextlib.suppress(ValueError):
            content = parse_yaml(text)
    if not isinstance(content, dict) or list(content) != [BY_MODEL]:
        raise ConfigError(f"[{path}] is not of a search on {dataset}; name another --out")
    return by_model(content[BY_MODEL], str(path))


def write_models(found: Sequence[TuningResult], tasks: Sequence[Task]) -> str:
    """Write ``models.yaml``: what several searches found, beside what is there of others.

    Args:
        found: what each search returned.
        tasks: what each searched, all on one data set, in folders side by side.

    Returns:
        The command that compares these models with their best values.
    """
    folder, dataset = tasks[0].out.parent, tasks[0].base["dataset"]
    values = {one.model: one.values for one in found}
    text = yaml.safe_dump(
        {BY_MODEL: {**read_models(folder, dataset), **values}}, sort_keys=False, allow_unicode=True
    )
    write_text(_models_head(dataset) + text, folder / MODELS)
    files = [*map(str, tasks[0].setting.config_file_list), str(folder / MODELS)]
    parts = [f"--models={','.join(values)}", f"--dataset={dataset}"]
    parts += [f"--config_files={shlex.join(files)}", *_given(tasks[0])]
    return shown_command(["recbole-sigrec", "compare", *parts])


def _models_head(dataset: str) -> str:
    return f"# The best values of models on {dataset}, for --config_files\n"


def _given(task: Task) -> list[str]:
    """The config keys that a search was given, as arguments."""
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in task.setting.config_dict.items()
    ]


def run_command(task: Task) -> str:
    """The command that trains and tests the best configuration; for a model class, in Python."""
    files = [*map(str, task.setting.config_file_list), str(task.out / BEST)]
    model, dataset, given = task.base["model"], task.base["dataset"], task.setting.config_dict
    if isinstance(task.arm.model, type):
        more = f", config_dict={dict(given)!r}" if given else ""
        return f"run({model}, {dataset!r}, config_file_list={files!r}{more})"
    parts = [f"--model={model}", f"--dataset={dataset}", f"--config_files={shlex.join(files)}"]
    return shown_command(["recbole-sigrec", "run", *parts, *_given(task)])


def shown_command(parts: Sequence[str], windows: bool = os.name == "nt") -> str:
    """A command as it is typed: Windows knows no single quotes."""
    return subprocess.list2cmdline(parts) if windows else shlex.join(parts)


def _best_file(study: optuna.Study, task: Task) -> str:
    best = best_trial(study, task)
    states = [trial.state for trial in study.get_trials(deepcopy=False) if not was_cut_off(trial)]
    found = {**versions(), "optuna": optuna.__version__}
    return (
        f"# {task.base['model']} on {task.base['dataset']}: trial {best.number}, the best of "
        f"{sum(state.is_finished() for state in states)} ({states.count(TrialState.PRUNED)} "
        f"pruned), with validation {task.metric} {best.value:.6f} at epoch "
        f"{row(best, task)['best_epoch']}, seed {task.base['seed']}\n"
        f"# {', '.join(f'{name} {number}' for name, number in found.items())}\n"
        f"# {run_command(task)}\n"
        f"{yaml.safe_dump(decode(best.params), sort_keys=False, allow_unicode=True)}"
    )
