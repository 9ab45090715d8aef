"""The start of a training on newer data: a trained model's parameters, by token."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType
from torch import nn

from recbole_sigrec.data.dataset import MultimodalDataset, interactions_of
from recbole_sigrec.data.identity import row_hashes
from recbole_sigrec.errors import ConfigError, DataError
from recbole_sigrec.model.base import RawFeatures
from recbole_sigrec.serving.new_items import Content, added_rows, lengthened
from recbole_sigrec.serving.new_users import aggregated, fitted_maps
from recbole_sigrec.training import checkpoint
from recbole_sigrec.training.optimizers import own_parameters


@torch.no_grad()
def warm_start(net: AbstractRecommender, file: str, train_data: AbstractDataLoader) -> None:
    """Give a new model the parameters of a trained one; :func:`made_anew` says which start anew.

    Rows of users and items go by token. A new item's rows are those of similar items
    (:mod:`recbole_sigrec.serving.new_items`), a new user's follow from the history
    (:mod:`recbole_sigrec.serving.new_users`); where there is neither content nor history they stay
    as they were initialised. The log counts them.

    Args:
        net: the new model; changed in place.
        file: the ``.pth`` checkpoint.
        train_data: the new training data.

    Raises:
        ConfigError: nothing is learned in the model, a parameter does not fit, or it cannot be told
            which rows of it are users and which items.
        DataError: the checkpoint cannot be read, or the features are from another encoder.
    """
    if getattr(net, "type") == ModelType.TRADITIONAL:  # noqa: B009
        raise ConfigError(
            f"config key [warm_start]: {type(net).__name__} is computed from its data at once; "
            f"there are no parameters to start from"
        )
    state = checkpoint.load_model(file, getattr(net, "device"))  # noqa: B009
    train: Any = train_data.dataset
    tokens = {"users": train.field2id_token[train.uid_field]}
    tokens["items"] = train.field2id_token[train.iid_field]
    places = {}
    for kind, now in tokens.items():
        old = {token: row for row, token in enumerate(state["data"][kind], start=1)}
        places[kind] = np.array([0, *(old.get(token, -1) for token in now[1:].astype(str))])
    _check_features(file, state["row_hashes"], train, places["items"])
    sizes = {kind: 1 + len(state["data"][kind]) for kind in tokens}
    anew = made_anew(net)
    tables = [
        table
        for name, old in state["state_dict"].items()
        if name not in anew
        for table in _take_over(net, name, old, places, sizes, file)
    ]
    filled = {
        "items": _fill_items(train, [t for t in tables if t.kind == "items"], places["items"]),
        "users": _fill_users(train, tables, places["users"]),
    }
    told = []
    for kind, place in places.items():
        n_known, n_new = int((place > 0).sum()), int((place < 0).sum())
        how = "from their histories" if kind == "users" else "from their content"
        told.append(
            f"{n_known} {kind} known, {n_new} new ({filled[kind]} {how}), "
            f"{sizes[kind] - 1 - n_known} gone"
        )
    logging.getLogger().info(f"Warm start from {file}: {'; '.join(told)}")


def made_anew(net: AbstractRecommender) -> set[str]:
    """What starts anew: kept buffers, and what optimisers of the model's own train.

    The buffers hold ids of the old data. The sizes of the others may follow from the number of
    items.
    """
    trained = set(map(id, own_parameters(net)))
    names = {name for name, parameter in net.named_parameters() if id(parameter) in trained}
    return names | {*getattr(net, "kept_buffers", ())}


_LAYERS = (nn.Linear, nn.LayerNorm, nn.modules.batchnorm._NormBase, nn.RNNBase)
"""Modules whose parameters have no rows of users or items, whatever their sizes."""


def _check_features(
    file: str, saved: Mapping[str, np.ndarray], train: MultimodalDataset, place: np.ndarray
) -> None:
    """See that the features of known items are mostly those that the model was trained with.

    A few may have changed, as titles do; if most have, another encoder made them.
    """
    for name, before in saved.items():
        if name not in train.modality_features:
            continue
        now = row_hashes(train, name)
        known = np.flatnonzero(place > 0)
        pairs = before[place[known]], now[known]
        both = (pairs[0] != 0) & (pairs[1] != 0)
        other = int((pairs[0] != pairs[1])[both].sum())
        if other > both.sum() / 2:
            raise DataError(
                f"config key [warm_start]: modality [{name}] has other features than {file} was "
                f"trained with, of {other} of {both.sum()} items that it knows: another encoder "
                f"made them. Encode with the saved one (recbole-sigrec encode --like)"
            )
        if other:
            logging.getLogger().warning(
                f"modality {name}: {other} of {both.sum()} known items have other features now"
            )


@dataclasses.dataclass
class _Table:
    """A parameter's rows of users, or of items.

    Attributes:
        name: the parameter's.
        kind: ``users`` or ``items``.
        rows: [n, …], a view into the parameter.
        raw: whether they are features, of which new items have their own.
    """

    name: str
    kind: str
    rows: torch.Tensor
    raw: bool


def _take_over(
    net: AbstractRecommender,
    name: str,
    old: torch.Tensor,
    places: dict[str, np.ndarray],
    sizes: dict[str, int],
    file: str,
) -> Iterator[_Table]:
    """Copy what is known into a parameter; gives its tables."""
    own = net.state_dict().get(name)
    kinds = None if own is None else _kinds(net, name, old.shape, own.shape, places, sizes)
    if own is None or kinds is None:
        raise ConfigError(
            f"config key [warm_start]: parameter [{name}] of {file} does not fit the model of this "
            f"config and data, or its rows cannot be told to be users or items"
        )
    if not kinds:
        own.copy_(old)
    first_old = first = 0
    for kind in kinds:
        place = torch.from_numpy(places[kind])
        rows = own[first : first + len(place)]
        known = place >= 0
        rows[known] = old[first_old : first_old + sizes[kind]][place[known]]
        module = net.get_submodule(name.rpartition(".")[0])
        yield _Table(name, kind, rows, isinstance(module, RawFeatures))
        first, first_old = first + len(place), first_old + sizes[kind]


def _kinds(
    net: AbstractRecommender,
    name: str,
    old: Sequence[int],
    new: Sequence[int],
    places: dict[str, np.ndarray],
    sizes: dict[str, int],
) -> tuple[str, ...] | None:
    """Whose rows a parameter has; none: it is no table; None: that cannot be told."""
    module = net.get_submodule(name.rpartition(".")[0])
    found = [
        kinds
        for kinds in (("users",), ("items",), ("users", "items"))
        if len(new) == len(old) > 0
        and list(old[1:]) == list(new[1:])
        and old[0] == sum(sizes[kind] for kind in kinds)
        and new[0] == sum(len(places[kind]) for kind in kinds)
    ]
    if isinstance(module, RawFeatures):
        return ("items",) if ("items",) in found else None
    if not isinstance(module, _LAYERS):
        if len(found) == 1:
            return found[0]
        for kinds in found:  # as many users as items: the name tells
            if len(kinds) == 1 and kinds[0][:-1] in name.lower():
                return kinds
        if found:
            return None
    return () if list(old) == list(new) else None


def _fill_items(train: MultimodalDataset, tables: list[_Table], place: np.ndarray) -> int:
    """Give new items the rows of similar ones; how many have such."""
    new, known = (np.flatnonzero(which) for which in (place < 0, place > 0))
    names = [name for name, has in train.modality_mask.items() if has.numpy()[known].any()]
    if not len(new) or not names:
        return 0
    features = {name: train.modality_features[name].numpy() for name in names}
    has = {name: train.modality_mask[name].numpy() for name in names}
    mean = {name: features[name][known][has[name][known]].mean(axis=0) for name in names}

    def content(rows: np.ndarray) -> Content:
        of_rows = {name: features[name][rows] for name in names}
        shares = dict.fromkeys(names, 1 / len(names))
        return Content(of_rows, {name: has[name][rows] for name in names}, mean, shares)

    weights = added_rows(content(known), content(new), np.ones(len(known), dtype=bool))
    found = np.diff(weights.indptr) > 0
    for table in tables:
        if not table.raw:
            old = table.rows[known].cpu().flatten(1).numpy()
            made = weights[found] @ old
            made *= lengthened(old, weights[found], made)
            rows = torch.from_numpy(made).view(-1, *table.rows.shape[1:])
            table.rows[new[found]] = rows.to(table.rows)
    return int(found.sum())


def _fill_users(train: MultimodalDataset, tables: list[_Table], place: np.ndarray) -> int:
    """Give new users the rows that follow from their histories; how many have one."""
    histories = interactions_of(train)
    counts = np.asarray(histories.sum(axis=0)).ravel()
    taken = np.diff(histories.indptr) > 0
    new, known = (np.flatnonzero(which & taken) for which in (place < 0, place > 0))
    if not len(new) or not len(known):
        return 0
    filled = False
    for table in (table for table in tables if table.kind == "users"):
        beside = [
            other
            for other in tables
            if other.kind == "items"
            and not other.raw
            and other.rows.shape[1:] == table.rows.shape[1:]
        ]
        twin = table.name.lower().replace("user", "item")
        beside.sort(key=lambda other: other.name.lower() != twin)
        if beside and table.rows.dim() == 2:
            item_rows = beside[0].rows.cpu().numpy()
            user_rows = table.rows.cpu().numpy()
            made = fitted_maps(histories[known], user_rows[known], item_rows, counts)[0]
            rows = torch.from_numpy(aggregated(histories[new], item_rows, counts) @ made)
            table.rows[new] = rows.to(table.rows)
            filled = True
    return len(new) if filled else 0
