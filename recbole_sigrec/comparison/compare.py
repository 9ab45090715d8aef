"""compare(): arms × seeds on one split, each run once, however often the comparison is killed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_sigrec.comparison import report
from recbole_sigrec.comparison.arms import Arm, Setting, arm_configs, difference
from recbole_sigrec.comparison.execution import LOCK, execute_all
from recbole_sigrec.comparison.hashed_json import read_record, write_record
from recbole_sigrec.comparison.results import ComparisonResult, evaluate, write_runs
from recbole_sigrec.comparison.runs import Run
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.config.keys import SHARED_KEYS
from recbole_sigrec.data.parts import check_cutoffs
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError, some
from recbole_sigrec.files import locked, write_json
from recbole_sigrec.parallel.engines import check_workers
from recbole_sigrec.recbole_repairs.evaluator import OVER_ALL_ITEMS
from recbole_sigrec.recbole_repairs.notices import quiet
from recbole_sigrec.training.output_check import check_outputs
from recbole_sigrec.user_paths import user_path

if TYPE_CHECKING:
    from distributed import Client

RECORD = "comparison.json"  # in a comparison's folder: what it compares

RESULTS = ("results.json", "results.csv", "report.html")
CURVES = ("curves.csv", "curves.html")  # what an ablation adds


def compare(
    models: Sequence[str | type | Arm],
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    out: str | Path | None = None,
    jobs: int = 1,
    cluster: str | Client | None = None,
) -> ComparisonResult:
    """Train and test every model with every seed on one split, and compare them.

    All arms share the split, which is that of the config's ``split_seed``, else of its ``seed``. A
    run's own seed decides on its initialisation, its sampling and its noise. The same call goes on
    where it was cut off: runs that ended are kept, the others go on from their last checkpoint.
    More arms or seeds may be asked for later.

    Args:
        models: names (ours or RecBole's), model classes, or :class:`Arm` for a model in a
            configuration of its own. The first is tested against each of the others.
        dataset: name of a folder in ``data_path``, or ml-100k, which RecBole bundles.
        config_file_list, config_dict: for all arms.
        seeds: of the runs of each arm.
        out: folder of the runs and results, made if it is not there; default
            ``comparison/<dataset>``.
        jobs: runs at a time, each in a process of its own that reads the data set once; one: in
            this process. A script that asks for several needs ``if __name__ == "__main__":``.
        cluster: where the runs are made instead: the address of a Dask scheduler, workers that are
            started, as ``local:3`` or ``slurm:8``, or a client of Dask's. See docs/cluster.md.

    Returns:
        The content of ``out/results.json``; ``results.csv`` and ``report.html`` lie beside it.

    Raises:
        ConfigError, DataError: the input is wrong, or ``out`` holds another comparison; raised
            before any training.
        SIGRecError: runs failed; raised when all others have ended, and the results of the arms
            without a failed run are written. Or the cluster cannot be used; raised at once.
    """
    quiet()
    if not models or not seeds or len(set(seeds)) < len(seeds) or jobs < 1:
        raise ConfigError(
            f"{len(models)} arms, seeds {list(seeds)}, jobs = {jobs}: a comparison needs an arm, "
            f"distinct seeds, and at least one job"
        )
    arms = [Arm.from_model(model) for model in models]
    check_workers([arm.model for arm in arms], jobs, cluster)
    setting = Setting(dataset, tuple(config_file_list or ()), dict(config_dict or {}))
    configs = arm_configs(arms, setting)
    out = user_path(out or f"comparison/{configs[arms[0].label]['dataset']}")
    base = setting.config(arms[0], checkpoint_dir=str(out / "runs"))
    for seed in seeds:
        setting.config(arms[0], seed=seed)  # refuses what is none
    refuse_foreign(out, RECORD)
    check_outputs(base)
    with locked(out / LOCK, ConfigError(f"another command is at work in [{out}]; name another")):
        split = Split.load(base)
        split.need("valid", "test")
        check_cutoffs(base, split.dataset)
        for config in configs.values():
            split.parts_with(config["modalities"])  # refuses what the data set has not
        record = _recorded(out, configs, split)
        runs = [Run(arm, seed, out / "runs") for arm in arms for seed in seeds]
        _check_earlier([run for run in runs if run.done], base["metrics"])
        failed = execute_all(runs, setting, split, jobs, cluster)
        return _results(runs, failed, record, split, out)


def _results(
    runs: list[Run],
    failed: list[tuple[Run, BaseException]],
    record: dict[str, Any],
    split: Split,
    out: Path,
) -> ComparisonResult:
    """Write the results of the arms without a failed run.

    Raises:
        SIGRecError: a run has failed.
    """
    lost = {run.arm.label for run, _ in failed}
    whole = [run for run in runs if run.arm.label not in lost]
    written = ""
    if whole:
        found = evaluate(whole, record, split)
        as_json, as_csv, as_page = (out / name for name in RESULTS)
        write_json(found, as_json)
        write_runs(found, as_csv)
        report.write(found, {run.key: run.read()["history"] for run in whole}, as_page)
        if not failed:
            return found
        labels = dict.fromkeys(run.arm.label for run in whole)
        written = f"The results in [{out}] are of {some(labels)} alone. "
    raise SIGRecError(
        f"{len(failed)} of {len(runs)} runs failed; the others are kept, and the same command goes "
        f"on from there. {written}{some(f'{run}: {error}' for run, error in failed)}"
    )


def refuse_foreign(out: Path, record: str) -> None:
    """See that a folder with files of our names has a record of ours; nothing is written.

    Raises:
        DataError: it has none, so that the files are somebody else's.
    """
    names = (*RESULTS, *CURVES, "runs/*.json")
    foreign = [name for name in names if any(out.glob(name))]
    if foreign and not (out / record).is_file():
        raise DataError(
            f"[{out}] holds {some(foreign)} and no {record}, so that these files are no "
            f"comparison's; name another folder"
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
        write_record(record, path)
        return record
    remedy = f"[{out}] is kept as it is; name another folder"
    kinds = {"arms": dict, "protocol": dict, "fingerprint": str, "sizes": dict}
    before = read_record(path, kinds, f"{remedy}, or delete this one, and all runs are made again")
    known, protocol, fingerprint = (before[key] for key in ("arms", "protocol", "fingerprint"))
    files = [file.stem for file in out.glob("runs/*.json")]
    files += [file.parent.name for file in out.glob("runs/*/*.last.pth")]
    begun = {name.rpartition("-")[0] for name in files}  # without the seed
    arms = {label: own for label, own in known.items() if Arm(label, "").stem in begun}
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
    write_record(record, path)
    return record


def _check_earlier(runs: list[Run], metrics: Sequence[str]) -> None:
    """See that the files of finished runs are as they were written.

    What a killed comparison has left of them is removed.

    Raises:
        DataError: a file is damaged, was changed, is that of another run, or is of an earlier
            version that computed one of the ``metrics`` otherwise.
    """
    for run in runs:
        run.recommended()
        run.tidy()
    bare = [run for run in runs if not run.hashed]
    changed = [metric for metric in metrics if metric.lower() in OVER_ALL_ITEMS]
    if bare and changed:
        raise DataError(
            f"an earlier version made {some(bare)}, which computed {some(changed)} otherwise, so "
            f"that the results cannot be compared. Delete {some(run.path('.json') for run in bare)}"
            f", and these runs are made again"
        )
    if bare:
        print(
            f"warning: an earlier version made {some(bare)}, without a hash: whether these results "
            f"were changed since cannot be told. Delete their files in [{runs[0].folder}], and "
            f"they are made again",
            file=sys.stderr,
        )
