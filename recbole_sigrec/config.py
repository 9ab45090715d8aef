"""Config: RecBole's Config that also knows our models and properties, and checks our keys."""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import recbole
import torch
import yaml
from recbole.config import Config as RecBoleConfig
from recbole.evaluator import metric_types
from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_sigrec import compat, distributed
from recbole_sigrec.errors import ConfigError, did_you_mean, is_nearly
from recbole_sigrec.registry import known_models, resolve_model

RUNTIME_KEYS = {
    *("model", "dataset", "config_files", "config_file_list", "device", "MODEL_TYPE"),
    *("MODEL_INPUT_TYPE", "eval_type", "valid_neg_sample_args", "test_neg_sample_args"),
    *("neg_sampling", "training_neg_sample_num", "data_path", "numerical_features"),
    *("discretization", "preload_weight", "benchmark_filename", "encoding", "config_file"),
    *("fm_type", "kg_reverse_r", "convert_token_to_onehot", "loss_type"),
}
"""Keys that RecBole reads or sets but that stand in none of its property files."""

BY_MODEL = "model_defaults"
"""In a file: model → {key: value}, for that model alone."""

PROPERTY_ONLY = frozenset({BY_MODEL, "search_space"})
"""Keys that our property files may hold and a user's dict or command line may not."""


class Keys(pydantic.BaseModel):
    """Base of the typed views of a config: unknown fields refused, values checked, immutable."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=False, allow_inf_nan=False
    )

    @classmethod
    def read(cls, config) -> Keys:
        """The view's fields, read from a config.

        Raises:
            ConfigError: a value has the wrong type or lies outside its range.
        """
        values = {key: config[key] for key in cls.model_fields if key in config}
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            value = first["input"] if first["type"] != "missing" else "nothing"
            about = cls.model_fields[first["loc"][0]].description or ""
            raise ConfigError(
                f"config key [{key}] = [{value}]: {first['msg'].lower()}. It is: {about}"
            ) from None


class ItemModality(pydantic.BaseModel):
    """Columns of the ``.item`` file that a built-in encoder turns into a modality."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    columns: list[str] = pydantic.Field(min_length=1)
    encoder: Literal["tfidf", "multi_hot"] = "tfidf"
    dimension: int = pydantic.Field(64, ge=1)


def setting(about: str, **limits) -> Any:
    """A field of a typed view: what it is, for error messages, and pydantic's limits on it."""
    return pydantic.Field(description=about, **limits)


class PluginKeys(Keys):
    """The plugin's keys that are not a model's; defaults are in ``properties/overall.yaml``."""

    modalities: list[str] | None = setting("the modalities to use; none given: all that are found")
    item_modalities: dict[str, ItemModality] | None = setting(
        "modality name: {columns: [...], encoder: tfidf | multi_hot, dimension: n}"
    )
    missing_modality: Literal["mean", "zero", "neighbor"] = setting(
        "the vector of an item without a modality, for models that need one: mean of all items, "
        "zero, or mean of its neighbours in the other modalities or in training histories"
    )
    strict_ids: bool = setting(
        "whether ids that a feature file has beyond the data set, or lacks, are an error"
    )
    split_seed: int | None = setting(
        "the random seed of a split that is drawn; none given: seed", ge=0, lt=2**32
    )
    split_field: str = setting("the column of an untyped .inter file that holds 0, 1, 2")
    noisy_features: float = setting(
        "share of each modality's feature rows that are replaced by noise", ge=0, le=1
    )
    dropped_modalities: float = setting(
        "share of the pairs of an item and a modality that are marked missing", ge=0, le=1
    )
    rewired_edges: float = setting(
        "share of the semantic graphs' edges that lead to an item drawn at random", ge=0, le=1
    )
    corruption_seed: int = setting("the random seed of these three", ge=0)
    negative_items: Literal["all", "train"] = setting(
        "negatives are drawn from all items, or from those with a training interaction (train)"
    )
    learning_rate_scheduler: list[pydantic.PositiveFloat] | None = setting(
        "[factor, epochs]: epoch e trains with learning_rate · factor^(e/epochs); none: constant",
        min_length=2,
        max_length=2,
    )
    graph_memory_mb: int = setting("memory for blocks of similarities or co-occurrences, MiB", ge=1)
    graph_cache_dir: str | None = setting(
        "the folder in which item graphs are kept; none given: they are not kept", min_length=1
    )
    knn_search: Literal["exact", "ivf", "hnsw"] = setting(
        "neighbours of the semantic graphs: exact, or approximate by FAISS's ivf or hnsw"
    )
    eval_memory_mb: int = setting("memory for one block of scores in full ranking, MiB", ge=1)
    result_file: str | None = setting("where the result is written as JSON")
    resume: str | None = setting("a *.last.pth checkpoint to go on from")
    threads: int | None = setting("CPU threads of torch; none given: torch's choice", ge=1)


LOWER_CASE = pydantic.BeforeValidator(lambda value: str(value).lower())
ONE_OR_MORE = pydantic.BeforeValidator(lambda value: value if type(value) is list else [value])


class RecBoleKeys(Keys):
    """Those of RecBole's keys whose wrong value it would find late, or never; strictly typed."""

    model_config = pydantic.ConfigDict(strict=True)

    seed: int = setting("the random seed", ge=0, lt=2**32)
    state: str = setting("the log's level", pattern="(?i)^(debug|info|warning|error|critical)$")
    data_path: str = setting("the folder that holds the data sets' folders", min_length=1)
    checkpoint_dir: str = setting("the folder of the checkpoints", min_length=1)
    epochs: int = setting("at most so many epochs", ge=0)
    train_batch_size: int = setting("training pairs per batch", ge=1)
    learner: Annotated[Literal["adam", "adamw", "sgd", "adagrad", "rmsprop"], LOWER_CASE] = setting(
        "the optimizer"
    )
    learning_rate: float = setting("its learning rate", gt=0)
    weight_decay: float = setting("its L2 penalty", ge=0)
    clip_grad_norm: dict[str, Any] | None = setting(
        "arguments of torch's clip_grad_norm_, as {max_norm: 5}"
    )
    eval_step: int = setting("epochs from one validation to the next (0: none)", ge=0)
    stopping_step: int = setting("validations without a better score before stopping", ge=0)
    eval_batch_size: int | None = setting("scores per evaluation batch", ge=1)
    metrics: Annotated[list[str], ONE_OR_MORE] = setting("the metrics to compute", min_length=1)
    topk: Annotated[list[pydantic.PositiveInt], ONE_OR_MORE] = setting("their cutoffs")
    valid_metric: str = setting("the metric that selects the best epoch, e.g. Recall@20")
    metric_decimal_place: int = setting("decimals of the metrics", ge=0)


def property_root() -> Path:
    """The folder of the property files: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for root in (package / "properties", package.parent / "properties"):
        if (root / "overall.yaml").is_file():
            return root
    raise FileNotFoundError(f"no property files beside {package}; reinstall recbole_sigrec")


class YamlLoader(yaml.SafeLoader):
    """A safe YAML loader that reads 1e-3 as a number, as RecBole's does, and dates as text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


PATH_KEYS = frozenset({"data_path", "checkpoint_dir", "graph_cache_dir", "result_file", "resume"})
"""Keys whose string is a path as it stands, whatever else YAML would make of it."""


def parse_value(text: str, key: str = "") -> Any:
    """A key's string value as a YAML scalar or flow collection, or a path as it stands; ``None``
    is null. Never evaluated."""
    if key in PATH_KEYS:
        quoted = re.fullmatch(r"\s*(['\"])(.*)\1\s*", text, flags=re.DOTALL)
        if quoted:
            return quoted[2]
        return None if text.strip().lower() in ("", "~", "null", "none") else text
    if text.strip() == "None":
        return None
    try:
        return yaml.load(text, Loader=YamlLoader)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: "0b_" seems a number
        return text


def parse_command_line(arguments: Sequence[str]) -> dict[str, Any]:
    """``--key=value`` arguments as a dict.

    Raises:
        ConfigError: an argument is not of that form, or a key is given twice with two values.
    """
    result: dict[str, Any] = {}
    for argument in arguments:
        match = re.fullmatch(r"--([^=\s]+)=(.*)", argument, flags=re.DOTALL)
        if not match:
            raise ConfigError(f"command line argument [{argument}]: write it as --key=value")
        key, value = match[1], parse_value(match[2], match[1])
        if key in result and result[key] != value:
            raise ConfigError(f"command line key [{key}] is given twice, with different values")
        result[key] = value
    return result


@functools.cache
def known_keys() -> frozenset[str]:
    """Every key that RecBole, one of its models, or one of ours reads."""
    keys = set(RUNTIME_KEYS) | set(PluginKeys.model_fields)
    for root in (Path(recbole.__file__).parent / "properties", property_root()):
        for file in root.rglob("*.yaml"):
            if file.parent.name == "dataset" and file.name.startswith(("url", "kg_url")):
                continue
            keys |= set(yaml.load(file.read_text("utf-8"), Loader=YamlLoader) or {})
    return frozenset(keys - PROPERTY_ONLY)


def by_model(given: Any, file: str) -> dict[str, dict[str, Any]]:
    """``model_defaults`` of a user's file; a model of the user's own may have values, too.

    Raises:
        ConfigError: it is not model → {key: value}, or a model's name is nearly a known one.
    """
    given = {} if given is None else given
    if not isinstance(given, dict) or not all(isinstance(v, dict) for v in given.values()):
        raise ConfigError(
            f"config file [{file}]: {BY_MODEL} = [{given}]; write it as {{MODEL: {{key: value}}}}"
        )
    known = known_models()
    for model in given:
        if model not in known and is_nearly(model, known):
            raise ConfigError(
                f"config file [{file}]: {BY_MODEL} has values for [{model}], which is no model."
                f"{did_you_mean(str(model), known)}"
            )
    return given


@contextlib.contextmanager
def _config_errors(key: str | None = None):
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
        command_line: ``--key=value`` strings; ``sys.argv`` is not read.
        parse_strings: whether string values of ``config_dict`` are parsed; not where they are
            another config's final values.

    Raises:
        ConfigError: an unknown model or key, or a value of the wrong type or range.
    """

    def __init__(
        self,
        model=None,
        dataset=None,
        config_file_list=None,
        config_dict=None,
        command_line=(),
        parse_strings=True,
    ):
        self._parse_strings = parse_strings
        self._command_line = parse_command_line(command_line)
        super().__init__(model, dataset, config_file_list, config_dict)
        self._check_keys()
        self._check_sampling()
        self.plugin = PluginKeys.read(self)
        keys = getattr(self.model_class, "Keys", None)
        self.model_keys = keys.read(self) if keys is not None else None
        for view in filter(None, (self.plugin, self.model_keys)):
            self.final_config_dict.update(view.model_dump())  # "False" in a file is False from here

    def compatibility_settings(self):
        compat.numpy_aliases()

    def _init_parameters_category(self):
        super()._init_parameters_category()
        self.parameters = copy.deepcopy(self.parameters)  # RecBole extends its global lists

    def _build_yaml_loader(self):
        return YamlLoader

    def _convert_config_dict(self, config_dict):
        if not self._parse_strings:
            return dict(config_dict)
        return {k: parse_value(v, k) if isinstance(v, str) else v for k, v in config_dict.items()}

    def _load_config_files(self, file_list):
        """The files' keys, of which a later file's win, ``model_defaults`` with what all have."""
        merged, tuned = {}, {}
        for file in file_list or ():
            if not Path(file).is_file():
                raise ConfigError(f"config file [{file}] does not exist")
            try:
                content = yaml.load(Path(file).read_text("utf-8"), Loader=self.yaml_loader)
            except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8
                raise ConfigError(f"config file [{file}] is not YAML: {error}") from None
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
        return super()._get_final_config_dict()

    def _load_cmd_line(self):
        return dict(self._command_line)

    def _get_model_and_dataset(self, model, dataset):
        overall = (property_root() / "overall.yaml").read_text("utf-8")
        defaults = {**yaml.load(overall, Loader=self.yaml_loader), **self.external_config_dict}
        model = model or defaults["model"]
        dataset = dataset or defaults["dataset"]
        model_class = model if isinstance(model, type) else resolve_model(str(model))
        name = model_class.__name__ if isinstance(model, type) else str(model)
        if model_class.type not in (ModelType.GENERAL, ModelType.TRADITIONAL):
            raise ConfigError(
                f"model [{name}] is of type {model_class.type.name.lower()}; this plugin trains "
                f"general and traditional recommenders. Run it with RecBole itself"
            )
        return name, model_class, str(dataset)

    def _load_internal_config_dict(self, model, model_class, dataset):
        super()._load_internal_config_dict(model, model_class, dataset)
        root = property_root()
        for file in ("overall.yaml", f"model/{model}.yaml", f"dataset/{dataset}.yaml"):
            if (root / file).is_file():
                self._update_internal_config_dict(root / file)
        tuned = self.internal_config_dict.get(BY_MODEL) or {}
        for key in PROPERTY_ONLY:
            self.internal_config_dict.pop(key, None)
        self.internal_config_dict.update(tuned.get(model, {}))

    def _set_default_parameters(self):
        for metric in RecBoleKeys.read(self).metrics:
            if metric.lower() not in metric_types:
                raise ConfigError(
                    f"config key [metrics]: there is no metric [{metric}]."
                    f"{did_you_mean(metric, metric_types)} There are: {', '.join(metric_types)}"
                )
        own = Path(self.final_config_dict["data_path"]) / self.dataset
        with _config_errors():
            super()._set_default_parameters()
        if own.is_dir():  # RecBole has its bundled ml-100k whatever data_path holds
            self.final_config_dict["data_path"] = str(own)
        metric = self.final_config_dict["valid_metric"]
        name, _, k = metric.partition("@")
        known = {m.lower() for m in self.final_config_dict["metrics"]}
        cutoffs = {str(k) for k in self.final_config_dict["topk"]}
        if name.lower() not in known or (k and k not in cutoffs):
            raise ConfigError(
                f"config key [valid_metric] = [{metric}] is not computed: metrics are "
                f"{self.final_config_dict['metrics']} at topk {self.final_config_dict['topk']}"
            )

    def _set_train_neg_sample_args(self):
        with _config_errors("train_neg_sample_args"):
            super()._set_train_neg_sample_args()

    def _set_eval_neg_sample_args(self, phase):
        with _config_errors("eval_args"):
            super()._set_eval_neg_sample_args(phase)

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
            if pairwise and self.internal_config_dict.get("train_neg_sample_args") is not None:
                raise ConfigError(
                    f"config key [train_neg_sample_args] = [None]: {self.model} learns from "
                    f"negatives; leave the key out, or give a distribution: uniform or popularity"
                )
        else:
            least = {"sample_num": 1, "candidate_num": 1 if given["dynamic"] else 0}
            for key, limit in least.items():
                if type(given[key]) is not int or given[key] < limit:
                    raise ConfigError(
                        f"config key [train_neg_sample_args] has [{key}] = [{given[key]}]: it must "
                        f"be a whole number of at least {limit}"
                        f"{' with dynamic: True' if given['dynamic'] else ''}"
                    )
        modes = self.final_config_dict["eval_args"]["mode"]
        if (
            self.final_config_dict["eval_type"] == EvaluatorType.RANKING
            and "labeled" in modes.values()
        ):
            raise ConfigError(
                f"config key [eval_args] = [{self.final_config_dict['eval_args']}]: mode: labeled "
                f"is for value metrics such as AUC; metrics of rankings need full, uniN or popN"
            )

    def _check_keys(self):
        """Refuse a key that nothing reads; a foreign model's own keys pass unless nearly ours."""
        known = known_keys() | set(getattr(self.model_class, "Keys", Keys).model_fields)
        foreign = not self.model_class.__module__.startswith(("recbole.", "recbole_sigrec."))
        for key in self.external_config_dict:
            if key in known:
                continue
            if not foreign or is_nearly(key, known):
                raise ConfigError(
                    f"unknown config key [{key}].{did_you_mean(key, known)} Known keys are those "
                    f"of RecBole, of its models, and those in {property_root()}."
                )
