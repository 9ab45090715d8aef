"""Arms: the contenders of a comparison, and what they must have in common."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recbole.utils.argument_list import dataset_arguments, evaluation_arguments

from recbole_sigrec import checkpoint
from recbole_sigrec.config import Config
from recbole_sigrec.errors import ConfigError, some
from recbole_sigrec.trainer import MACHINE_KEYS

CORRUPTIONS = {
    "noisy_features": "share of the feature rows replaced by noise",
    "rewired_edges": "share of the semantic edges rewired",
    "dropped_modalities": "share of the items' modalities missing",
}
"""Keys that corrupt the content, see :mod:`recbole_sigrec.data.corruption`: key → what it is."""

SHARED_KEYS = (
    frozenset({"dataset", "data_path", "seed", "split_seed", "corruption_seed"})
    | frozenset({*dataset_arguments, *evaluation_arguments} - {"eval_batch_size"})
    | {"modalities", "item_modalities", "missing_modality", "strict_ids", "split_field"}
    | CORRUPTIONS.keys()
)
"""Keys that decide on the data, the split and the evaluation: the same for all arms, but that an
arm may have some of the first arm's modalities alone."""

OWN_KEYS = ("result_file", "resume")  # a comparison keeps its results and checkpoints itself


@dataclasses.dataclass(frozen=True)
class Arm:
    """One contender of a comparison: a model in one configuration.

    Attributes:
        label: its name in the tables, unique in the comparison.
        model: a name (ours or RecBole's) or a model class.
        config_files, values: yaml files and config keys, on top of those of the comparison.
    """

    label: str
    model: str | type
    config_files: tuple[str, ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The label as a file name; where it must be changed for that, with a hash of it."""
        safe = re.sub(r"[^\w.+=-]+", "-", self.label).strip("-.")
        return safe if safe == self.label else f"{safe}-{_hash(self.label)[:6]}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a comparison gives to all of its arms: a data set, yaml files and config keys."""

    dataset: str | None
    config_files: tuple[str, ...]
    values: Mapping[str, Any]

    def config(self, arm: Arm, **overrides) -> Config:
        """The config of an arm; the arm's files and values win over the comparison's.

        Args:
            overrides: config keys that win over all.

        Raises:
            ConfigError: see :class:`recbole_sigrec.config.Config`.
        """
        files = [*self.config_files, *arm.config_files]
        return Config(arm.model, self.dataset, files, {**self.values, **arm.values, **overrides})


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
    configs = {}
    for arm in arms:
        config = setting.config(arm)
        for key in OWN_KEYS:
            if config[key]:
                raise ConfigError(
                    f"config key [{key}] = [{config[key]}]: a comparison writes its results and "
                    f"resumes its runs in its own folder; remove the key"
                )
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
        for key in ("eval_step", "epochs"):
            if not config[key]:
                raise ConfigError(
                    f"config key [{key}] = [0]: a comparison tests the epoch with the best "
                    f"validation; give at least 1"
                )
        configs[arm.label] = settled_values(config)
        shared = {key: checkpoint.jsonable(config[key]) for key in SHARED_KEYS}
        if arm is arms[0]:
            expected = shared
        for key in sorted(SHARED_KEYS):
            if shared[key] != expected[key] and not _are_some(key, shared[key], expected[key]):
                raise ConfigError(
                    f"config key [{key}] is [{expected[key]}] for {arms[0].label} and "
                    f"[{shared[key]}] for {arm.label}: all arms of a comparison share the data, "
                    f"the split and the evaluation. Give the key for all, or make two comparisons"
                )
    return configs


def _are_some(key: str, own: list[str] | None, all_of_them: list[str] | None) -> bool:
    """Whether an arm has some of the first arm's modalities: they are read with the others."""
    return key == "modalities" and bool(own) and (not all_of_them or set(own) <= set(all_of_them))


def settled_values(config: Config) -> dict[str, Any]:
    """A config's final values in JSON's types, without those of where and how it computes."""
    values = json.loads(checkpoint.config_json(config))
    return {key: value for key, value in values.items() if key not in MACHINE_KEYS}


def config_hash(values: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of config values, in JSON with sorted keys."""
    return _hash(json.dumps(values, sort_keys=True))[:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The keys in which two configs differ, and the values of the first; nothing if none."""
    keys = sorted(k for k in set(before) | set(now) if before.get(k) != now.get(k))
    if not keys:
        return ""
    key = keys[0]
    return f"{some(keys)}; [{key}] was [{before.get(key)}], it is [{now.get(key)}]"
