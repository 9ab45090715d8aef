"""The metrics of a config: which are computed, at which cutoffs, and which one selects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole.evaluator import metric_types
from recbole.utils import EvaluatorType

from recbole_sigrec.errors import ConfigError, did_you_mean

VALUE_METRICS = {name for name, kind in metric_types.items() if kind == EvaluatorType.VALUE}
_WITHOUT_CUTOFF = {*VALUE_METRICS, "gauc"}


def check_metrics(metrics: Sequence[str], eval_args: Any) -> None:
    """See that there are such metrics, and that the evaluation suits them.

    Raises:
        ConfigError: a metric is unknown, or one of values shall judge a ranking of all items.
    """
    for metric in metrics:
        if metric.lower() not in metric_types:
            raise ConfigError(
                f"config key [metrics]: there is no metric [{metric}]."
                f"{did_you_mean(metric, metric_types)} There are: {', '.join(metric_types)}"
            )
    if not all(metric.lower() in VALUE_METRICS for metric in metrics):
        return
    mode = eval_args.get("mode", "full") if isinstance(eval_args, dict) else None
    if "full" in (mode.values() if isinstance(mode, dict) else [mode]):
        raise ConfigError(
            f"config key [metrics] = [{metrics}]: they judge single scores, and eval_args has mode "
            f"[{mode}], which ranks all items. For data with labels give --eval_args={{mode: "
            f"labeled}}; for a ranking other metrics, such as Recall"
        )


def default_valid_metric(usual: str, metrics: Sequence[str], topk: Sequence[int]) -> str:
    """The metric that selects, where the user names none.

    Args:
        usual: the one of the property files, as ``Recall@20``.
        metrics, topk: what is computed.

    Returns:
        The usual metric where it is computed, else the first; at the largest cutoff up to the usual
        one, else at the smallest.
    """
    name, _, cutoff = usual.partition("@")
    if name.lower() not in map(str.lower, metrics):
        name = metrics[0]
    return _example(name, topk, int(cutoff))


def check_valid_metric(metric: str, metrics: Sequence[str], topk: Sequence[int]) -> None:
    """See that the metric that selects is computed.

    Raises:
        ConfigError: it is not, or it lacks a cutoff, or has one that it cannot have.
    """
    name, at, cutoff = metric.partition("@")
    where = f"config key [valid_metric] = [{metric}]"
    if name.lower() not in map(str.lower, metrics):
        raise ConfigError(
            f"{where} is not computed: metrics are {list(metrics)} at topk {list(topk)}. Add it to "
            f"metrics, or name another: --valid_metric={_example(metrics[0], topk)}"
        )
    if name.lower() in _WITHOUT_CUTOFF:
        if at:
            raise ConfigError(f"{where}: it has no cutoff; write --valid_metric={name}")
    elif not at:
        raise ConfigError(f"{where} lacks its cutoff; write --valid_metric={_example(name, topk)}")
    elif cutoff not in map(str, topk):
        raise ConfigError(
            f"{where} is not computed: topk {list(topk)} lacks its cutoff. Add that, or write "
            f"--valid_metric={_example(name, topk)}"
        )


def _example(name: str, topk: Sequence[int], usual: int = 20) -> str:
    """A metric at the largest cutoff up to the usual one, else at the smallest."""
    if name.lower() in _WITHOUT_CUTOFF:
        return name
    return f"{name}@{max((k for k in topk if k <= usual), default=min(topk))}"
