"""Loading a trained model together with its data."""

from __future__ import annotations

import logging
from typing import Any

from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader as Loader
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.data.identity import differences
from recbole_sigrec.data.parts import create_dataset, data_preparation
from recbole_sigrec.data.seeds import seed_split
from recbole_sigrec.errors import DataError
from recbole_sigrec.model.base import MultimodalRecommender
from recbole_sigrec.recbole_repairs.notices import quiet
from recbole_sigrec.training import checkpoint
from recbole_sigrec.training.checkpoint_config import config_of, model_of
from recbole_sigrec.training.run import build_model


def load_data_and_model(
    model_file: str,
    model: type | None = None,
    allow_changes: bool = False,
    **overrides: Any,
) -> tuple[Config, AbstractRecommender, MultimodalDataset, Loader, Loader | None, Loader | None]:
    """Load a saved model with its data, as RecBole's function of that name does.

    Users and items are matched by token: the ids of the data set are those of the checkpoint,
    whatever order its files have now. The model is in evaluation mode, and ``representations()``
    carries no gradient until ``model.train()``.

    Args:
        model_file: a ``.pth`` checkpoint of this plugin.
        model: the model's class, where it is the user's own.
        allow_changes: whether a data set that has changed since is loaded, for the users and items
            that the model knows; the log says what differs.
        overrides: config values that differ now, e.g. ``data_path``.

    Returns:
        (config, model, dataset, train_data, valid_data, test_data); a loader is None where the part
        has no interactions.

    Raises:
        ConfigError: the checkpoint is of a model class that is not given, or of another one.
        DataError: the file is not a checkpoint, its data is gone, or the data has changed: other
            users or items, other training interactions, or other features.
    """
    quiet()
    state = checkpoint.load_model(model_file)
    model = model_of(state, model_file, model)
    config = config_of(state, model, model_file, overrides)
    seed_split(config)
    dataset = create_dataset(config, state["data"])
    loaders = data_preparation(config, dataset)
    part: Any = loaders[0].dataset
    changed = differences(state["data"], part)
    if changed:
        told = f"{model_file} was trained on other data: [{state['dataset']}] in "
        told += f"{config['data_path']} now has {'; '.join(changed)}"
        if not allow_changes:
            raise DataError(
                f"{told}. Load it with the data that it had (data_path=…), or, for the users and "
                f"items that it knows, with allow_changes=True"
            )
        logging.getLogger().warning(told)
    net = build_model(config, loaders[0])
    if config["device"].type != "cpu":  # tensors that are no parameters stay where they are put
        state = checkpoint.load_model(model_file, config["device"])
    checkpoint.fill(net, state, model_file)
    net.eval()
    if isinstance(net, MultimodalRecommender):
        net.frozen = True
    train_data, valid_data, test_data = loaders
    return config, net, dataset, train_data, valid_data, test_data
