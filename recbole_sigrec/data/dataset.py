"""MultimodalDataset: RecBole's Dataset with modality features, and MMRec's folder layout."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType, set_color

from recbole_sigrec import compat
from recbole_sigrec.data import corruption, encoders
from recbole_sigrec.data.features import (
    Modality,
    align,
    check_name,
    find_modalities,
    impute,
    read_features,
    row_tokens,
)
from recbole_sigrec.data.imputation import impute_from_neighbours
from recbole_sigrec.data.interactions import header, is_typed, read_split_interactions
from recbole_sigrec.errors import DataError, SIGRecError, did_you_mean
from recbole_sigrec.graph import interaction_matrix


class MultimodalDataset(Dataset):
    """A RecBole data set whose items have features of any number of modalities.

    The folder ``<data_path>/<name>/`` holds RecBole atomic files, or MMRec's layout: an ``.inter``
    file with untyped columns and a split column (respected, nothing is filtered). Features are
    ``<modality>_feat.npy|npz|safetensors``, with an optional ``<modality>_ids.txt|csv|npy``, or
    encoded from columns of the ``.item`` file (``item_modalities``).

    Attributes:
        modality_features: name → float32 tensor [n_items, d_m], aligned with RecBole's item ids by
            token; row 0 ([PAD]) is zero, missing rows are imputed (``missing_modality``; those of
            ``neighbor``, which needs the training interactions, are zero until ``build()``).
        modality_mask: name → bool tensor [n_items], which items have the modality.
        encoded_from: name → digest of the columns that the modality was encoded from, and how.

    Raises:
        DataError: a file is missing or does not fit; the message says which, and what to do.
    """

    def __init__(self, config):
        compat.numpy_aliases()
        self.modality_features: dict[str, torch.Tensor] = {}
        self.modality_mask: dict[str, torch.Tensor] = {}
        self.encoded_from: dict[str, bytes] = {}
        with self._data_errors(config):
            super().__init__(config)
        self._refuse_repeated_pairs()
        self._load_modalities()

    @staticmethod
    @contextlib.contextmanager
    def _data_errors(config):
        """RecBole's errors about a data set, as ours."""
        try:
            yield
        except SIGRecError:
            raise
        except (ValueError, NotImplementedError, AssertionError) as error:
            raise DataError(
                f"data set [{config['dataset']}] in {config['data_path']}: {error}"
            ) from error

    # ---- interactions ------------------------------------------------------------------------

    def _load_data(self, token, dataset_path):
        folder = Path(dataset_path)
        if not folder.is_dir():
            around = sorted(p.name for p in folder.parent.glob("*") if p.is_dir())
            raise DataError(
                f"data set [{token}] not found: there is no folder {folder}."
                f"{did_you_mean(token, around)} Folders in {folder.parent}: "
                f"{', '.join(around) or 'none'}. Set data_path to the folder that holds {token}/"
            )
        super()._load_data(token, dataset_path)
        for field in (self.uid_field, self.iid_field):
            if self.inter_feat is None or field not in self.inter_feat:
                raise DataError(
                    f"config key [load_col] = [{self.config['load_col']}] leaves out [{field}] of "
                    f"{folder / token}.inter; add it under `inter`"
                )
        tokens = [self.inter_feat[self.iid_field]]
        if self.item_feat is not None:
            tokens.append(self.item_feat[self.iid_field])
        self._all_item_tokens = pd.concat(tokens).dropna().astype(str).unique()

    def _load_inter_feat(self, token, dataset_path):
        path = Path(dataset_path) / f"{token}.inter"
        if self.benchmark_filename_list is not None:
            return super()._load_inter_feat(token, dataset_path)
        if not path.is_file():
            raise DataError(f"{path} does not exist; a data set needs its interactions there")
        separator = self.config["field_separator"]
        columns = header(path, separator)
        if is_typed(columns):
            self._check_typed(path, columns)
            super()._load_inter_feat(token, dataset_path)
            if len(self.inter_feat) == 0:
                raise DataError(f"{path} holds no interactions, only a header")
            return None
        frame, sizes = read_split_interactions(
            path, self.uid_field, self.iid_field, self.config["split_field"], separator
        )
        self.inter_feat = frame.rename(columns={"user": self.uid_field, "item": self.iid_field})
        for field, source in (
            (self.uid_field, FeatureSource.USER_ID),
            (self.iid_field, FeatureSource.ITEM_ID),
        ):
            self.field2type[field] = FeatureType.TOKEN
            self.field2source[field] = source
            self.field2seqlen[field] = 1
        # RecBole's way to take a split as given: nothing is filtered or reordered.
        self.benchmark_filename_list = ["train", "valid", "test"]
        self.file_size_list = sizes
        self._log(f"split by column {self.config['split_field']} of {path.name}")
        return None

    def _load_feat(self, filepath, source):
        if self._get_load_and_unload_col(source)[0] == set():
            return None
        _check_types(filepath, header(Path(filepath), self.config["field_separator"]))
        with compat.plain_tables():
            return super()._load_feat(filepath, source)

    def _check_typed(self, path, columns):
        _check_types(path, columns)
        names = [column.split(":")[0] for column in columns]
        if self.config["split_field"] in names:
            raise DataError(
                f"{path} has a split column [{self.config['split_field']}], which RecBole would "
                f"ignore in a file with typed columns. Write the header without types (userID, "
                f"itemID, {self.config['split_field']}) to have the split respected, or drop the "
                f"column to have the interactions split by eval_args"
            )
        for field, key in ((self.uid_field, "USER_ID_FIELD"), (self.iid_field, "ITEM_ID_FIELD")):
            if field not in names:
                raise DataError(
                    f"{path} has no column [{field}]; it has {', '.join(names)}. Name it with {key}"
                )

    def _refuse_repeated_pairs(self):
        """Refuse a pair that occurs twice, where items are ranked that a user has not used yet.

        A random split may then put it in training and test; at the test RecBole masks it as used.
        """
        if self.config["repeatable"]:
            return
        pairs = self.inter_feat[[self.uid_field, self.iid_field]]
        again = pairs[pairs.duplicated()]
        if again.empty:
            return
        user = self.field2id_token[self.uid_field][again.iloc[0, 0]]
        item = self.field2id_token[self.iid_field][again.iloc[0, 1]]
        remedy = "Remove them"
        if self.benchmark_filename_list is None:
            remedy += ", or set rm_dup_inter: first to keep the first of each"
        raise DataError(
            f"the .inter file(s) in {self.dataset_path} repeat {len(again)} pair(s) of a user and "
            f"an item, first user {user} and item {item}. {remedy}"
        )

    def _fill_nan(self):
        for name in self.feat_name_list:
            setattr(self, name, compat.fill_missing(getattr(self, name), self.field2type))

    def build(self):
        """RecBole's split, its sizes logged; then features are imputed from training neighbours.

        The parts share the features with this data set.
        """
        with self._data_errors(self.config):
            parts = super().build()
        if len(parts) != 3:
            raise DataError(
                f"config key [eval_args] = [{self.config['eval_args']}] makes {len(parts)} part(s) "
                f"of [{self.dataset_name}]; training, validation and test are needed"
            )
        sizes = dict(zip(("train", "valid", "test"), map(len, parts), strict=True))
        for name, size in sizes.items():
            if size == 0:
                raise DataError(
                    f"the {name} part of [{self.dataset_name}] is empty; check eval_args and the "
                    f"filters ({self.inter_num} interactions in all)"
                )
        self._log("split: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
        if self.config["missing_modality"] == "neighbor":
            self._impute_from_neighbours(parts[0])
        return parts

    # ---- modalities --------------------------------------------------------------------------

    def _load_modalities(self):
        folder = Path(self.dataset_path)
        files = find_modalities(folder)
        columns = self.config.plugin.item_modalities or {}
        wanted = self.config.plugin.modalities
        available = [*files, *(name for name in columns if name not in files)]
        for name in wanted if wanted is not None else ():
            if name not in available:
                raise DataError(
                    f"modality [{name}] has no file {folder / (name + '_feat.npy')} and no entry "
                    f"in item_modalities.{did_you_mean(name, available)} Found: "
                    f"{', '.join(available) or 'none'}"
                )
        modalities = {}
        for name in wanted if wanted is not None else available:
            check_name(name)
            modalities[name] = self._read(name, files.get(name), columns.get(name))
        for text in corruption.corrupt(modalities, self.config.plugin):
            self._log(text)
        for name, modality in modalities.items():
            features, how = modality.features, self.config["missing_modality"]
            features = impute(features, modality.mask, how, out=features)
            self.modality_features[name] = torch.from_numpy(features)
            self.modality_mask[name] = torch.from_numpy(modality.mask)
            n, total = int(modality.mask.sum()), self.item_num - 1
            zero = f", {modality.n_zero} zero row(s) counted as missing" if modality.n_zero else ""
            self._log(
                f"modality {name}: {features.shape[1]} dimensions, {n} of {total} items "
                f"({100 * n / total:.1f} %){zero}, from {modality.source}"
            )

    def _impute_from_neighbours(self, train):
        pairs = (np.asarray(train.inter_feat[field]) for field in (self.uid_field, self.iid_field))
        sources = impute_from_neighbours(
            self.modality_features,
            self.modality_mask,
            interaction_matrix(*pairs, self.user_num, self.item_num),
            self.config,
        )
        for name, counts in sources.items():
            told = ", ".join(f"{count} {source}" for source, count in counts.items())
            self._log(f"modality {name} imputed from: {told}")

    def _read(self, name: str, path: Path | None, item_modality) -> Modality:
        id2token = self.field2id_token[self.iid_field].astype(str)
        if path is not None:
            features = read_features(path)
            rows, ids = row_tokens(path, len(features), self._all_item_tokens)
            # By position every item has a row, and a row without interactions is no mistake.
            source, strict = str(path), ids is not None and self.config["strict_ids"]
        else:
            path = Path(self.dataset_path) / f"{self.dataset_name}.item"
            rows, values = encoders.read_item_columns(
                path, self.iid_field, item_modality.columns, self.config["field_separator"]
            )
            settings = item_modality.model_dump_json()
            self.encoded_from[name] = encoders.digest(settings, [rows, *values])
            if item_modality.encoder == "tfidf":
                features = encoders.tfidf(values, item_modality.dimension)
            else:
                features = encoders.multi_hot(values, self.config["seq_separator"])
            source, strict = f"{path.name} ({', '.join(item_modality.columns)})", False
        return align(features, rows, id2token, self._all_item_tokens, source, strict)

    def _log(self, text: str) -> None:
        self.logger.info(set_color("[Data]: ", "pink") + text)


def _check_types(path: str | Path, columns: list[str]) -> None:
    """See that every column of an atomic file's header has one of RecBole's types."""
    kinds = [kind.value for kind in FeatureType]
    for column in columns:
        if column.partition(":")[2] not in kinds:
            raise DataError(
                f"{path}: column [{column}] has no type; write name:type for every column, type "
                f"one of {', '.join(kinds)} (an .inter file may have them for none: MMRec's layout)"
            )
