"""From the runs of a comparison to its results: figures, tables and files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_sigrec.comparison.groups import Group, by_count
from recbole_sigrec.comparison.per_user import METRICS, HeldOut
from recbole_sigrec.comparison.runs import RUN_KEYS, Run
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.comparison.significance import against_first
from recbole_sigrec.display.terminal import text_table
from recbole_sigrec.errors import DataError
from recbole_sigrec.files import write_csv
from recbole_sigrec.json_object import JsonObject


@dataclasses.dataclass(frozen=True, eq=False)
class ComparisonResult(JsonObject):
    """What a comparison found.

    Attributes:
        dataset: its name.
        sizes: numbers of users, items, and pairs of each part.
        split: how the parts were made, in words.
        modalities: names of those in use.
        fingerprint: of the interactions, the split and the features.
        cutoff: the k of the metrics that are tested.
        protocol: the config keys that all arms share.
        arms: each with ``label, model, n_seeds``, ``mean`` and ``std`` (of the sample; None for one
            seed) of each test metric and cost.
        significance: each a :class:`PairedTest` of the first arm against another, as a dict.
        by_popularity, by_activity: groups of test pairs and of users, with the arms' recall.
        runs: each with the keys ``RUN_KEYS``.
    """

    dataset: str
    sizes: dict[str, int]
    split: str
    modalities: list[str]
    fingerprint: str
    cutoff: int
    protocol: dict[str, Any]
    arms: list[dict[str, Any]]
    significance: list[dict[str, Any]]
    by_popularity: list[dict[str, Any]]
    by_activity: list[dict[str, Any]]
    runs: list[dict[str, Any]]

    @property
    def table(self) -> str:
        """A table for a terminal. The best of each column has [brackets], the second (brackets)."""
        metrics = shown_metrics(self)
        rows = [["", *metrics, "s/epoch"]]
        for arm, cells in ranked(self):
            row = [arm["label"]]
            for text, place, mark in cells:
                left, right = {0: "[]", 1: "()"}.get(place, "  ")
                row.append(f"{left}{text}{right}{mark:<2}")
            seconds = arm["mean"]["seconds_per_epoch"]
            rows.append([*row, "" if seconds is None else f"{seconds:.2f}"])
        if gained := gains(self):
            rows.append(["gain of the first", *(f"{gain}   " for gain in gained), ""])
        n = max(arm["n_seeds"] for arm in self.arms)
        title = f"{self.dataset}, test at the best validation epoch, {n} seed(s)"
        note = "[best] (second)"
        if self.significance:
            note += (
                f"; differs from {self.arms[0]['label']}: * p < .05, ** p < .01 (paired t-test "
                f"over users, Holm)"
            )
        return f"{title}\n{text_table(rows)}\n{note}"


def evaluate(runs: Sequence[Run], record: dict[str, Any], split: Split) -> ComparisonResult:
    """The results of finished runs, with every seed of an arm.

    Args:
        record: what is compared, see :mod:`recbole_sigrec.comparison.compare`.
        split: the data that the runs share.
    """
    protocol = record["protocol"]
    cutoff = int(protocol["valid_metric"].partition("@")[2] or max(protocol["topk"]))
    held_out = HeldOut.from_split(split)
    by_item, by_user = by_count(held_out.popularity), by_count(held_out.activity)
    results = {run.key: run.read() for run in runs}
    arms, per_user, recalls = [], {}, {}
    for label in dict.fromkeys(run.arm.label for run in runs):
        own = [run for run in runs if run.arm.label == label]
        lists = [_lists(run, held_out) for run in own]
        users = [held_out.metrics(top, cutoff) for top in lists]
        per_user[label] = {name: np.mean([u[name] for u in users], axis=0) for name in METRICS}
        found = np.mean([held_out.found(top, cutoff) for top in lists], axis=0)
        recalls[label] = found, per_user[label]["recall"]
        arms.append(_summary(label, [results[run.key] for run in own]))
    return ComparisonResult(
        dataset=record["dataset"],
        sizes=record["sizes"],
        split=split.method,
        modalities=list(split.dataset.modality_features),
        fingerprint=record["fingerprint"],
        cutoff=cutoff,
        protocol=protocol,
        arms=arms,
        significance=[dataclasses.asdict(test) for test in against_first(per_user)],
        by_popularity=_by_group(by_item, {k: pairs for k, (pairs, _) in recalls.items()}),
        by_activity=_by_group(by_user, {k: users for k, (_, users) in recalls.items()}),
        runs=[{key: results[run.key][key] for key in RUN_KEYS} for run in runs],
    )


def _lists(run: Run, held_out: HeldOut) -> np.ndarray:
    """What a run recommended to each test user, int [n_users, k].

    Raises:
        DataError: its file is of other users.
    """
    users, top = run.recommended()
    if not np.array_equal(users, held_out.users):
        raise DataError(
            f"{run.path('.npz')} has other users than the test part. Delete it and "
            f"{run.path('.json')}, and the run is made again"
        )
    return top


def _summary(label: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    costs = ("seconds_per_epoch", "seconds_per_evaluation", "peak_rss_mb", "epochs")
    figures = [{**r["test_result"], **{cost: r[cost] for cost in costs}} for r in results]
    mean, std = {}, {}
    for name in figures[0]:
        values = [f[name] for f in figures if f[name] is not None]
        mean[name] = float(np.mean(values)) if values else None
        std[name] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    model = results[0]["model"]
    return {"label": label, "model": model, "n_seeds": len(results), "mean": mean, "std": std}


def _by_group(groups: list[Group], values: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {
            "label": group.label,
            "size": group.size,
            "recall": {label: float(v[group.mask].mean()) for label, v in values.items()},
        }
        for group in groups
    ]


def shown_metrics(results: ComparisonResult) -> list[str]:
    """The columns of the tables: recall and NDCG at the cutoff of selection and the one below.

    Where the test part is of held-out items, also those of a ranking among these alone.
    """
    topk = sorted(results["protocol"]["topk"])
    cutoffs = [k for k in topk if k <= results["cutoff"]][-2:]
    computed = results["arms"][0]["mean"]
    names = [*METRICS, *(f"cold_{name}" for name in METRICS)]
    return [f"{name}@{k}" for name in names for k in cutoffs if f"{name}@{k}" in computed]


def ranked(
    results: ComparisonResult,
) -> Iterator[tuple[dict[str, Any], list[tuple[str, int, str]]]]:
    """Each arm and its cells, one for each of the shown metrics: (text, place, mark).

    The place is by the mean: 0 is the best, and equal means share a place. The mark is ``*``
    (adjusted p < .05), ``**`` (< .01), or nothing.
    """
    marks = {
        (test["label"], f"{test['metric']}@{results['cutoff']}"): "*"
        * ((test["p_adjusted"] < 0.05) + (test["p_adjusted"] < 0.01))
        for test in results["significance"]
    }
    for arm in results["arms"]:
        cells = []
        for metric in shown_metrics(results):
            place = sum(a["mean"][metric] > arm["mean"][metric] for a in results["arms"])
            cells.append((cell(arm, metric), place, marks.get((arm["label"], metric), "")))
        yield arm, cells


def cell(arm: dict[str, Any], metric: str) -> str:
    """Mean ± standard deviation."""
    std = arm["std"][metric]
    return f"{arm['mean'][metric]:.4f}" + ("" if std is None else f" ± {std:.4f}")


def gains(results: ComparisonResult) -> list[str]:
    """The first arm's gain on the best of the others in each of the shown metrics, in percent.

    There is none where there are no others, or where their best is 0.
    """
    first, *others = (arm["mean"] for arm in results["arms"])
    best = {m: max((mean[m] for mean in others), default=0) for m in shown_metrics(results)}
    if not all(best.values()):
        return []
    return [f"{100 * (first[metric] / value - 1):+.1f} %" for metric, value in best.items()]


def write_runs(results: ComparisonResult, path: Path) -> None:
    """One line per run: label, model, seed, epochs, best epoch, every test and validation metric.

    Nothing that depends on the machine's load is in it, so that it is the same however often the
    comparison was cut off.
    """
    metrics = list(results["runs"][0]["test_result"])
    names = ("label", "model", "seed", "epochs", "best_epoch")
    rows = [[*names, *metrics, *(f"valid {metric}" for metric in metrics)]]
    for run in results["runs"]:
        valid = [run["best_valid_result"].get(metric) for metric in metrics]
        rows.append([*(run[name] for name in names), *run["test_result"].values(), *valid])
    write_csv(rows, path)
