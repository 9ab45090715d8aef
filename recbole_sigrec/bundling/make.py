"""The bundle of a trained model and its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_sigrec.bundling.scoring_form import ScoringForm, scoring_form
from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset, interactions_of
from recbole_sigrec.data.identity import identity
from recbole_sigrec.errors import DataError, SIGRecError
from recbole_sigrec.json_object import jsonable
from recbole_sigrec.model.item_scores import without_choice
from recbole_sigrec.model.modality_weights import weights_of_modalities
from recbole_sigrec.serving.bundle import Bundle
from recbole_sigrec.serving.new_users import fitted_maps
from recbole_sigrec.serving.recommender import Recommender
from recbole_sigrec.tensor_files import csr_arrays

_FOLDED_IN = 5000  # users by whose validation items the map of new users is chosen
_CHECKED = 64  # users whose scores are compared with the model's own
_TOLERANCE = 1e-4  # of the largest score; float32 sums in another order differ by less


def make_bundle(
    config: Config,
    model: AbstractRecommender,
    train_data: AbstractDataLoader,
    valid_data: AbstractDataLoader | None,
    about: Mapping[str, Any],
    columns: Mapping[str, list[Any]] | None = None,
    histories: bool = True,
) -> Bundle:
    """The bundle of a trained model.

    Args:
        config, model, train_data, valid_data: as :func:`recbole_sigrec.load_data_and_model` gives
            them; the model is put into evaluation mode.
        about: what the manifest has beside model, data set and config: metrics, versions.
        columns: column → a value for each item, see
            :func:`recbole_sigrec.tables.item_columns.item_columns`.
        histories: whether the users' training and validation items are in it.

    Raises:
        SIGRecError: the model cannot be exported, or not without histories.
    """
    model.eval()
    train: Any = train_data.dataset
    training = interactions_of(train)
    form = scoring_form(model)
    if form.graph is not None and not histories:
        raise DataError(
            f"{config['model']} scores with the users' histories (its item graph), so that they "
            f"cannot be left out of the bundle; a model trained with item_score_weight=0 can, "
            f"where it takes that key"
        )
    arrays = {**_scoring_arrays(form, training), **_content_arrays(train)}
    if histories:
        arrays |= _csr("training", training)
        if valid_data is not None:
            arrays |= _csr("validation", interactions_of(valid_data.dataset))
    data = identity(train, train.modality_features)
    users, items = data.pop("users"), data.pop("items")
    manifest = {
        "model": config["model"],
        "dataset": config["dataset"],
        "config": jsonable(config.final_config_dict),
        "trained_on": "training, validation and test" if config["refit"] else "training",
        "data": {"n_users": len(users), "n_items": len(items), **data},
        "scoring": {
            "item_score_weight": form.weight,
            "history_parts": list(form.history_parts),
            "modality_weights": _modality_weights(model, train),
        },
        **about,
    }
    encoders = {name: made_by.saved().to_bytes() for name, made_by in train.encoders.items()}
    encoders |= {name: file.read_bytes() for name, file in train.encoder_files.items()}
    bundle = Bundle(manifest, users, items, arrays, dict(columns or {}), encoders)
    if form.users is not None:
        valid = None if valid_data is None else interactions_of(valid_data.dataset)
        arrays["fold_in.map"] = _fold_in_map(bundle, training, valid)
    _check(model, bundle)
    return bundle


def _fold_in_map(
    bundle: Bundle, training: sp.csr_matrix, validation: sp.csr_matrix | None
) -> np.ndarray:
    """Of the maps for new users, the one that finds most; the first without a validation part."""
    own, arrays = sp.csr_matrix(training[1:, 1:]), bundle.arrays
    vectors = arrays["users.vectors"], arrays["items.vectors"]
    maps = fitted_maps(own, *vectors, arrays["items.count"])
    if validation is None:
        return maps[0]
    later = sp.csr_matrix(validation[1:, 1:])
    return max(maps, key=lambda fold_in: _recall(bundle, fold_in, own, later))


def _recall(
    bundle: Bundle, fold_in: np.ndarray, training: sp.csr_matrix, validation: sp.csr_matrix
) -> float:
    """The recall of some users' validation items, for their training items as new histories."""
    some = np.flatnonzero((np.diff(training.indptr) > 0) & (np.diff(validation.indptr) > 0))
    if not len(some):
        return 0.0
    rows = np.unique(some[np.linspace(0, len(some) - 1, _FOLDED_IN).astype(np.int64)])
    served = Recommender(
        dataclasses.replace(bundle, arrays={**bundle.arrays, "fold_in.map": fold_in})
    )
    histories, wanted = (
        [served.items.names[part[row].indices] for row in rows] for part in (training, validation)
    )
    found = served.rank(k=min(20, len(bundle.items)), history=histories).items
    return float(np.mean([np.isin(items, best).mean() for items, best in zip(wanted, found)]))


def _check(model: Any, bundle: Bundle) -> None:
    """Compare a bundle's scores with the model's own, of some users."""
    rows = np.unique(np.linspace(0, len(bundle.users) - 1, _CHECKED).astype(np.int64))
    recommender = Recommender(bundle)
    ours = recommender.scorer.scores(recommender.known_users(rows))
    batch = {model.USER_ID: torch.from_numpy(1 + rows).to(model.device)}
    with torch.no_grad():
        own = torch.as_tensor(model.full_sort_predict(batch)).cpu().numpy()
    own = own.reshape(len(rows), -1)[:, 1:]
    worst = float(np.abs(own - ours).max()) if own.shape == ours.shape else np.inf
    if not worst <= _TOLERANCE * float(np.abs(own).max()) + 1e-7:
        raise SIGRecError(
            f"model [{type(model).__name__}] cannot be exported: its own scores differ by "
            f"{worst:g} from those of the vectors or the matrix that it holds"
        )


def _scoring_arrays(form: ScoringForm, training: sp.csr_matrix) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {
        "items.count": np.asarray(training.sum(axis=0)).ravel()[1:].astype(np.int32)
    }
    if form.users is not None and form.items is not None:
        arrays |= {"users.vectors": form.users[1:], "items.vectors": form.items[1:]}
        arrays |= {f"parts.{name}": rows[1:] for name, rows in form.parts.items()}
    if isinstance(form.graph, np.ndarray):
        arrays["graph.dense"] = form.graph[1:, 1:]
    elif form.graph is not None:
        arrays |= _csr("graph", form.graph, data=True)
    if form.offset is not None:
        arrays["items.offset"] = form.offset[1:]
    return arrays


def _content_arrays(train: MultimodalDataset) -> dict[str, np.ndarray]:
    arrays = {}
    for name, features in train.modality_features.items():
        has = train.modality_mask[name].numpy()[1:]
        rows = features.numpy()[1:]
        arrays |= {f"content.{name}": rows, f"has.{name}": has}
        arrays[f"mean.{name}"] = rows[has].mean(axis=0, dtype=np.float64).astype(np.float32)
    return arrays


def _csr(name: str, matrix: sp.csr_matrix, data: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a matrix, without [PAD]; of a binary one, all but its data."""
    csr = sp.csr_matrix(matrix[1:, 1:])
    csr.sort_indices()
    return csr_arrays(name, csr, data)


def _modality_weights(model: Any, train: MultimodalDataset) -> dict[str, float]:
    """The share of each modality: the model's own, or equal ones."""
    keys = getattr(model, "keys", None)
    given = without_choice("modality_weights", getattr(keys, "modality_weights", None))
    names = list(train.modality_features)
    return weights_of_modalities(names, given) if names else {}
