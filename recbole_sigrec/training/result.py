"""The result of a run: its fields, and its table for the terminal."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import recbole_sigrec
from recbole_sigrec.display.terminal import text_table
from recbole_sigrec.json_object import JsonObject


@dataclasses.dataclass(frozen=True, eq=False)
class RunResult(JsonObject):
    """What a run found.

    Attributes:
        model, dataset, seed: what was trained, on what.
        config: all final values, in JSON's types.
        split: interactions in ``train``, ``valid`` and ``test``.
        best_valid_result, test_result: metric → value, as ``recall@20``, at the best epoch.
        epochs: how many were trained.
        best_epoch: the epoch of the best validation score, from 0; −1 without a validation.
        seconds_per_epoch, seconds_per_evaluation: medians.
        seconds_setup: from the start to the first epoch.
        peak_rss_mb: peak of the process's resident memory, MiB.
        n_parameters: trained numbers.
        processes: how many trained the model together.
        checkpoint: the file of the best model; None where none is kept.
        versions: of Python and the libraries.
    """

    model: str
    dataset: str
    seed: int
    config: dict[str, Any]
    split: dict[str, int]
    best_valid_result: dict[str, float]
    test_result: dict[str, float]
    epochs: int
    best_epoch: int
    seconds_per_epoch: float | None
    seconds_per_evaluation: float | None
    seconds_setup: float
    peak_rss_mb: float
    n_parameters: int
    processes: int
    checkpoint: str | None
    versions: dict[str, str]


def result_table(result: RunResult) -> str:
    """Best validation and test result as a small table: metrics down, cutoffs across."""
    found = {**result["best_valid_result"], **result["test_result"]}
    cutoffs = sorted({int(key.partition("@")[2] or 0) for key in found})
    names = list(dict.fromkeys(key.partition("@")[0] for key in found))
    title = f"{result['model']} on {result['dataset']}, best epoch {result['best_epoch']}"
    if not names:
        return f"{title}; no validation, no test"
    head = [f"@{k}" if k else "" for k in cutoffs]
    rows = [["", *(f"valid {h}" for h in head), *(f"test {h}" for h in head)]]
    for name in names:
        row = [name]
        for part in ("best_valid_result", "test_result"):
            values = (result[part].get(f"{name}@{k}" if k else name) for k in cutoffs)
            row += ["" if value is None else f"{value:.4f}" for value in values]
        rows.append(row)
    return f"{title}\n{text_table(rows)}"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on."""
    found = {"python": platform.python_version(), "recbole_sigrec": recbole_sigrec.__version__}
    for name in ("recbole", "torch", "numpy", "scipy", "pandas", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
