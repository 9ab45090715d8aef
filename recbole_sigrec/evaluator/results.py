"""From the runs of a comparison to its results: figures, tables and files."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from texttable import Texttable

from recbole_sigrec.evaluator.groups import Group, by_count
from recbole_sigrec.evaluator.per_user import METRICS, HeldOut
from recbole_sigrec.evaluator.runs import Run
from recbole_sigrec.evaluator.significance import against_first
from recbole_sigrec.evaluator.split import Split
from recbole_sigrec.quick_start import write_text

RUN_KEYS = (
    *("label", "model", "seed", "epochs", "best_epoch", "best_valid_result", "test_result"),
    *("seconds_per_epoch", "seconds_per_evaluation", "seconds_setup", "peak_rss_mb"),
    *("n_parameters", "config_hash", "checkpoint", "versions"),
)


def evaluate(runs: Sequence[Run], record: dict[str, Any], split: Split) -> dict[str, Any]:
    """The results of finished runs, in JSON's types.

    Returns:
        ``protocol``, and data set, sizes, split, modalities, cutoff of the comparison; ``runs``:
        each with the keys ``RUN_KEYS``; ``arms``: label, number of seeds, ``mean`` and ``std`` (of
        the sample; None for one seed) of each test metric and cost; ``significance``: see
        :func:`against_first`; ``by_popularity``, ``by_activity``: groups with the arms' recall.
    """
    protocol = record["protocol"]
    cutoff = int(protocol["valid_metric"].partition("@")[2] or max(protocol["topk"]))
    held_out = HeldOut.of(split)
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
    return {
        "dataset": record["dataset"],
        "sizes": record["sizes"],
        "split": split.method,
        "modalities": list(split.dataset.modality_features),
        "fingerprint": record["fingerprint"],
        "cutoff": cutoff,
        "protocol": protocol,
        "arms": arms,
        "significance": [dataclasses.asdict(test) for test in against_first(per_user)],
        "by_popularity": _by_group(by_item, {k: pairs for k, (pairs, _) in recalls.items()}),
        "by_activity": _by_group(by_user, {k: users for k, (_, users) in recalls.items()}),
        "runs": [{key: results[run.key][key] for key in RUN_KEYS} for run in runs],
    }


def _lists(run: Run, held_out: HeldOut) -> np.ndarray:
    users, top = run.recommended()
    if not np.array_equal(users, held_out.users):
        raise ValueError(f"{run.path('.npz')} has other users than the test part")
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


def shown_metrics(results: dict[str, Any]) -> list[str]:
    """The columns of the tables: recall and NDCG at the cutoff of selection and the one below."""
    topk = sorted(results["protocol"]["topk"])
    cutoffs = [k for k in topk if k <= results["cutoff"]][-2:]
    computed = results["arms"][0]["mean"]
    return [f"{name}@{k}" for name in METRICS for k in cutoffs if f"{name}@{k}" in computed]


def marks(results: dict[str, Any]) -> dict[tuple[str, str], str]:
    """(label, metric@cutoff) → ``*`` (adjusted p < .05), ``**`` (< .01), or nothing."""
    cutoff = results["cutoff"]
    stars = {}
    for test in results["significance"]:
        p = test["p_adjusted"]
        stars[test["label"], f"{test['metric']}@{cutoff}"] = "*" * ((p < 0.05) + (p < 0.01))
    return stars


def cell(arm: dict[str, Any], metric: str) -> str:
    """Mean ± standard deviation."""
    std = arm["std"][metric]
    return f"{arm['mean'][metric]:.4f}" + ("" if std is None else f" ± {std:.4f}")


def gain(results: dict[str, Any], metric: str) -> float | None:
    """The first arm's mean relative to the best of the others, less one; None without others."""
    first, *others = (arm["mean"][metric] for arm in results["arms"])
    return first / max(others) - 1 if others and max(others) > 0 else None


def text_table(results: dict[str, Any]) -> str:
    """The table for a terminal: the best of each column has [brackets], the second (brackets)."""
    metrics, stars = shown_metrics(results), marks(results)
    table = Texttable(max_width=0)
    table.set_deco(Texttable.HEADER)
    table.set_cols_dtype(["t"] * (len(metrics) + 2))
    table.set_cols_align(["l", *["r"] * (len(metrics) + 1)])
    rows = [["", *metrics, "s/epoch"]]
    places = {metric: ranks(results, metric) for metric in metrics}
    for arm in results["arms"]:
        row = [arm["label"]]
        for metric in metrics:
            left, right = {0: "[]", 1: "()"}.get(places[metric][arm["label"]], "  ")
            mark = stars.get((arm["label"], metric), "").ljust(2)
            row.append(f"{left}{cell(arm, metric)}{right}{mark}")
        seconds = arm["mean"]["seconds_per_epoch"]
        rows.append([*row, "" if seconds is None else f"{seconds:.2f}"])
    gains = [gain(results, metric) for metric in metrics]
    if None not in gains:
        rows.append(["gain of the first", *(f"{100 * g:+.1f} %   " for g in gains), ""])
    table.add_rows(rows)
    n = max(arm["n_seeds"] for arm in results["arms"])
    title = f"{results['dataset']}, test at the best validation epoch, {n} seed(s)"
    note = "[best] (second)"
    if results["significance"]:
        note += (
            f"; differs from {results['arms'][0]['label']}: * p < .05, ** p < .01 (paired t-test "
            f"over users, Holm)"
        )
    return f"{title}\n{table.draw()}\n{note}"


def ranks(results: dict[str, Any], metric: str) -> dict[str, int]:
    """Label → place by the mean: 0 is the best; equal means share a place."""
    means = {arm["label"]: arm["mean"][metric] for arm in results["arms"]}
    return {label: sum(other > mean for other in means.values()) for label, mean in means.items()}


def write_csv(results: dict[str, Any], path: Path) -> None:
    """One line per run: label, model, seed, epochs, best epoch, every test and validation metric.

    Nothing that depends on the machine's load is in it, so that it is the same however often the
    comparison was cut off.
    """
    metrics = list(results["runs"][0]["test_result"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("label", "model", "seed", "epochs", "best_epoch")
    writer.writerow([*names, *metrics, *(f"valid {metric}" for metric in metrics)])
    for run in results["runs"]:
        valid = [run["best_valid_result"].get(metric, "") for metric in metrics]
        writer.writerow([*(run[n] for n in names), *run["test_result"].values(), *valid])
    write_text(text.getvalue(), path)
