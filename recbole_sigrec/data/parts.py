"""The parts of a data set: the seed of the split, the split itself, and a loader for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.sampler import RepeatableSampler

from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.data.loaders import loader_class
from recbole_sigrec.data.sampler import Sampler
from recbole_sigrec.errors import ConfigError, DataError

PHASES = ("train", "valid", "test")


def create_dataset(
    config: Config, vocabulary: Mapping[str, Any] | None = None
) -> MultimodalDataset:
    """The data set of a config; RecBole's pickled data sets are neither read nor written.

    Args:
        vocabulary: see :class:`recbole_sigrec.data.dataset.MultimodalDataset`.

    Raises:
        DataError: the data cannot be used as it is.
    """
    return MultimodalDataset(config, vocabulary)


Loaders = tuple[AbstractDataLoader, AbstractDataLoader | None, AbstractDataLoader | None]
"""Those of training, validation and test; None where a part has no interactions."""


def data_preparation(
    config: Config,
    dataset: MultimodalDataset,
    parts: Sequence[MultimodalDataset] | None = None,
) -> Loaders:
    """Split the data set, or take its ``parts`` as they are, and make its loaders.

    With ``refit`` all interactions are the training part.

    Sets ``eval_batch_size`` (in scores, as RecBole counts it) from the number of items and
    ``eval_memory_mb`` where the user has set none.

    Returns:
        (training, validation, test) loaders, RecBole's classes; None for a part that is empty.

    Raises:
        ConfigError: there are fewer items than the largest cutoff of ``topk``.
        DataError: the evaluation needs labels that are not there.
    """
    check_cutoffs(config, dataset)
    label = config["LABEL_FIELD"]
    if "labeled" in config["eval_args"]["mode"].values() and label not in dataset.inter_feat:
        raise DataError(
            f"config key [eval_args] has mode: labeled, and data set [{config['dataset']}] has no "
            f"field [{label}]: name it under load_col, or make it with threshold"
        )
    parts = dataset.build(whole=bool(config["refit"])) if parts is None else parts
    set_evaluation_batch(config, dataset)
    samplers = _samplers(config, dataset, parts)

    def make(phase: str, part: MultimodalDataset, sampler: Any) -> AbstractDataLoader:
        shuffle = bool(config["shuffle"]) and phase == "train"
        return loader_class(config, phase, sampler)(config, part, sampler, shuffle=shuffle)

    train, *others = zip(PHASES, parts, samplers, strict=True)
    valid, test = (make(*other) if len(other[1]) else None for other in others)
    return make(*train), valid, test


def check_cutoffs(config: Config, dataset: MultimodalDataset) -> None:
    """See that a data set has as many items as the largest cutoff of ``topk``.

    Raises:
        ConfigError: it has fewer.
    """
    n_items = dataset.item_num - 1
    if max(config["topk"]) > n_items:
        raise ConfigError(
            f"config key [topk] = [{config['topk']}]: the data set has {n_items} items; give "
            f"cutoffs up to that, and valid_metric one of them"
        )


def set_evaluation_batch(config: Config, dataset: MultimodalDataset) -> None:
    """Set ``eval_batch_size`` where the user has set none.

    In sampled evaluation it counts pairs, not scores, and RecBole's own default holds.
    """
    if config["eval_batch_size"] is None:
        full = set(config["eval_args"]["mode"].values()) == {"full"}
        scores = evaluation_batch(dataset.item_num, config["eval_memory_mb"])
        config["eval_batch_size"] = scores if full else 4096


def evaluation_batch(n_items: int, memory_mb: int) -> int:
    """Scores per evaluation batch: as many whole users as ``memory_mb`` holds, at least one.

    Evaluation holds the scores, and while they are masked and ranked about three times as much.
    """
    users = max(1, int(memory_mb * 2**20 // (16 * n_items)))
    return users * n_items


def _samplers(
    config: Config, dataset: MultimodalDataset, parts: Sequence[MultimodalDataset]
) -> list[Sampler | RepeatableSampler | None]:
    """One sampler for all phases (RecBole's rule), as (train, valid, test); None where unused."""
    alpha = config["train_neg_sample_args"]["alpha"]
    alpha = 1.0 if alpha == "none" else alpha
    base, result = None, []
    for phase in PHASES:
        distribution = config[f"{phase}_neg_sample_args"]["distribution"]
        if distribution == "none":
            result.append(None)
            continue
        if base is not None:
            if base.distribution != distribution:
                base.set_distribution(distribution)
        elif config["repeatable"]:
            if config["negative_items"] != "all":
                raise ConfigError(
                    f"config keys [repeatable] = [True] and [negative_items] = "
                    f"[{config['negative_items']}]: RecBole's sampler of repeatable items draws "
                    f"from all; set negative_items: all"
                )
            base = RepeatableSampler(list(PHASES), dataset, distribution, alpha)
        else:
            base = Sampler(list(PHASES), list(parts), distribution, alpha, config["negative_items"])
        if isinstance(base, Sampler) and config[f"{phase}_neg_sample_args"]["sample_num"] != "none":
            base.check(phase)
        result.append(base.set_phase(phase))
    return result
