"""Keys inside RecBole's keys, of which RecBole passes over those that it does not know."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn.utils import clip_grad_norm_

from recbole_sigrec.errors import ConfigError, did_you_mean

_SPLITS = ("RS", "LS", "TS")
_CLIPPING = tuple(inspect.signature(clip_grad_norm_).parameters)[1:]
_FILES = ("inter", "user", "item", "kg", "link", "net")

_SUB_KEYS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("train_neg_sample_args",): ("distribution", "sample_num", "alpha", "dynamic", "candidate_num"),
    ("eval_args",): ("split", "order", "group_by", "mode"),
    ("eval_args", "split"): _SPLITS,
    ("eval_args", "mode"): ("valid", "test"),
    ("clip_grad_norm",): _CLIPPING,
}
_CHOICES: dict[tuple[str, ...], tuple[Any, ...]] = {
    ("train_neg_sample_args", "dynamic"): (True, False),
    ("eval_args", "order"): ("RO", "TO"),
    ("eval_args", "group_by"): ("user", "none", "None", None),
    ("eval_args", "split", "LS"): ("valid_and_test", "valid_only", "test_only"),
}


def check_sub_keys(config: Mapping[str, Any]) -> None:
    """See that what stands inside RecBole's keys is what RecBole reads.

    Args:
        config: the values of all keys, before RecBole fills in what is not given.

    Raises:
        ConfigError: a key is unknown, or has a value of the wrong kind.
    """
    negatives = config.get("train_neg_sample_args")
    if isinstance(negatives, dict) and {"uniform", "popularity"} & set(negatives):
        distribution = "uniform" if "uniform" in negatives else "popularity"
        number = negatives[distribution]
        raise ConfigError(
            f"config key [train_neg_sample_args] = [{negatives}] is of an older RecBole; today's "
            f"form is {{distribution: {distribution}, sample_num: {number}}}"
        )
    for path, known in _SUB_KEYS.items():
        _check_known(path, _inside(config, path), known)
    for path, choices in _CHOICES.items():
        value = _inside(config, path)
        if value is not _NOTHING and not any(value is c or value == c for c in choices):
            raise ConfigError(f"{_where(path)} = [{value}]: it must be one of {list(choices)}")
    _check_split(_inside(config, ("eval_args", "split")))
    _check_number(config, "train_neg_sample_args", "alpha", -math.inf)
    if config.get("clip_grad_norm"):
        _check_number(config, "clip_grad_norm", "max_norm", 0)
        if "max_norm" not in config["clip_grad_norm"]:
            raise ConfigError("config key [clip_grad_norm] needs [max_norm]: {max_norm: 5}")
    files = (*_FILES, *_listed(config.get("additional_feat_suffix")))
    for key in ("load_col", "unload_col"):
        _check_known((key,), _inside(config, (key,)), files)
    for field in _listed(config.get("discretization")):
        path = ("discretization", field)
        _check_known(path, _inside(config, path), ("method", "bucket"))


_NOTHING = object()


def _inside(config: Mapping[str, Any], path: Iterable[str]) -> Any:
    """The value at a path of keys; ``_NOTHING`` where it is not given."""
    value: Any = config
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return _NOTHING
        value = value[key]
    return value


def _where(path: tuple[str, ...]) -> str:
    first, *inner = path
    return f"config key [{first}]" + "".join(f", [{key}]" for key in inner)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _check_known(path: tuple[str, ...], given: Any, known: Iterable[str]) -> None:
    if not isinstance(given, Mapping):
        return  # RecBole says what it must be
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{_where(path)} has no [{key}].{did_you_mean(key, known)} It has: "
                f"{', '.join(known)}"
            )


def _check_number(config: Mapping[str, Any], key: str, inner: str, above: float) -> None:
    value = _inside(config, (key, inner))
    if value is _NOTHING or (_is_number(value) and above < value < math.inf):
        return
    least = f" above {above}" if above > -math.inf else ""
    raise ConfigError(f"{_where((key, inner))} = [{value}]: it must be a number{least}")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_split(split: Any) -> None:
    """See that a split is one way with what it needs, as ``{RS: [0.8, 0.1, 0.1]}``."""
    if split is _NOTHING:
        return
    where = _where(("eval_args", "split"))
    if not isinstance(split, Mapping) or len(split) != 1:
        raise ConfigError(
            f"{where} = [{split}]: give one way, as {{RS: [0.8, 0.1, 0.1]}} or {{LS: "
            f"valid_and_test}}"
        )
    (way, shares), *_ = split.items()
    if way == "LS":
        return
    of_numbers = isinstance(shares, list) and all(map(_is_number, shares))
    if not of_numbers or len(shares) != 3 or min(shares) < 0 or not 0 < shares[0] < math.inf:
        made = f" makes {len(shares)} part(s)" if of_numbers else ""
        raise ConfigError(
            f"{where}, [{way}] = [{shares}]{made}: give the shares of training, validation and "
            f"test, as [0.8, 0.1, 0.1]; that of training is above 0"
        )
