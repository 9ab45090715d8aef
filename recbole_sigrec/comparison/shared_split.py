"""The one data set and split that all runs of a comparison share."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib

import numpy as np

from recbole_sigrec.config import Config
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.data.identity import update_with_features
from recbole_sigrec.data.parts import PHASES, create_dataset
from recbole_sigrec.data.seeds import seed_split, split_seed
from recbole_sigrec.errors import DataError
from recbole_sigrec.training.machine import paused_collection


@dataclasses.dataclass(frozen=True)
class Split:
    """A data set with its features, its training, validation and test part, and their seed."""

    dataset: MultimodalDataset
    parts: tuple[MultimodalDataset, ...]
    seed: int

    @classmethod
    def load(cls, config: Config) -> Split:
        """Read the data set of a config and split it.

        Raises:
            DataError: the data cannot be used as it is.
        """
        seed_split(config)
        with paused_collection():
            dataset = create_dataset(config)
            return cls(dataset, tuple(dataset.build()), split_seed(config))

    @classmethod
    def load_again(cls, config: Config, fingerprint: str) -> Split:
        """As :func:`load`, in another process, maybe on another machine.

        Raises:
            DataError: it is not the one with that fingerprint.
        """
        split = cls.load(config)
        if split.fingerprint != fingerprint:
            raise DataError(
                f"[{config['dataset']}] in [{config['data_path']}] is not the data set that this "
                f"command began with: it has changed since, or this machine has another one there"
            )
        return split

    def need(self, *parts: str) -> None:
        """See that some of the parts, named as in ``PHASES``, have interactions.

        Raises:
            DataError: one has none.
        """
        for name in parts:
            if not len(self.parts[PHASES.index(name)]):
                raise DataError(
                    f"the {name} part of [{self.dataset.dataset_name}] is empty; check eval_args "
                    f"and the filters"
                )

    def parts_with(self, modalities: list[str] | None) -> tuple[MultimodalDataset, ...]:
        """The parts with some of the modalities alone; none named: with all.

        Raises:
            DataError: the data set was read without one of them.
        """
        parts = [copy.copy(part) for part in self.parts]
        if modalities is None:
            return tuple(parts)
        for name in modalities:
            if name not in self.dataset.modality_features:
                raise DataError(
                    f"modality [{name}] is not among those of the data set: "
                    f"{', '.join(self.dataset.modality_features) or 'none'}"
                )
        for part in parts:
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
        n = dict(zip(PHASES, map(len, self.parts)))
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
        """A SHA-256 of the parts' pairs by token, whatever their order, and of the features."""
        digest = hashlib.sha256()
        for field in (self.dataset.uid_field, self.dataset.iid_field):
            digest.update("\n".join(self.dataset.field2id_token[field].astype(str)).encode())
        for part in range(3):
            users, items = self.pairs(part)
            digest.update(np.sort(users * self.dataset.item_num + items).tobytes())
        for name in sorted(self.dataset.modality_features):
            digest.update(name.encode())
            update_with_features(digest, self.dataset, name)
        return digest.hexdigest()
