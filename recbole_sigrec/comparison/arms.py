"""Arms: the contenders of a comparison, and what they must have in common."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_sigrec.config import Config
from recbole_sigrec.config.keys import SHARED_KEYS, keys_of
from recbole_sigrec.config.registry import model_name
from recbole_sigrec.errors import ConfigError, some
from recbole_sigrec.json_object import jsonable
from recbole_sigrec.training import checkpoint

_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10)),
}
"""Names that no file has on Windows, whatever follows their first dot."""

_MOST_BYTES = 200  # of a file's name that come from a label; systems take 255 in all


@dataclasses.dataclass(frozen=True)
class Arm:
    """One contender of a comparison: a model in one configuration.

    Attributes:
        label: its name in the tables, unique in the comparison.
        model: a name (ours or RecBole's) or a model class.
        config_file_list, config_dict: yaml files and config keys, on top of the comparison's.
    """

    label: str
    model: str | type | None
    config_file_list: Sequence[str] = ()
    config_dict: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_model(cls, model: str | type | Arm) -> Arm:
        """An arm of a model's name or class, labelled so; an arm is left as it is."""
        if isinstance(model, Arm):
            return model
        if isinstance(model, str):
            return cls(model_name(model), model)
        return cls(model.__name__, model)

    @property
    def stem(self) -> str:
        """The label as a file name; where it must be changed for that, with a hash of it.

        What Windows forbids is changed everywhere, so that a folder can be moved.
        """
        safe = re.sub(r"[^\w.+=-]+", "-", self.label).strip("-.")
        safe = safe.encode()[:_MOST_BYTES].decode(errors="ignore")
        if safe.partition(".")[0].upper() in _DEVICES:
            safe = safe.replace(".", "-")  # Windows takes "NUL.x-1.json" for a device
        return safe if safe == self.label else f"{safe}-{_hash(self.label, 6)}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a comparison gives to all of its arms: a data set, yaml files and config keys."""

    dataset: str | None
    config_file_list: Sequence[str]
    config_dict: Mapping[str, Any]

    def config(self, arm: Arm, **overrides: Any) -> Config:
        """The config of an arm; the arm's files and values win over the comparison's.

        Args:
            overrides: config keys that win over all.

        Raises:
            ConfigError: see :class:`recbole_sigrec.config.config.Config`.
        """
        files = [*self.config_file_list, *arm.config_file_list]
        values = {**self.config_dict, **arm.config_dict, **overrides}
        return Config(arm.model, self.dataset, files, values, command_line=())


def arm_configs(arms: Sequence[Arm], setting: Setting) -> dict[str, dict[str, Any]]:
    """Label → the final config values of each arm, without those of where and how it computes.

    Raises:
        ConfigError: labels are not distinct, a config is wrong, or the arms' configs differ in
            what makes the data, the split and the evaluation.
    """
    labels = [arm.label.casefold() for arm in arms]
    for arm, label in zip(arms, labels, strict=True):
        if labels.count(label) > 1:
            raise ConfigError(f"two arms are called [{arm.label}]; each needs a label of its own")
    configs, expected = {}, {}
    for arm in arms:
        config = setting.config(arm)
        check_for_many_runs(config, "a comparison")
        if set(config["eval_args"]["mode"].values()) != {"full"}:
            raise ConfigError(
                f"config key [eval_args] = [{config['eval_args']}]: a comparison ranks all items; "
                f"set mode: full"
            )
        if not {"recall", "ndcg"} <= {metric.lower() for metric in config["metrics"]}:
            raise ConfigError(
                f"config key [metrics] = [{config['metrics']}]: a comparison rests on Recall and "
                f"NDCG; name both, beside any other"
            )
        configs[arm.label] = settled_values(config)
        shared = {key: jsonable(config[key]) for key in SHARED_KEYS}
        expected = expected or shared
        for key in sorted(SHARED_KEYS):
            if shared[key] != expected[key] and not _are_some(key, shared[key], expected[key]):
                raise ConfigError(
                    f"config key [{key}] is [{expected[key]}] for {arms[0].label} and "
                    f"[{shared[key]}] for {arm.label}: all arms of a comparison share the data, "
                    f"the split and the evaluation. Give the key for all, or make two comparisons"
                )
    return configs


def check_for_many_runs(config: Config, what: str) -> None:
    """See that a config is fit for many runs; ``what`` makes them.

    Raises:
        ConfigError: it names a file of a single run, or a run would have no validation.
    """
    for key in ("result_file", "bundle", "refit", "warm_start", "resume"):
        if config[key]:
            raise ConfigError(
                f"config key [{key}] = [{config[key]}]: {what} keeps the files of its runs in a "
                f"folder of its own; remove the key"
            )
    for key in ("eval_step", "epochs"):
        if not config[key]:
            raise ConfigError(
                f"config key [{key}] = [0]: {what} needs each run's best validation; give at least "
                f"1"
            )


def _are_some(key: str, own: list[str] | None, all_of_them: list[str] | None) -> bool:
    """Whether an arm has some of the first arm's modalities: they are read with the others."""
    return key == "modalities" and bool(own) and (not all_of_them or set(own) <= set(all_of_them))


def settled_values(config: Config) -> dict[str, Any]:
    """A config's final values in JSON's types, without those of where and how it computes."""
    values = json.loads(checkpoint.config_json(config))
    return {key: value for key, value in values.items() if key not in keys_of("machine")}


def config_hash(values: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of config values, in JSON with sorted keys."""
    return content_hash(values)[:16]


def content_hash(values: Mapping[str, Any]) -> str:
    """The SHA-256 of values, in JSON with sorted keys."""
    return _hash(json.dumps(values, sort_keys=True), 64)


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The keys in which two configs differ, and the values of the first; nothing if none."""
    keys = sorted(k for k in set(before) | set(now) if before.get(k) != now.get(k))
    if not keys:
        return ""
    key = keys[0]
    return f"{some(keys)}; [{key}] was [{before.get(key)}], it is [{now.get(key)}]"
