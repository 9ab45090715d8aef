"""Search spaces: what ``recbole-sigrec tune`` tries, read from a file and checked before it starts.

A space is ``search_space: {key: [values]}`` in the model's property file or in a yaml file of the
user's, or a file of RecBole's HyperTuning. Nothing in it is evaluated as code.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna import distributions

from recbole_sigrec.config import Config
from recbole_sigrec.config.keys import keys_of
from recbole_sigrec.config.property_files import property_root
from recbole_sigrec.config.values import parse_value
from recbole_sigrec.config.yaml_files import read_text, read_yaml, yaml_of
from recbole_sigrec.errors import ConfigError, did_you_mean, some

SHARED = keys_of("data", "split", "evaluation", "machine", "derived")
"""Keys that all trials share, so that their scores can be compared."""

MOST_VALUES = 1000  # of a quniform
Space = dict[str, distributions.BaseDistribution]


@dataclasses.dataclass(frozen=True)
class Interval:
    """All numbers from ``low`` to ``high``, both included; ``log``: their logarithms are even."""

    low: float
    high: float
    _: dataclasses.KW_ONLY
    log: bool = False
    integer: bool = False

    def examples(self) -> list[float]:
        """The limits, and a number between them."""
        inside = self.low + 0.382 * (self.high - self.low)
        return [self.low, round(inside) if self.integer else inside, self.high]


def read_space(model: str, params_file: str | Path | None = None) -> tuple[dict[str, Any], str]:
    """What may be tried: key → a list of values, or an :class:`Interval`.

    Args:
        model: whose property file holds ``search_space``, where no file is named.
        params_file: a ``.yaml`` with ``search_space``, or, under whatever name, RecBole's lines
            ``key type values``: see :func:`parse_params`.

    Returns:
        The space, not yet checked against the model, and the file that it is from.

    Raises:
        ConfigError: there is none, or the file cannot be read as one.
    """
    if params_file is None:
        path = property_root() / "model" / f"{model}.yaml"
        content = read_yaml(path, "property file") if path.is_file() else {}
        if "search_space" not in content:
            raise ConfigError(
                f"model [{model}] has no search space of its own: write `search_space: {{key: "
                f"[values]}}` into a yaml file, or a file of RecBole's HyperTuning, and name it "
                f"with --params_file"
            )
        return content["search_space"], str(path)
    text = read_text(params_file, "params_file")
    path = Path(params_file)
    if path.suffix not in (".yaml", ".yml") or _is_hyper_tuning(text):
        return parse_params(text, str(path)), str(path)
    content = yaml_of(text, f"params_file [{path}]")
    if not isinstance(content, dict) or list(content) != ["search_space"]:
        raise ConfigError(
            f"params_file [{path}] must hold `search_space: {{key: [values]}}` and nothing else; "
            f"values that are not searched belong into --config_files"
        )
    return content["search_space"], str(path)


def parse_params(text: str, source: str) -> dict[str, Any]:
    """The lines of a file of RecBole's HyperTuning, each ``key type values``.

    The types, which are hyperopt's: ``choice [a, b, …]``, Python literals, whose texts are read
    as the config reads them: ``'[64, 64]'`` is a list; ``uniform low,high``; ``loguniform
    low,high``, the natural logarithms of the limits; ``quniform low,high,q``, the multiples of q;
    ``uniformint low,high``.

    Raises:
        ConfigError: a line is not of that form, or a key is given twice.
    """
    space: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        where = f"params_file [{source}], line {number}, [{line.strip()}]"
        if len(words) < 3:
            raise ConfigError(f"{where}: write `key type values`, e.g. knn_k choice [5,10,20]")
        key, kind, values = words
        if key in space:
            raise ConfigError(f"{where}: [{key}] is given twice")
        if kind not in _PARSERS:
            raise ConfigError(
                f"{where}: there is no type [{kind}].{did_you_mean(kind, _PARSERS)} There are: "
                f"{', '.join(_PARSERS)}"
            )
        try:
            space[key] = _PARSERS[kind](values)
        except (ValueError, SyntaxError, OverflowError) as error:
            raise ConfigError(f"{where}: [{values}] is no {kind}: {error}") from None
    return space


def _is_hyper_tuning(text: str) -> bool:
    """Whether the first line that says something is ``key type values``."""
    lines = (line.split(maxsplit=2) for line in text.splitlines())
    first = next((words for words in lines if words and not words[0].startswith("#")), [])
    return len(first) > 1 and first[1] in _PARSERS


def _choice(text: str) -> list:
    values = None
    with contextlib.suppress(TypeError, RecursionError, MemoryError):  # for what is nested deeply
        values = ast.literal_eval(text)
    if not isinstance(values, list | tuple):
        raise ValueError("expected a list")
    return [parse_value(value) if isinstance(value, str) else value for value in values]


def _numbers(text: str, n: int) -> list[float]:
    values = [float(part) for part in text.split(",")]
    if len(values) != n or not all(map(math.isfinite, values)) or values[0] > values[1]:
        raise ValueError(f"expected {n} numbers, the lower limit first")
    return values


def _quniform(text: str) -> list[float]:
    low, high, q = _numbers(text, 3)
    if q <= 0 or (high - low) / q >= MOST_VALUES:
        raise ValueError(f"expected a step that makes 1 to {MOST_VALUES} values")
    multiples = [q * n for n in range(round(low / q), round(high / q) + 1)]
    return [int(x) if q.is_integer() else float(f"{x:.12g}") for x in multiples]


def _uniformint(text: str) -> Interval:
    low, high = _numbers(text, 2)
    if not low.is_integer() or not high.is_integer():
        raise ValueError("expected integers")
    return Interval(int(low), int(high), integer=True)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "choice": _choice,
    "uniform": lambda text: Interval(*_numbers(text, 2)),
    "loguniform": lambda text: Interval(*map(math.exp, _numbers(text, 2)), log=True),
    "quniform": _quniform,
    "uniformint": _uniformint,
}


def check_space(
    space: Any, source: str, config_of: Callable[[Mapping[str, Any]], Config]
) -> tuple[Space, dict[str, Any]]:
    """See that the model takes every value, and make Optuna's distributions of the space.

    The space is widened to the default configuration. Values of a list become JSON texts, since
    Optuna's choices are plain values, and 1, 1.0 and True are equal for it.

    Args:
        space, source: see :func:`read_space`.
        config_of: the config with some values in place of the defaults.

    Returns:
        The distributions, and the default configuration in their terms.

    Raises:
        ConfigError: a key is unknown, not the model's or not one to search; it has no values, or
            one that the model refuses; the message names the file.
    """
    if not isinstance(space, dict) or not space:
        raise ConfigError(f"the search space of {source} is empty; write {{key: [values]}}")
    base = config_of({})
    given = {**base.internal_config_dict, **base.external_config_dict, **_typed(base)}
    where = {key: f"search space of {source}, key [{key}]" for key in space}
    for key, values in space.items():
        _check_key(key, values, where[key], base["model"], set(given) - SHARED)
    defaults = {key: given[key] for key in space}
    accepted = _accepted(space, defaults, source, config_of)
    result, encoded = {}, {}
    for key, values in space.items():
        if isinstance(values, Interval):
            result[key], encoded[key] = _interval(values, defaults[key], where[key]), defaults[key]
        else:
            encoded[key] = to_text(defaults[key])
            texts = [*map(to_text, accepted[key]), encoded[key]]
            result[key] = distributions.CategoricalDistribution(list(dict.fromkeys(texts)))
    return result, encoded


def _check_key(key: str, values: Any, where: str, model: str, known: set[str]) -> None:
    """See that a key may be searched and has values."""
    if key in SHARED:
        raise ConfigError(
            f"{where}: it belongs to the data, the evaluation or the machine, which all trials "
            f"share; set it with --{key}=… for all"
        )
    if key not in known:
        raise ConfigError(
            f"{where}: {model} has no such key.{did_you_mean(key, known)} It has "
            f"{some(sorted(known), 60)}"
        )
    if not isinstance(values, Interval) and not (isinstance(values, list) and values):
        raise ConfigError(f"{where} = [{values}]: give a list of at least one value")


def decode(params: Mapping[str, Any]) -> dict[str, Any]:
    """Config values of Optuna's parameters: a list's are JSON texts."""
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in params.items()}


def size(space: Space) -> float:
    """How many configurations a space has: an integer, or infinity."""
    return math.prod(_size(distribution) for distribution in space.values())


def _size(distribution: distributions.BaseDistribution) -> float:
    if distribution.single():
        return 1
    if isinstance(distribution, distributions.CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, distributions.IntDistribution):
        return distribution.high - distribution.low + 1
    return math.inf


def _typed(config: Config) -> dict[str, Any]:
    """The values of the typed keys: the plugin's, and those of a model of ours."""
    views = filter(None, (config.plugin, config.model_keys))
    return {key: value for view in views for key, value in view.model_dump().items()}


def to_text(value: Any) -> str:
    """A value as JSON, the same for equal values."""
    return json.dumps(value, sort_keys=True)


def _accepted(
    space: Mapping[str, Any],
    defaults: Mapping[str, Any],
    source: str,
    config_of: Callable[[Mapping[str, Any]], Config],
) -> dict[str, list]:
    """The values of each key (of an interval: three of them) as the model reads them.

    Raises:
        ConfigError: the model refuses one, or it is of another kind than the default.
    """
    values = {k: v.examples() if isinstance(v, Interval) else v for k, v in space.items()}
    accepted = {key: [] for key in values}
    for n in range(max(map(len, values.values()))):  # the n-th values of all keys at once
        tried = {key: listed[n] for key, listed in values.items() if n < len(listed)}
        try:
            typed = _typed(config_of(tried))
        except ConfigError as error:
            raise ConfigError(f"search space of {source}: {error}") from None
        for key, value in tried.items():
            kind, usual = _kind(value), _kind(defaults[key])
            if key not in typed and None not in (value, defaults[key]) and kind != usual:
                raise ConfigError(
                    f"search space of {source}, key [{key}]: [{value}] is a {kind}; the default "
                    f"[{defaults[key]}] is a {usual}"
                )
            accepted[key].append(typed.get(key, value))
    return accepted


def _kind(value: Any) -> str:
    kinds = {bool: "truth value", int: "number", float: "number", str: "text"}
    return kinds.get(type(value), type(value).__name__)


def _interval(values: Interval, default: Any, where: str) -> distributions.BaseDistribution:
    """The distribution of an interval, widened to the default."""
    if _kind(default) != "number" or (values.integer and default != int(default)):
        raise ConfigError(f"{where}: the default [{default}] is not a number; give a choice")
    if values.log and default <= 0:
        raise ConfigError(
            f"{where}: the default [{default}], which is tried too, has no logarithm; set another "
            f"in a file of --config_files, or give a choice"
        )
    low, high = min(values.low, default), max(values.high, default)
    if values.integer:
        return distributions.IntDistribution(int(low), int(high))
    return distributions.FloatDistribution(float(low), float(high), log=values.log)
