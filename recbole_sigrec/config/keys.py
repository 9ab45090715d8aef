"""Config keys: each is declared once, with its type, its range, its meaning and its role.

The keys of a model are declared in the model's own file, by a subclass of :class:`Keys`.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic.fields import FieldInfo
from recbole.utils.argument_list import dataset_arguments, evaluation_arguments
from typing_extensions import Self

from recbole_sigrec.errors import ConfigError

Role = Literal["model", "data", "split", "evaluation", "machine", "derived"]
"""What a key decides on.

- ``model``: the model and its training. Contenders of a comparison may differ in it.
- ``data``, ``split``, ``evaluation``: what all contenders of a comparison share.
- ``machine``: where and how a run computes, and where it writes. A resumed run may differ in it.
- ``derived``: nothing; RecBole's Config sets it from other keys.
"""


AUTO = "auto"
Auto = Literal["auto"]
"""The value of a key whose value the data decides."""


def setting(
    about: str, *roles: Role, resume: bool = False, path: bool = False, **limits: Any
) -> Any:
    """Declare a config key, as a field of :class:`Keys`.

    Args:
        about: its meaning, for error messages.
        roles: see :data:`Role`; none given: ``model``.
        resume: whether it may differ when a run is resumed, as keys of the machine always may.
        path: whether its text is a path, whatever else YAML would make of the text.
        limits: pydantic's limits of the value.
    """
    extra = {"roles": roles or ("model",), "resume": resume, "path": path}
    return pydantic.Field(description=about, json_schema_extra=extra, **limits)


class Keys(pydantic.BaseModel):
    """A typed view of a config: unknown fields are refused, values are checked and immutable."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=False, allow_inf_nan=False
    )

    @classmethod
    def read(cls, config: Any) -> Self:
        """Read the view's fields from a config.

        Raises:
            ConfigError: a value has the wrong type or lies outside its range.
        """
        values = {key: config[key] for key in cls.model_fields if key in config}
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            first, *others = error.errors()
            name = str(first["loc"][0])
            field = cls.model_fields[name]
            key, wrong = ".".join(str(part) for part in first["loc"]), first["msg"].lower()
            if Auto in get_args(field.annotation):  # an error for each type that it might have
                key, first["input"] = name, values.get(name)
                wrong += "".join(
                    f" or {other['msg'].lower()}" for other in others if other["loc"][0] == name
                )
            value = first["input"] if first["type"] != "missing" else "nothing"
            raise ConfigError(
                f"config key [{key}] = [{value}]: {wrong}. It is: {field.description or ''}"
            ) from None


class ItemModality(pydantic.BaseModel):
    """Columns of the ``.item`` file that a built-in encoder turns into a modality."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    columns: list[str] = pydantic.Field(min_length=1)
    encoder: Literal["tfidf", "multi_hot"] = "tfidf"
    dimension: int = pydantic.Field(64, ge=1)


class PluginKeys(Keys):
    """The plugin's keys that are not a model's; defaults are in ``properties/overall.yaml``."""

    modalities: list[str] | None = setting(
        "the modalities to use; none given: all that are found", "data"
    )
    item_modalities: dict[str, ItemModality] | None = setting(
        "modality name: {columns: [...], encoder: tfidf | multi_hot, dimension: n}", "data"
    )
    missing_modality: Literal["mean", "zero", "neighbor"] = setting(
        "the vector of an item without a modality, for models that need one: mean of all items, "
        "zero, or mean of its neighbours in the other modalities or in training histories",
        "data",
    )
    strict_ids: bool = setting(
        "whether ids that a feature file has beyond the data set, or lacks, are an error", "data"
    )
    split_seed: int | None = setting(
        "the random seed of a split that is drawn; none given: seed", "split", ge=0, lt=2**32
    )
    split_field: str = setting("the column of an untyped .inter file that holds 0, 1, 2", "split")
    noisy_features: float = setting(
        "share of each modality's feature rows that are replaced by noise", "data", ge=0, le=1
    )
    dropped_modalities: float = setting(
        "share of the pairs of an item and a modality that are marked missing", "data", ge=0, le=1
    )
    rewired_edges: float = setting(
        "share of the semantic graphs' edges that lead to an item drawn at random",
        "data",
        ge=0,
        le=1,
    )
    corruption_seed: int = setting("the random seed of these three", "data", ge=0)
    negative_items: Literal["all", "train"] = setting(
        "negatives are drawn from all items, or from those with a training interaction (train)"
    )
    learning_rate_scheduler: list[pydantic.PositiveFloat] | None = setting(
        "[factor, epochs]: epoch e trains with learning_rate · factor^(e/epochs); none: constant",
        min_length=2,
        max_length=2,
    )
    graph_memory_mb: int = setting(
        "memory for blocks of similarities or co-occurrences, MiB", "machine", ge=1
    )
    graph_cache_dir: str | None = setting(
        "the folder in which item graphs are kept; none given: they are not kept",
        "machine",
        path=True,
        min_length=1,
    )
    knn_search: Literal["exact", "ivf", "hnsw"] = setting(
        "neighbours of the semantic graphs: exact, or approximate by FAISS's ivf or hnsw"
    )
    eval_memory_mb: int = setting(
        "memory for one block of scores in full ranking, MiB", "machine", ge=1
    )
    result_file: str | None = setting("where the result is written as JSON", "machine", path=True)
    bundle: str | None = setting(
        "where the tested model is written as a bundle, see recbole-sigrec export",
        "machine",
        path=True,
    )
    refit: str | None = setting(
        "a .pth checkpoint: its configuration is trained on all interactions, without validation",
        "split",
        path=True,
    )
    warm_start: str | None = setting(
        "a .pth checkpoint whose parameters are the start of a training on newer data",
        resume=True,
        path=True,
    )
    resume: str | None = setting("a *.last.pth checkpoint to go on from", "machine", path=True)
    verbose: bool = setting(
        "whether the terminal shows the configuration, and all metrics of each validation, as "
        "RecBole does; else one line an epoch. The log file has all in both cases",
        "machine",
    )
    threads: int | None = setting(
        "CPU threads of torch; none given: torch's choice", "machine", ge=1
    )


LOWER_CASE = pydantic.BeforeValidator(lambda value: str(value).lower())
ONE_OR_MORE = pydantic.BeforeValidator(lambda value: value if type(value) is list else [value])


class RecBoleKeys(Keys):
    """Those of RecBole's keys whose wrong value it would find late, or never; strictly typed."""

    model_config = pydantic.ConfigDict(strict=True)

    seed: int = setting("the random seed", "split", ge=0, lt=2**32)
    state: str = setting(
        "the log's level", "machine", pattern="(?i)^(debug|info|warning|error|critical)$"
    )
    data_path: str = setting(
        "the folder that holds the data sets' folders", "data", "machine", path=True, min_length=1
    )
    checkpoint_dir: str = setting(
        "the folder of the checkpoints", "machine", path=True, min_length=1
    )
    epochs: int = setting("at most so many epochs", resume=True, ge=0)
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
    stopping_step: int = setting(
        "validations without a better score before stopping", resume=True, ge=0
    )
    eval_batch_size: int | None = setting("scores per evaluation batch", "machine", ge=1)
    metrics: Annotated[list[str], ONE_OR_MORE] = setting(
        "the metrics to compute", "evaluation", resume=True, min_length=1
    )
    topk: Annotated[list[pydantic.PositiveInt], ONE_OR_MORE] = setting(
        "their cutoffs", "evaluation", resume=True, min_length=1
    )
    valid_metric: str = setting(
        "the metric that selects the best epoch, e.g. Recall@20; not given: as the property files "
        "have it, at the largest cutoff of topk up to that",
        "evaluation",
    )
    metric_decimal_place: int = setting("decimals of the metrics", "evaluation", ge=0)
    tail_ratio: float | None = setting(
        "the rare items of TailPercentage: a share of all items, or above 1 those with at most so "
        "many interactions; none given: 0.1",
        "evaluation",
        default=None,
        gt=0,
    )


PICKLED = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")
"""RecBole's keys of pickled data sets and loaders, which are refused."""

_UNTYPED: list[tuple[tuple[Role, ...], list[str]]] = [
    (("data",), [*dataset_arguments, "dataset", "numerical_features", "discretization"]),
    (("data",), ["encoding"]),
    (("evaluation",), evaluation_arguments),
    (("evaluation", "derived"), ["valid_metric_bigger"]),
    (("machine",), [*PICKLED, "gpu_id", "use_gpu", "worker", "show_progress", "log_wandb"]),
    (("machine",), ["wandb_project", "config_file", "config_files", "config_file_list"]),
    (("machine",), ["loss_decimal_place", "reproducibility"]),
    (("machine", "derived"), ["device"]),
    (("derived",), ["model", "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "single_spec"]),
    (("derived",), ["local_rank", "valid_neg_sample_args", "test_neg_sample_args"]),
    (("model",), ["loss_type", "fm_type", "kg_reverse_r", "convert_token_to_onehot", "norm"]),
]
UNTYPED: dict[str, tuple[Role, ...]] = {key: roles for roles, keys in _UNTYPED for key in keys}
"""RecBole's keys that are not typed here; a key of a model that is in neither table is ``model``.
Some stand in none of RecBole's property files."""

CORRUPTIONS = {
    "noisy_features": "share of the feature rows replaced by noise",
    "rewired_edges": "share of the semantic edges rewired",
    "dropped_modalities": "share of the items' modalities missing",
}
"""Keys that corrupt the content, see :mod:`recbole_sigrec.data.corruption`: key → what it is."""

_TYPED: dict[str, FieldInfo] = {**PluginKeys.model_fields, **RecBoleKeys.model_fields}


def _declared(key: str, what: str) -> Any:
    extra = _TYPED[key].json_schema_extra
    assert isinstance(extra, dict)
    return extra[what]


@functools.cache
def keys_of(*roles: Role) -> frozenset[str]:
    """The declared keys that have one of these roles; keys of models are not among them."""
    declared = UNTYPED | {key: _declared(key, "roles") for key in _TYPED}
    return frozenset(key for key, own in declared.items() if set(own) & set(roles))


PATH_KEYS = frozenset(key for key in _TYPED if _declared(key, "path"))
"""Keys whose text is a path as it stands."""

RESUME_KEYS = keys_of("machine") | {key for key in _TYPED if _declared(key, "resume")}
"""Keys that may differ when a run is resumed."""

SHARED_KEYS = keys_of("data", "split", "evaluation")
"""Keys that all contenders of a comparison share."""
