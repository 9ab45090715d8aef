"""tune(): a search over a model's keys that looks at the validation part alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock
from optuna.trial import TrialState
from recbole.utils import init_seed

from recbole_sigrec.comparison.arms import Arm, Setting, check_for_many_runs
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.data.parts import data_preparation
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError
from recbole_sigrec.files import locked
from recbole_sigrec.parallel.pool import check_importable, worker_pool
from recbole_sigrec.recbole_repairs.notices import quiet
from recbole_sigrec.training.machine import machine_settings, paused_collection
from recbole_sigrec.training.output_check import check_outputs
from recbole_sigrec.training.run import make_trainer
from recbole_sigrec.tuning import outputs
from recbole_sigrec.tuning.outputs import TuningResult
from recbole_sigrec.tuning.space import check_space, decode, read_space
from recbole_sigrec.tuning.study import (
    ATTEMPTS,
    Task,
    best_trial,
    check_same,
    check_trials,
    end_interrupted,
    end_trial,
    given_up,
    next_trial,
    open_study,
    write_errors_told,
)
from recbole_sigrec.user_paths import user_path


def tune(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    trials: int = 20,
    params_file: str | Path | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
) -> TuningResult:
    """Search for the configuration of a model with the best validation score on a data set.

    Every trial has the seed, the data set and the split of the config, which are read once, and is
    trained as :func:`recbole_sigrec.run` would, but without checkpoints and without a look at the
    test part. The first is the default configuration. The others are drawn by the tree-structured
    Parzen estimator (Bergstra et al., NeurIPS 2011), from the seed, the trial's number and the
    trials before it; no configuration is tried twice. After ``WARMUP_EPOCHS``, a trial is pruned
    whose best score so far is below the median of the completed trials' at that epoch.

    A search that was cut off goes on with the same call: a trial that was running is run anew.
    More trials may be asked for later.

    Args:
        model: a name (ours or RecBole's) or a model class; default SIGRec.
        dataset: name of a folder in ``data_path``, or ml-100k, which RecBole bundles.
        config_file_list, config_dict: as for a run. A key of ``config_dict`` is not searched.
        trials: how many configurations are tried in all, pruned and failed ones among them.
        params_file: the search space, see :func:`recbole_sigrec.tuning.space.read_space`; default:
            that of the model's property file.
        out: the folder of ``study.db``, ``trials.csv`` and ``best.yaml``, made if it is not there;
            default ``tuning/<dataset>/<model>``.
        jobs: trials at a time, each in a process of its own that reads the data set once; one: in
            this process. A script that asks for several needs ``if __name__ == "__main__":``.

    Raises:
        ConfigError, DataError: the input is wrong, or ``out`` holds another search; raised before
            any training.
        SIGRecError: no trial was completed.
    """
    setting = Setting(dataset, tuple(config_file_list or ()), dict(config_dict or {}))
    return search(plan(model, setting, trials, params_file, out, jobs))


def search(task: Task) -> TuningResult:
    """:func:`tune` for a task of :func:`plan`."""
    busy = ConfigError(f"another command is at work in [{task.out}]; name another")
    with locked(task.out / ".lock", busy), write_errors_told(task):
        study = open_study(task)
        split = Split.load(task.base)
        split.need("valid")
        check_same(study, task, split.fingerprint)
        check_trials(study, task)
        end_interrupted(study)
        for text in given_up(study):
            print(
                f"given up: {decode(json.loads(text))}, cut off {ATTEMPTS} times before its first "
                f"validation; the system may have killed it for memory",
                flush=True,
            )
        if task.jobs == 1:
            _work(task, study, split)
        else:
            with worker_pool(task.jobs) as pool:
                given = _work_in_process, task, split.fingerprint
                try:
                    for worker in [pool.submit(*given) for _ in range(task.jobs)]:
                        worker.result()
                except BrokenProcessPool:
                    raise SIGRecError(
                        "the process of a trial was killed, as the system does without memory; the "
                        "same command goes on, with --jobs=1 if that was it"
                    ) from None
        outputs.write_table(study, task)
        found = outputs.write_best(study, task)
    print(f"best: {outputs.line(best_trial(study, task), task)}\n{found.command}")
    return found


def plan(
    model: str | type | None,
    setting: Setting,
    trials: int,
    params_file: str | Path | None,
    out: str | Path | None,
    jobs: int,
) -> Task:
    """What :func:`tune` with these arguments searches, checked without reading the data set.

    Raises:
        ConfigError: an argument, the config, the search space or the folder is wrong.
    """
    quiet()
    if trials < 1 or jobs < 1:
        raise ConfigError(f"trials = {trials}, jobs = {jobs}: at least one of each is needed")
    check_importable([model], jobs)
    arm = Arm("tuned", model)
    config = setting.config(arm)
    check_for_many_runs(config, "a search")
    found = read_space(config["model"], params_file)
    space, default = check_space(*found, lambda values: setting.config(arm, **values))
    space = {key: values for key, values in space.items() if key not in setting.config_dict}
    if not space:
        raise ConfigError(f"nothing is left to search: {', '.join(default)} are given")
    out = user_path(out or Path("tuning") / config["dataset"] / config["model"])
    if set(str(out)) & set("?%{}"):
        raise ConfigError(f"out = [{out}]: a database cannot be in a folder with ?, %, {{ or }}")
    base = setting.config(arm, checkpoint_dir=str(out))
    threads = max(1, torch.get_num_threads() // jobs)
    default = {key: default[key] for key in space}
    task = Task(arm, setting, base, space, default, out, trials, jobs, threads)
    outputs.check_folder(task)
    check_outputs(base)
    return task


def _work_in_process(task: Task, fingerprint: str) -> None:
    quiet()
    split = Split.load(task.base)
    if split.fingerprint != fingerprint:
        raise DataError("the data set has changed since the search began")
    _work(task, open_study(task), split)


def _work(task: Task, study: optuna.Study, split: Split) -> None:
    """Run trials until all are made; several processes may."""
    turn = FileLock(task.out / ".turn.lock")
    while True:
        with turn:
            trial = next_trial(study, task)
        if trial is None:
            return
        _run(study, trial, task, split)
        with turn:
            outputs.write_table(study, task)
        print(outputs.line(study.trials[trial.number], task), flush=True)


def _run(study: optuna.Study, trial: optuna.Trial, task: Task, split: Split) -> None:
    """Train a trial and tell its score; any error fails it, and the search goes on."""
    trial.set_user_attr("alone", task.jobs == 1)
    try:
        score = train(trial, task, split)
    except optuna.TrialPruned:
        end_trial(study, trial, task, TrialState.PRUNED)
    except Exception as error:  # memory that is not there, shapes that do not fit, …
        trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        study.tell(trial, state=TrialState.FAIL)
    except KeyboardInterrupt:
        trial.set_user_attr("stopped", True)
        raise
    else:
        end_trial(study, trial, task, TrialState.COMPLETE, score)


def train(trial: optuna.Trial, task: Task, split: Split) -> float:
    """The best validation score of a trial's configuration, each score reported to the trial.

    Raises:
        optuna.TrialPruned: the trial is not worth going on with.
        ConfigError: the model refuses the configuration, or was never validated.
        SIGRecError: its training has diverged.
    """
    config = task.config(decode(trial.params))

    def after_validation(epoch: int, score: float) -> None:
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    with machine_settings(config["threads"] or task.threads):
        init_seed(config["seed"], config["reproducibility"])
        with paused_collection():
            loaders = data_preparation(config, split.dataset, split.parts)
            trainer = make_trainer(config, loaders)
        show = task.jobs == 1 and bool(config["show_progress"]) and sys.stderr.isatty()
        score, _ = trainer.fit(
            *loaders[:2], saved=False, show_progress=show, callback_fn=after_validation
        )
    if score is None or not trainer.history:
        raise ConfigError(
            f"epochs = {config['epochs']}, eval_step = {config['eval_step']}: the model was never "
            f"validated"
        )
    return score
