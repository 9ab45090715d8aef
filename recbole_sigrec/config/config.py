"""Config: RecBole's Config that also knows our models and properties, and checks our keys."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from recbole.config import Config as RecBoleConfig
from recbole.model.abstract_recommender import AutoEncoderMixin
from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_sigrec.config import property_files
from recbole_sigrec.config.idle_keys import NOT_SET_HERE
from recbole_sigrec.config.keys import PATH_KEYS, Keys, PluginKeys, RecBoleKeys
from recbole_sigrec.config.metric_keys import (
    check_metrics,
    check_valid_metric,
    default_valid_metric,
)
from recbole_sigrec.config.property_files import BY_MODEL, PROPERTY_ONLY, by_model, known_keys
from recbole_sigrec.config.registry import is_foreign, model_name, resolve_model
from recbole_sigrec.config.script import script_arguments
from recbole_sigrec.config.sub_keys import check_sub_keys
from recbole_sigrec.config.values import parse_command_line, parse_value
from recbole_sigrec.config.yaml_files import YamlLoader, read_yaml
from recbole_sigrec.errors import ConfigError, did_you_mean, is_nearly
from recbole_sigrec.parallel import distributed
from recbole_sigrec.recbole_repairs.numpy_names import numpy_aliases
from recbole_sigrec.user_paths import folder_name, user_path


@contextlib.contextmanager
def _config_errors(key: str | None = None) -> Iterator[None]:
    """RecBole's errors about values as ours, with the key where RecBole does not say it."""
    try:
        yield
    except (AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"config key [{key}]: {error}" if key else str(error)) from error


class Config(RecBoleConfig):
    """RecBole's Config, with our models, our property files and checked keys.

    Order of precedence, as in RecBole: command line > dict > files > property files. Among the
    property files: RecBole's, then our ``overall.yaml``, ``model/<model>.yaml`` and
    ``dataset/<dataset>.yaml``. A data set's file, and a user's, may hold ``model_defaults:
    {<model>: {key: value}}``, the values tuned for one model, which win over its other keys. A
    model's file may hold ``search_space: {key: [values]}``, for tuning alone. String values are
    parsed as YAML, not evaluated.

    Args:
        model: a name, or a model class; default SIGRec.
        dataset: a data set's name; default ml-100k, which RecBole bundles.
        config_file_list: yaml files.
        config_dict: keys and values.
        command_line: ``--key=value`` strings; none given: as in RecBole, those of the script that
            runs, see :func:`~recbole_sigrec.config.script.script_arguments`.
        parse_strings: whether string values of ``config_dict`` are parsed; not where they are
            another config's final values.

    Raises:
        ConfigError: an unknown model or key, or a value of the wrong type or range.
    """

    if TYPE_CHECKING:  # RecBole's has no types, and None for a key that is not there

        def __getitem__(self, item: str) -> Any: ...

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        command_line: Sequence[str] | None = None,
        parse_strings: bool = True,
    ):
        self._parse_strings = parse_strings
        given = script_arguments(model) if command_line is None else command_line
        self._command_line = parse_command_line(given)
        super().__init__(model, dataset, config_file_list, config_dict)
        self._check_sampling()
        self.plugin = PluginKeys.read(self)
        keys = getattr(self.model_class, "Keys", None)
        self.model_keys = keys.read(self) if keys is not None else None
        for view in filter(None, (self.plugin, self.model_keys)):
            self.final_config_dict.update(view.model_dump())  # "False" in a file is False from here

    def compatibility_settings(self) -> None:
        numpy_aliases()

    def _init_parameters_category(self):
        super()._init_parameters_category()
        self.parameters = copy.deepcopy(self.parameters)  # RecBole extends its global lists

    def _build_yaml_loader(self) -> Any:
        return YamlLoader

    def _convert_config_dict(self, config_dict):
        if not self._parse_strings:
            return dict(config_dict)
        return {k: parse_value(v, k) if isinstance(v, str) else v for k, v in config_dict.items()}

    def _load_config_files(self, file_list):
        """The files' keys, of which a later file's win, ``model_defaults`` with what all have."""
        merged, tuned = {}, {}
        for file in file_list or ():
            content = read_yaml(file, "config file")
            if not isinstance(content or {}, dict):
                raise ConfigError(f"config file [{file}] must hold `key: value` lines")
            merged.update(content or {})
            for model, values in by_model(merged.pop(BY_MODEL, None), file).items():
                tuned.setdefault(model, {}).update(values)
        return {**merged, BY_MODEL: tuned} if tuned else merged

    def _get_final_config_dict(self):
        """What files have for this model are keys of theirs like all others from here on."""
        self.file_config_dict.update(self.file_config_dict.pop(BY_MODEL, {}).get(self.model, {}))
        self._merge_external_config_dict()
        self._check_keys()
        return super()._get_final_config_dict()

    def _merge_external_config_dict(self):
        super()._merge_external_config_dict()
        given = self.external_config_dict
        for key in PATH_KEYS & given.keys():
            if isinstance(given[key], str):
                given[key] = str(user_path(given[key]))

    def _load_cmd_line(self):
        return dict(self._command_line)

    def _get_model_and_dataset(self, model, dataset):
        overall = read_yaml(property_files.property_root() / "overall.yaml", "property file")
        defaults = {**overall, **self.external_config_dict}
        model = defaults["model"] if model is None else model
        dataset = defaults["dataset"] if dataset is None else dataset
        model_class = model if isinstance(model, type) else resolve_model(str(model))
        name = model_class.__name__ if isinstance(model, type) else model_name(str(model))
        if model_class.type not in (ModelType.GENERAL, ModelType.TRADITIONAL):
            raise ConfigError(
                f"model [{name}] is of type {model_class.type.name.lower()}; this plugin trains "
                f"general and traditional recommenders. Run it with RecBole itself"
            )
        return name, model_class, folder_name(str(dataset))

    def _load_internal_config_dict(self, model, model_class, dataset):
        super()._load_internal_config_dict(model, model_class, dataset)
        root = property_files.property_root()
        for file in ("overall.yaml", f"model/{model}.yaml", f"dataset/{dataset}.yaml"):
            if (root / file).is_file():
                self._update_internal_config_dict(root / file)
        tuned = self.internal_config_dict.get(BY_MODEL) or {}
        for key in PROPERTY_ONLY:
            self.internal_config_dict.pop(key, None)
        self.internal_config_dict.update(tuned.get(model, {}))

    def _set_default_parameters(self):
        final, given = self.final_config_dict, RecBoleKeys.read(self)
        check_sub_keys(final)
        check_metrics(given.metrics, final["eval_args"])
        if "valid_metric" not in self.external_config_dict:
            usual = self.internal_config_dict["valid_metric"]
            final["valid_metric"] = default_valid_metric(usual, given.metrics, given.topk)
        check_valid_metric(final["valid_metric"], given.metrics, given.topk)
        own = Path(self.final_config_dict["data_path"]) / self.dataset
        with _config_errors():
            super()._set_default_parameters()
        if own.is_dir():  # RecBole has its bundled ml-100k whatever data_path holds
            self.final_config_dict["data_path"] = str(own)

    def _set_train_neg_sample_args(self):
        with _config_errors("train_neg_sample_args"):
            super()._set_train_neg_sample_args()

    def _set_eval_neg_sample_args(self, phase):
        with _config_errors("eval_args"):
            super()._set_eval_neg_sample_args(phase)
        number = self.final_config_dict[f"{phase}_neg_sample_args"]["sample_num"]
        if number != "none" and number < 1:
            mode = self.final_config_dict["eval_args"]["mode"]
            raise ConfigError(
                f"config key [eval_args], [mode] = [{mode}]: rank at least 1 negative"
            )

    def _init_device(self):
        super()._init_device()
        if not self.final_config_dict["use_gpu"]:
            self.final_config_dict["device"] = torch.device("cpu")
        place = distributed.place()
        if place.world_size > 1 and self.final_config_dict["device"].type == "cuda":
            if torch.cuda.device_count() < place.nproc:
                raise ConfigError(
                    f"config key [gpu_id] = [{self.final_config_dict['gpu_id']}]: nproc = "
                    f"{place.nproc} processes need a GPU each, and {torch.cuda.device_count()} can "
                    f"be used; name as many, e.g. --gpu_id=0,1, or train on the CPU: "
                    f"--use_gpu=False"
                )
            self.final_config_dict["device"] = torch.device("cuda", place.local_rank)
        if not distributed.is_first():  # one process speaks
            self.final_config_dict.update(state="error", show_progress=False, log_wandb=False)

    def _check_sampling(self):
        """Refuse what RecBole's samplers and evaluators would find when training has begun."""
        given = self.final_config_dict["train_neg_sample_args"]
        pairwise = self.final_config_dict.get("MODEL_INPUT_TYPE") == InputType.PAIRWISE
        if given["distribution"] == "none":
            pairwise = pairwise and not issubclass(self.model_class, AutoEncoderMixin)
            if pairwise and self.internal_config_dict.get("train_neg_sample_args") is not None:
                raise ConfigError(
                    f"config key [train_neg_sample_args] = [None]: {self.model} learns from "
                    f"negatives; leave the key out, or give a distribution: uniform or popularity"
                )
        else:
            least = {"sample_num": 1, "candidate_num": 1 if given["dynamic"] else 0}
            for key, limit in least.items():
                if type(given[key]) is not int or given[key] < limit:
                    dynamic = " with dynamic: True" if given["dynamic"] else ""
                    raise ConfigError(
                        f"config key [train_neg_sample_args] has [{key}] = [{given[key]}]: it must "
                        f"be a whole number of at least {limit}{dynamic}"
                    )
        ranking = self.final_config_dict["eval_type"] == EvaluatorType.RANKING
        eval_args = self.final_config_dict["eval_args"]
        if ranking and "labeled" in eval_args["mode"].values():
            raise ConfigError(
                f"config key [eval_args] = [{eval_args}]: mode: labeled is for value metrics such "
                f"as AUC; metrics of rankings need full, uniN or popN"
            )

    def _check_keys(self):
        """Refuse a key that nothing reads; a foreign model's own keys pass unless nearly ours."""
        own = set(getattr(self.model_class, "Keys", Keys).model_fields)
        known = known_keys() | own
        foreign = is_foreign(self.model_class)
        for key in self.external_config_dict:
            if key in NOT_SET_HERE and key not in own:
                raise ConfigError(f"config key [{key}] would do nothing: {NOT_SET_HERE[key]}")
            if key not in known and (not foreign or is_nearly(key, known)):
                raise ConfigError(
                    f"unknown config key [{key}].{did_you_mean(key, known)} Known keys are those "
                    f"of RecBole, of its models, and those in {property_files.property_root()}."
                )
