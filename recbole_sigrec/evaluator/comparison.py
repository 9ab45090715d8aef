"""compare(): arms × seeds on one split, each run once, however often the comparison is killed."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from recbole_sigrec.errors import ConfigError, DataError, SIGRecError, some
from recbole_sigrec.evaluator.arms import (
    SHARED_KEYS,
    Arm,
    Setting,
    arm_configs,
    difference,
)
from recbole_sigrec.evaluator.runs import Run, execute
from recbole_sigrec.evaluator.split import FINGERPRINT, Split
from recbole_sigrec.processes import alone_in, worker_pool
from recbole_sigrec.quick_start import check_cutoffs, check_outputs, quiet, write_json

RECORD = "comparison.json"  # in a comparison's folder: what it compares

RESULTS = ("results.json", "results.csv", "report.html")
CURVES = ("curves.csv", "curves.html")  # what an ablation adds


def compare(
    arms: Sequence[Arm],
    dataset: str | None,
    seeds: Sequence[int],
    out: str | Path | None = None,
    config_files: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Train and test every arm with every seed on one split, and compare them.

    The split belongs to the comparison: it is that of the config's ``seed``, which all arms share.
    A run's own seed decides on its initialisation, its sampling and its noise. A run that has
    ended is not repeated, and one that was cut off goes on from its last checkpoint, so that the
    same call may be made until all runs are there; more arms or seeds may be asked for later.

    Args:
        arms: the contenders; significance is that of the first against each other.
        dataset: name of a folder in ``data_path``, or ml-100k, which RecBole bundles.
        seeds: of the runs of each arm.
        out: folder of the runs and results, made if it is not there; default
            ``comparison/<dataset>``.
        config_files, values: for all arms.
        jobs: runs at a time, each in a process of its own that reads the data set once; one: in
            this process. A script that asks for several needs ``if __name__ == "__main__":``.

    Returns:
        The content of ``out/results.json``; ``results.csv`` and ``report.html`` lie beside it.

    Raises:
        ConfigError, DataError: the input is wrong, or ``out`` holds another comparison; raised
            before any training.
        SIGRecError: Plotly or statsmodels is missing (before any training); or runs failed, when
            all others have ended, and the results of the arms without a failed run are written.
    """
    need_libraries()
    quiet()
    if not arms or not seeds or len(set(seeds)) < len(seeds) or jobs < 1:
        raise ConfigError(
            f"{len(arms)} arms, seeds {list(seeds)}, jobs = {jobs}: a comparison needs an arm, "
            f"distinct seeds, and at least one job"
        )
    from recbole_sigrec.evaluator import report, results  # they need those libraries

    setting = Setting(dataset, tuple(config_files), dict(values or {}))
    configs = arm_configs(arms, setting)
    out = Path(out or f"comparison/{configs[arms[0].label]['dataset']}")
    base = setting.config(arms[0], checkpoint_dir=str(out / "runs"))
    for seed in seeds:
        setting.config(arms[0], seed=seed)  # refuses what is none
    refuse_foreign(out, (RECORD,))
    check_outputs(base)
    with alone_in(out):
        split = Split.load(base)
        check_cutoffs(base, split.dataset)
        for config in configs.values():
            split.parts_with(config["modalities"])  # refuses what the data set has not
        record = _recorded(out, configs, split)
        runs = [Run(arm, seed, out / "runs") for arm in arms for seed in seeds]
        done = [run for run in runs if run.done]
        _tidy(out, done)
        todo = sorted((run for run in runs if run not in done), key=lambda run: run.in_vain)
        failed = _execute_all(todo, len(done), setting, arms[0], split, jobs)
        lost = {run.arm.label for run, _ in failed}
        whole = [run for run in runs if run.arm.label not in lost]
        if whole:
            table = results.evaluate(whole, record, split)
            as_json, as_csv, as_page = (out / name for name in RESULTS)
            write_json(table, as_json)
            results.write_csv(table, as_csv)
            report.write(table, {run.key: run.read()["history"] for run in whole}, as_page)
        if failed:
            labels = dict.fromkeys(run.arm.label for run in whole)
            written = f"The results in [{out}] are of {some(labels)} alone. " if whole else ""
            raise SIGRecError(
                f"{len(failed)} of {len(runs)} runs failed; the others are kept, and the same "
                f"command goes on from there. {written}"
                f"{some(f'{run}: {error}' for run, error in failed)}"
            )
    return table


def refuse_foreign(out: Path, records: Sequence[str]) -> None:
    """See that a folder with files of our names has a record of ours; nothing is written.

    Raises:
        DataError: it has none, so that the files are somebody else's.
    """
    names = (*RESULTS, *CURVES, "runs/*.json")
    foreign = [name for name in names if any(out.glob(name))]
    if foreign and not any((out / name).is_file() for name in records):
        raise DataError(
            f"[{out}] holds {some(foreign)} and no {records[0]}, so that these files are no "
            f"comparison's; name another folder"
        )


def need_libraries() -> None:
    """See that what a comparison needs besides is installed.

    Raises:
        SIGRecError: Plotly or statsmodels is missing.
    """
    missing = [name for name in ("plotly", "statsmodels") if find_spec(name) is None]
    if missing:
        raise SIGRecError(
            f'a comparison needs {" and ".join(missing)}: pip install "recbole_sigrec[report]"'
        )


def _recorded(out: Path, configs: dict[str, dict], split: Split) -> dict[str, Any]:
    """Write what is compared, or see that it is what the folder's earlier runs compared.

    What failed before its first epoch ended left nothing, and does not count.

    Returns:
        ``{dataset, sizes, fingerprint, protocol: {key: value}, arms: {label: config}}``.

    Raises:
        ConfigError, DataError: the folder holds another comparison; nothing is written.
    """
    first = next(iter(configs.values()))
    record = {
        "dataset": first["dataset"],
        "sizes": split.sizes,
        "fingerprint": split.fingerprint,
        "protocol": {key: first[key] for key in sorted(SHARED_KEYS & set(first))},
        "arms": configs,
    }
    path = out / RECORD
    if not path.is_file():
        write_json(record, path)
        return record
    try:
        before = json.loads(path.read_text("utf-8"))
        arms, protocol, fingerprint = (before[k] for k in ("arms", "protocol", "fingerprint"))
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}); name another folder") from None
    remedy = f"[{out}] is kept as it is; name another folder"
    if not fingerprint.startswith(FINGERPRINT):
        raise DataError(f"{path} is of an earlier version of this plugin. {remedy}")
    arms = {label: config for label, config in arms.items() if _has_begun(out, label)}
    changed = difference(protocol, record["protocol"])
    if changed and arms:
        raise ConfigError(f"{path} compares under another protocol: {changed}. {remedy}")
    for label, config in configs.items():
        changed = difference(arms[label], config) if label in arms else ""
        if changed:
            raise ConfigError(f"{path} has [{label}] with another config: {changed}. {remedy}")
    if fingerprint != record["fingerprint"] and arms:
        raise DataError(
            f"{path} is of other data: the interactions, the split or the features of "
            f"[{record['dataset']}] have changed since (sizes {before['sizes']} then, "
            f"{record['sizes']} now). {remedy}"
        )
    record["arms"] = {**arms, **record["arms"]}
    write_json(record, path)
    return record


def _has_begun(out: Path, label: str) -> bool:
    """Whether there is a run of an arm, ended or with an epoch to go on from."""
    stem = re.escape(Arm(label, "").stem)
    files = [*out.glob("runs/*.json"), *out.glob("runs/*/*.last.pth")]
    return any(re.match(rf"{stem}-\d+(/|\.json$)", str(f.relative_to(out / "runs"))) for f in files)


def _tidy(out: Path, done: list[Run]) -> None:
    """Remove what a comparison that was killed has left behind."""
    for run in done:
        run.tidy()
    for folder in (out, out / "runs"):
        for part in folder.glob(".*.tmp"):
            part.unlink()


def _execute_all(
    todo: list[Run], done: int, setting: Setting, first: Arm, split: Split, jobs: int
) -> list[tuple[Run, Exception]]:
    """Execute runs, with their progress on stderr; ``done`` others are there already.

    ``first`` is the arm whose config the split was loaded by.

    Returns:
        The runs that have failed, and why.
    """
    failed, total = [], done + len(todo)
    if done:
        print(f"{done} of {total} runs are there already", file=sys.stderr)
    bar = tqdm(desc="runs", total=total, initial=done, disable=None, dynamic_ncols=True)
    if jobs == 1:
        ended = _here(todo, setting, split)
    else:
        ended = _in_workers(todo, setting, first, split, jobs)
    with bar, contextlib.closing(ended):
        for run, error in ended:
            if error is None:
                done += 1
                bar.update()
                tqdm.write(f"[{done}/{total}] {run.summary()}", file=sys.stderr)
            else:
                failed.append((run, error))
                log = run.path(".log")
                see = f" (see {log})" if log.is_file() else ""
                tqdm.write(f"failed: {run}: {error}{see}", file=sys.stderr)
    return failed


Ended = Iterable[tuple[Run, Exception | None]]  # runs in the order of their ends


def _here(todo: list[Run], setting: Setting, split: Split) -> Ended:
    for run in todo:
        try:
            execute(run, setting, split, torch.get_num_threads(), show_progress=True)
            yield run, None
        except Exception as error:
            yield run, error


def _in_workers(todo: list[Run], setting: Setting, first: Arm, split: Split, jobs: int) -> Ended:
    """Several at a time. A process that is killed takes its pool along: the runs that were at work
    are then made one by one, so that only what is killed again has failed, and the rest as before.
    """
    threads = max(1, torch.get_num_threads() // jobs)  # of every run, whatever runs beside it

    def attempt(runs: list[Run], jobs: int) -> Ended:
        with worker_pool(jobs, _start_worker, split.fingerprint, first) as pool:
            futures = {}
            for run in runs:
                try:
                    future = pool.submit(_work, run, setting, threads)
                except BrokenProcessPool as error:  # it broke before all were submitted
                    future = Future()
                    future.set_exception(error)
                futures[future] = run
            for future in as_completed(futures):
                run, error = futures[future], future.exception()
                yield run, None if run.done else error

    left = todo
    while left:
        began, lost = time.time(), []
        for run, error in attempt(left, jobs):
            if isinstance(error, BrokenProcessPool):
                lost.append(run)
            else:
                yield run, error
        at_work = [run for run in lost if run.logged_since(began)]
        for run in at_work:
            for _, error in attempt([run], 1):
                yield run, _DIED if isinstance(error, BrokenProcessPool) else error
        left = [run for run in todo if run in lost and run not in at_work]
        if not at_work:  # the processes do not even start
            yield from ((run, _DIED) for run in left)
            return


_DIED = SIGRecError(
    "its process ended by itself: killed, as the system does without memory, or crashed; or it "
    'could not start, as in a script without `if __name__ == "__main__":`'
)


_worker: dict[str, Any] = {}  # in a worker process: what the split is loaded by, and the split


def _start_worker(fingerprint: str, first: Arm) -> None:
    quiet()
    _worker.update(fingerprint=fingerprint, first=first)


def _work(run: Run, setting: Setting, threads: int) -> None:
    if "split" not in _worker:
        split = Split.load(setting.config(_worker["first"]))
        if split.fingerprint != _worker["fingerprint"]:
            raise DataError("the data set has changed since the comparison began")
        _worker["split"] = split
    execute(run, setting, _worker["split"], threads, show_progress=False)
