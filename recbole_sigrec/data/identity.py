"""What data a model was trained on: its tokens, and digests of the interactions and features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pydantic

from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.json_object import validated

Identity = dict[str, Any]
"""In JSON's types: ``users`` and ``items``, tokens in the order of the ids from 1; ``n_training``;
``training``, the digest of the training pairs by token, whatever their order; ``features``: for
each modality that the model uses, the digest of the items' rows by token."""


def identity(train: MultimodalDataset, modalities: Iterable[str]) -> Identity:
    """The identity of a training part.

    Args:
        train: the training part.
        modalities: those that the model uses.
    """
    tokens = vocabulary(train)
    users, items = (np.array(tokens[kind]) for kind in ("users", "items"))
    by_token = np.concatenate([[0], 1 + np.argsort(items)])  # item ids in the order of tokens
    return {
        **tokens,
        "n_training": len(train.inter_feat),
        "training": _training_digest(train, users, items),
        "features": {name: _features_digest(train, name, by_token) for name in modalities},
    }


class _Held(pydantic.BaseModel):
    users: list[str]
    items: list[str]
    n_training: int
    training: str
    features: dict[str, str]


def check_identity(saved: Any) -> None:
    """See that what a file holds is an identity.

    Raises:
        ValueError: it is not; the message begins with the key.
    """
    held = validated(_Held, saved)
    for kind, tokens in (("users", held.users), ("items", held.items)):
        if len(set(tokens)) < len(tokens):
            raise ValueError(f"[{kind}]: a token is there twice")


def row_hashes(train: MultimodalDataset, name: str) -> np.ndarray:
    """A hash of each item's features in float16, int64 [n_items]; zero where it lacks them.

    In float16, since what is encoded may differ in its last bits between machines.
    """
    mask, hashes = train.modality_mask[name].numpy(), np.zeros(train.item_num, dtype=np.int64)
    rows = train.modality_features[name].numpy()
    with np.errstate(over="ignore"):
        for item in np.flatnonzero(mask):
            digest = hashlib.blake2b(rows[item].astype(np.float16).tobytes(), digest_size=8)
            hashes[item] = int.from_bytes(digest.digest(), "little", signed=True)
    return hashes


def differences(saved: Identity, train: MultimodalDataset) -> list[str]:
    """How a training part differs from the one of a checkpoint, in numbers; empty: it does not.

    The order of tokens and of interactions is no difference.
    """
    found = []
    now = {**identity(train, saved["features"]), **train.own_tokens}
    for kind in ("users", "items"):
        before, after = set(saved[kind]), set(now[kind])
        if before != after:
            found.append(f"{len(after - before)} {kind} more, {len(before - after)} missing")
    if saved["training"] != now["training"]:
        found.append(
            f"other training interactions ({now['n_training']}; it was trained on "
            f"{saved['n_training']})"
        )
    for name, digest in saved["features"].items():
        if digest != now["features"][name]:
            found.append(f"other features of modality [{name}]")
    return found


def _training_digest(train: MultimodalDataset, users: np.ndarray, items: np.ndarray) -> str:
    """Of the pairs by token: the distinct tokens in order, and the sorted pairs of their places."""
    digest, places = hashlib.sha256(), []
    for field, tokens in ((train.uid_field, users), (train.iid_field, items)):
        of_pairs = tokens[np.asarray(train.inter_feat[field]) - 1]
        distinct, place = np.unique(of_pairs, return_inverse=True)
        digest.update("\n".join(distinct).encode())
        places.append(place.astype(np.int64))
    digest.update(np.sort(places[0] * (len(items) + 1) + places[1]).tobytes())
    return digest.hexdigest()


def _features_digest(train: MultimodalDataset, name: str, rows: np.ndarray) -> str:
    digest = hashlib.sha256()
    update_with_features(digest, train, name, rows)
    return digest.hexdigest()


def update_with_features(
    digest: Any, dataset: MultimodalDataset, name: str, rows: np.ndarray | None = None
) -> None:
    """Put a modality's rows into a hash, in the order ``rows`` of the item ids, by default theirs.

    Features that were encoded from columns count by those columns, and imputed rows do not count:
    both are computed, and their last bits depend on the machine.
    """
    features, mask = dataset.modality_features[name], dataset.modality_mask[name]
    encoded = dataset.encoded_from.get(name)
    if rows is not None:
        mask = mask[rows]
    digest.update(mask.numpy().tobytes())
    if encoded is not None:
        digest.update(encoded)
    elif rows is None:
        digest.update(features[mask].numpy().tobytes())
    else:
        for part in np.array_split(rows[mask.numpy()], max(1, len(rows) // 4096)):
            digest.update(features[part].numpy().tobytes())


def vocabulary(part: MultimodalDataset) -> dict[str, list[str]]:
    """The ``users`` and ``items`` of a data set, tokens in the order of the ids from 1."""
    fields = {"users": part.uid_field, "items": part.iid_field}
    return {
        kind: part.field2id_token[field][1:].astype(str).tolist() for kind, field in fields.items()
    }
