"""What a search writes: ``trials.csv``, ``best.yaml``, and a line for each trial."""

from __future__ import annotations

import csv
import io
import json
import shlex
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from recbole_sigrec.errors import ConfigError, SIGRecError
from recbole_sigrec.quick_start import versions, write_text
from recbole_sigrec.tuning.space import decode
from recbole_sigrec.tuning.study import DATABASE, Task, was_cut_off

TABLE, BEST = "trials.csv", "best.yaml"  # in a search's folder


def check_folder(task: Task) -> None:
    """See that no file is overwritten that is not a search's.

    Raises:
        ConfigError: the folder has such a file.
    """
    for name in (TABLE, BEST):
        path = task.out / name
        if path.exists() and not (task.out / DATABASE).is_file():
            raise ConfigError(f"[{path}] is there without a {DATABASE}; name another --out")


def row(trial: FrozenTrial, task: Task) -> dict[str, Any]:
    """A trial as in ``trials.csv``; its epochs are those up to its last validation."""
    scores = trial.intermediate_values
    cut_off = was_cut_off(trial)  # its end is when that was found out
    best = (max if task.direction == "maximize" else min)(scores.values(), default=None)
    return {
        "trial": trial.number,
        "state": "cut off" if cut_off else trial.state.name.lower(),
        task.metric: best,
        # of equal scores the last is the best epoch's, as in RecBole
        "best_epoch": max((epoch for epoch in scores if scores[epoch] == best), default=None),
        "epochs": max(scores, default=-1) + 1,
        "seconds": None
        if cut_off or not trial.duration
        else round(trial.duration.total_seconds(), 1),
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
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), task.out / TABLE)


def write_best(study: optuna.Study, task: Task) -> dict[str, Any]:
    """Write ``best.yaml``, and give what :func:`recbole_sigrec.tuning.search.tune` returns.

    Raises:
        SIGRecError: no trial was completed.
    """
    trials = study.get_trials(deepcopy=False)
    rows = [row(trial, task) for trial in trials]
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        errors = [f"trial {r['trial']}: {r['error']}" for r in rows if r["error"]]
        errors.append("all were cut off before their first validation")
        raise SIGRecError(f"no trial in [{task.out}] was completed; {errors[0]}")
    best = study.best_trial
    write_text(_best_file(study, task), task.out / BEST)
    return {
        "model": task.base["model"],
        "dataset": task.base["dataset"],
        "metric": task.metric,
        "score": best.value,
        "best_epoch": rows[best.number]["best_epoch"],
        "values": decode(best.params),
        "file": str(task.out / BEST),
        "command": run_command(task),
        "trials": rows,
    }


def run_command(task: Task) -> str:
    """The command that trains and tests the best configuration; for a model class, in Python."""
    files = [*map(str, task.setting.config_files), str(task.out / BEST)]
    if not isinstance(task.arm.model, str | None):
        given = f"config_dict={dict(task.setting.values)!r}" if task.setting.values else ""
        parts = [
            task.base["model"],
            repr(task.base["dataset"]),
            f"config_file_list={files!r}",
            given,
        ]
        return f"run({', '.join(filter(None, parts))})"
    parts = [f"--model={task.base['model']}", f"--dataset={task.base['dataset']}"]
    parts.append(f"--config_files={shlex.join(files)}")
    for key, value in task.setting.values.items():
        parts.append(f"--{key}={value if isinstance(value, str) else json.dumps(value)}")
    return shlex.join(["recbole-sigrec", "run", *parts])


def _best_file(study: optuna.Study, task: Task) -> str:
    best = study.best_trial
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
