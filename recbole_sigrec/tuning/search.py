"""tune(): a search over a model's keys that looks at the validation part alone."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import torch
from filelock import FileLock
from optuna.trial import TrialState
from recbole.utils import init_seed
from tqdm import tqdm

from recbole_sigrec.comparison.arms import Arm, Setting, check_for_many_runs
from recbole_sigrec.comparison.execution import LOCK
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.data.parts import data_preparation
from recbole_sigrec.errors import ConfigError, SIGRecError
from recbole_sigrec.files import locked
from recbole_sigrec.parallel.engines import check_workers
from recbole_sigrec.parallel.pool import Start, worker_pool
from recbole_sigrec.recbole_repairs.notices import quiet
from recbole_sigrec.training.machine import machine_settings, paused_collection
from recbole_sigrec.training.output_check import check_outputs
from recbole_sigrec.training.run import make_trainer
from recbole_sigrec.tuning import outputs
from recbole_sigrec.tuning.outputs import TuningResult
from recbole_sigrec.tuning.space import check_space, decode, read_space, to_text
from recbole_sigrec.tuning.study import (
    ATTEMPTS,
    Task,
    best_trial,
    check_same,
    check_storage,
    check_trials,
    end_interrupted,
    end_trial,
    given_up,
    next_trial,
    open_study,
    was_cut_off,
    write_errors_told,
)
from recbole_sigrec.user_paths import user_path

if TYPE_CHECKING:
    from distributed import Client


def tune(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    trials: int = 20,
    params_file: str | Path | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    cluster: str | Client | None = None,
    storage: str | None = None,
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
        cluster: where the trials are made instead, see :func:`recbole_sigrec.compare`. The
            configurations that are drawn depend on which trials have ended by then.
        storage: URL of a PostgreSQL database for Optuna's study, in place of ``study.db``, as
            ``postgresql+psycopg://USER@HOST/DATABASE``; workers on other machines need it.

    Raises:
        ConfigError, DataError: the input is wrong, or ``out`` holds another search; raised before
            any training.
        SIGRecError: no trial was completed.
    """
    setting = Setting(dataset, tuple(config_file_list or ()), dict(config_dict or {}))
    given = trials, params_file, out, jobs, cluster, storage
    return search(plan(model, setting, *given), cluster)


def search(task: Task, cluster: str | Client | None = None) -> TuningResult:
    """:func:`tune` for a task of :func:`plan`."""
    busy = ConfigError(f"another command is at work in [{task.out}]; name another")
    with locked(task.out / LOCK, busy), write_errors_told(task):
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
        if cluster is not None:
            _work_on_cluster(task, study, split, cluster)
        elif task.jobs == 1:
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
    cluster: str | Client | None = None,
    storage: str | None = None,
) -> Task:
    """What :func:`tune` with these arguments searches, checked without reading the data set.

    Raises:
        ConfigError: an argument, the config, the search space or the folder is wrong.
    """
    quiet()
    if trials < 1 or jobs < 1:
        raise ConfigError(f"trials = {trials}, jobs = {jobs}: at least one of each is needed")
    check_workers([model], jobs, cluster)
    check_storage(storage)
    if cluster is not None and storage is None and not str(cluster).startswith("local:"):
        raise ConfigError(
            f"cluster = [{cluster}]: a search on several machines needs a database that all reach, "
            f"as --storage=postgresql+psycopg://USER@HOST/DATABASE"
        )
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
    task = Task(
        *(arm, setting, base, space, default, out, trials, jobs, threads, storage),
        on_cluster=cluster is not None,
    )
    outputs.check_folder(task)
    check_outputs(base)
    return task


def _work_in_process(task: Task, fingerprint: str) -> None:
    quiet()
    _work(task, open_study(task), Split.load_again(task.base, fingerprint))


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


def _work_on_cluster(task: Task, study: optuna.Study, split: Split, cluster: str | Client) -> None:
    """Each trial on a worker that is free.

    A trial whose worker dies is cut off, and run anew elsewhere. The workers write the trials'
    scores into the study, this process all else.
    """
    from recbole_sigrec.parallel.cluster import open_cluster
    from recbole_sigrec.parallel.handing_out import Deaths, WorkerDied, hand_out

    made = sum(not was_cut_off(trial) for trial in study.get_trials(deepcopy=False))
    bar = tqdm(desc="trials", total=task.trials, initial=made, disable=None, dynamic_ncols=True)
    deaths = Deaths()
    with bar, open_cluster(cluster, task.out) as client:
        ended = hand_out(
            client,
            task.out / LOCK,
            lambda: next_trial(study, task),
            _run_on_worker,
            lambda trial: (task, trial.number),
            Start(_start_worker, (task, split.fingerprint)),
            lambda trial: f"trial {trial.number}",
        )
        with contextlib.closing(ended):
            for trial, error in ended:
                known = study.get_trials(deepcopy=False)[trial.number]
                if known.state.is_finished():  # the worker may have died after that
                    error = None
                elif isinstance(error, WorkerDied):
                    error = deaths.of(to_text(known.user_attrs["params"]))
                    if error is None:
                        study.tell(trial, state=TrialState.FAIL)
                        continue
                if error is not None:
                    _fail(study, trial, error)
                outputs.write_table(study, task)
                bar.update()
                tqdm.write(outputs.line(study.trials[trial.number], task))


_worker: dict[str, Any] = {}  # in a worker: the study and the split


def _start_worker(task: Task, fingerprint: str) -> None:
    quiet()
    _worker.clear()
    _worker["split"] = Split.load_again(task.base, fingerprint)
    _worker["study"] = open_study(task)


def _run_on_worker(task: Task, number: int) -> None:
    study, split = _worker["study"], _worker["split"]
    with write_errors_told(task):
        known = study.get_trials(deepcopy=False)[number]
        if not known.state.is_finished():
            _run(study, optuna.Trial(study, known._trial_id), task, split)


def _fail(study: optuna.Study, trial: optuna.Trial, error: BaseException) -> None:
    trial.set_user_attr("error", f"{type(error).__name__}: {error}")
    study.tell(trial, state=TrialState.FAIL)


def _run(study: optuna.Study, trial: optuna.Trial, task: Task, split: Split) -> None:
    """Train a trial and tell its score; any error fails it, and the search goes on."""
    trial.set_user_attr("alone", task.alone)
    try:
        score = train(trial, task, split)
    except optuna.TrialPruned:
        end_trial(study, trial, task, TrialState.PRUNED)
    except Exception as error:  # memory that is not there, shapes that do not fit, …
        _fail(study, trial, error)
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
        show = task.alone and bool(config["show_progress"]) and sys.stderr.isatty()
        score, _ = trainer.fit(
            *loaders[:2], saved=False, show_progress=show, callback_fn=after_validation
        )
    if score is None or not trainer.history:
        raise ConfigError(
            f"epochs = {config['epochs']}, eval_step = {config['eval_step']}: the model was never "
            f"validated"
        )
    return score
