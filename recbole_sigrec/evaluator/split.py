"""The one data set and split that all runs of a comparison share."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib

import numpy as np

from recbole_sigrec.errors import DataError
from recbole_sigrec.quick_start import create_dataset, paused_collection, seed_split, split_seed

FINGERPRINT = "2:"
"""What fingerprints begin with: the version of what they are made of."""


@dataclasses.dataclass(frozen=True)
class Split:
    """A data set with its features, its training, validation and test part, and their seed."""

    dataset: object
    parts: tuple
    seed: int

    @classmethod
    def load(cls, config) -> Split:
        """Read the data set of a config and split it.

        Raises:
            DataError: the data cannot be used as it is.
        """
        seed_split(config)
        with paused_collection():
            dataset = create_dataset(config)
            return cls(dataset, tuple(dataset.build()), split_seed(config))

    def parts_with(self, modalities: list[str] | None) -> tuple:
        """The parts with some of the modalities alone; none named: with all.

        Raises:
            DataError: the data set was read without one of them.
        """
        parts = [copy.copy(part) for part in self.parts]
        for part in parts if modalities is not None else ():
            for name in modalities:
                if name not in part.modality_features:
                    raise DataError(
                        f"modality [{name}] is not among those of the data set: "
                        f"{', '.join(part.modality_features) or 'none'}"
                    )
            part.modality_features = {name: part.modality_features[name] for name in modalities}
            part.modality_mask = {name: part.modality_mask[name] for name in modalities}
        return tuple(parts)

    def pairs(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """User and item ids of a part (0 training, 1 validation, 2 test): int64 [n], int64 [n]."""
        feat = self.parts[part].inter_feat
        fields = self.dataset.uid_field, self.dataset.iid_field
        return tuple(feat[field].numpy().astype(np.int64) for field in fields)

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of users, items, and pairs of each part."""
        n = dict(zip(("train", "valid", "test"), map(len, self.parts)))
        return {"users": self.dataset.user_num - 1, "items": self.dataset.item_num - 1, **n}

    @property
    def method(self) -> str:
        """How the three parts were made, in words."""
        config = self.dataset.config
        if self.dataset.benchmark_filename_list is not None:
            if config["benchmark_filename"]:
                return "in the three files of the data set"
            return f"by the column {config['split_field']} of the data set"
        given = config["eval_args"]
        ((kind, how),) = given["split"].items()
        order = {"RO": "at random", "TO": "in the order of time"}[given["order"]]
        if kind == "LS":
            return f"of the interactions {order}, each user's last ones held out ({how})"
        within = "within each user" if given["group_by"] == "user" else "over all"
        shares = ":".join(f"{share:g}" for share in how)
        return f"of the interactions {order}, {within}, {shares}, with the seed {self.seed}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """``FINGERPRINT`` and a SHA-256.

        It is of the parts' pairs by token, whatever their order, and of the features.
        Of features that were encoded from columns, it is of what they were encoded from, and of
        imputed rows nothing: both are computed, to the last bit on one machine alone.
        """
        digest = hashlib.sha256()
        tokens = [
            self.dataset.field2id_token[field].astype(str)
            for field in (self.dataset.uid_field, self.dataset.iid_field)
        ]
        for values in tokens:
            digest.update("\n".join(values).encode())
        for part in range(3):
            users, items = self.pairs(part)
            digest.update(np.sort(users * self.dataset.item_num + items).tobytes())
        for name, features in sorted(self.dataset.modality_features.items()):
            mask = self.dataset.modality_mask[name]
            digest.update(name.encode())
            digest.update(mask.numpy())
            encoded = self.dataset.encoded_from.get(name)
            digest.update(features[mask].numpy() if encoded is None else encoded)
        return FINGERPRINT + digest.hexdigest()
