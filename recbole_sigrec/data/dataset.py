"""MultimodalDataset: RecBole's Dataset with modality features, and MMRec's folder layout."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import cat_interactions
from recbole.utils import FeatureSource, FeatureType, set_color
from typing_extensions import Self

from recbole_sigrec.data import corruption, encoders
from recbole_sigrec.data.cold_items import read_cold_items
from recbole_sigrec.data.encoder_files import encoder_file
from recbole_sigrec.data.features import (
    Modality,
    align,
    check_name,
    impute,
    row_tokens,
    unusual_scale,
)
from recbole_sigrec.data.imputation import impute_from_neighbours
from recbole_sigrec.data.interactions import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    header,
    is_typed,
    read_split_interactions,
    separator_hint,
)
from recbole_sigrec.data.matrix_files import find_modalities, read_features
from recbole_sigrec.errors import DataError, SIGRecError, did_you_mean, some
from recbole_sigrec.graph import interaction_matrix
from recbole_sigrec.recbole_repairs.atomic_files import drop_missing_ids, fill_missing, plain_tables
from recbole_sigrec.recbole_repairs.numpy_names import numpy_aliases
from recbole_sigrec.tables.tokens import check_lengths


def interactions_of(part: Any) -> sp.csr_matrix:
    """The pairs of a data set, or of one of its parts: binary float32 CSR [n_users, n_items]."""
    users, items = (
        np.asarray(part.inter_feat[field]) for field in (part.uid_field, part.iid_field)
    )
    return interaction_matrix(users, items, part.user_num, part.item_num)


class MultimodalDataset(Dataset):
    """A RecBole data set whose items have features of any number of modalities.

    The folder ``<data_path>/<name>/`` holds RecBole atomic files, or MMRec's layout: an ``.inter``
    file with untyped columns and a split column (respected, nothing is filtered). Features are
    ``<modality>_feat.npy|npz|safetensors``, with an optional ``<modality>_ids.txt|csv|npy``, or
    encoded from columns of the ``.item`` file (``item_modalities``). ``cold_items.txt`` may name
    items without an interaction: they have the last ids, and RecBole's filters leave them in.

    Attributes:
        cold_items: the tokens in that file.
        modality_features: name → float32 tensor [n_items, d_m], aligned with RecBole's item ids by
            token; row 0 ([PAD]) is zero, missing rows are imputed (``missing_modality``; those of
            ``neighbor``, which needs the training interactions, are zero until ``build()``).
        modality_mask: name → bool tensor [n_items], which items have the modality.
        encoded_from: name → digest of the columns that the modality was encoded from, and how.
        encoders: name → what encoded those columns, and can encode other rows alike or be saved.
        encoder_files: name → the saved encoder beside the modality's feature file, if any.
        own_tokens: with a vocabulary, the ``users`` and ``items`` that the data has.
        split_off: after ``build(whole=True)``, the training part that the split would have made.

    Args:
        config: the config.
        vocabulary: its ``users`` and ``items`` are the tokens whose ids are 1, 2, …, in this order,
            as a trained model knows them. Interactions with others are left out, and the log says
            how many; tokens that the data does not have stay without interactions.

    Raises:
        DataError: a file is missing or does not fit; the message says which, and what to do.
    """

    def __init__(self, config, vocabulary: Mapping[str, Any] | None = None):
        numpy_aliases()
        self.vocabulary = vocabulary
        self.own_tokens: dict[str, list[str]] = {}
        self.split_off: MultimodalDataset | None = None
        self.cold_items = np.array([], dtype=object)
        self.modality_features: dict[str, torch.Tensor] = {}
        self.modality_mask: dict[str, torch.Tensor] = {}
        self.encoded_from: dict[str, bytes] = {}
        self.encoders: dict[str, encoders.Tfidf | encoders.MultiHot] = {}
        self.encoder_files: dict[str, Path] = {}
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
        taken = self.inter_feat[self.iid_field]
        self.cold_items = read_cold_items(folder, taken)
        if len(self.cold_items):
            self._log(f"{len(self.cold_items)} items without an interaction")
        tokens = [taken, pd.Series(self.cold_items)]
        if self.item_feat is not None:
            tokens.append(self.item_feat[self.iid_field])
        self._all_item_tokens = pd.concat(tokens).dropna().astype(str).unique()
        users = self.inter_feat[self.uid_field].unique()
        check_lengths(folder / f"{token}.inter", itertools.chain(self._all_item_tokens, users))

    def _load_inter_feat(self, token, dataset_path):
        path = Path(dataset_path) / f"{token}.inter"
        if self.benchmark_filename_list is not None:
            return super()._load_inter_feat(token, dataset_path)
        if not path.is_file():
            raise DataError(f"{path} does not exist; a data set needs its interactions there")
        separator = self.config["field_separator"]
        columns = header(path, separator)
        self._tell_weights(path, columns)
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

    def _tell_weights(self, path: Path, columns: list[str]) -> None:
        """Log the columns that could be taken for weights of the interactions, which have none."""
        used = {self.time_field, self.label_field, self.config["split_field"]}
        used |= {self.uid_field, self.iid_field, *USER_COLUMNS, *ITEM_COLUMNS}
        if others := [name for c in columns if (name := c.partition(":")[0]) not in used]:
            self._log(f"{path.name}: {', '.join(others)}: no weight, every interaction counts once")

    def _filter_nan_user_or_item(self):
        tables = self.inter_feat, self.user_feat, self.item_feat
        for feat, name in zip(tables, ("inter", "user", "item")):
            for field in (self.uid_field, self.iid_field):
                if feat is not None and field in feat and (lines := drop_missing_ids(feat, field)):
                    what = f"without [{field}] are left out: lines {some(lines)}"
                    self.logger.warning(f"{self.dataset_name}.{name}: rows {what}")

    def _remove_duplication(self):
        before = len(self.inter_feat)
        super()._remove_duplication()
        if repeated := before - len(self.inter_feat):
            self._log(f"{repeated} interactions repeat a pair of user and item, and are left out")

    def _get_illegal_ids_by_inter_num(self, field, *args, **kwargs):
        found = super()._get_illegal_ids_by_inter_num(field, *args, **kwargs)
        return found.difference(self.cold_items) if field == self.iid_field else found

    def _concat_remaped_tokens(self, remap_list):
        tokens, split_point = super()._concat_remaped_tokens(remap_list)
        if len(self.cold_items) and any(field == self.iid_field for _, field, _ in remap_list):
            split_point = np.append(split_point, len(tokens))  # what is beyond belongs to no column
            tokens = np.concatenate([tokens, self.cold_items])
        return tokens, split_point

    def _remap_ID_all(self):
        super()._remap_ID_all()
        if self.vocabulary is None:
            return
        known = np.ones(len(self.inter_feat), dtype=bool)
        for field, kind in ((self.uid_field, "users"), (self.iid_field, "items")):
            tokens = np.array([*self.field2id_token[field][:1], *self.vocabulary[kind]], object)
            own = self.field2id_token[field].astype(str)
            self.own_tokens[kind] = own[1:].tolist()
            place = pd.Index(tokens).get_indexer(own)
            self.field2id_token[field] = tokens
            self.field2token_id[field] = {token: row for row, token in enumerate(tokens)}
            for feat in (self.inter_feat, self.user_feat, self.item_feat):
                if feat is not None and field in feat:
                    feat[field] = place[feat[field]]
            known &= self.inter_feat[field].to_numpy() > 0
        if not known.all():
            left_out = f"left out {(~known).sum()} interactions of users or items that the model "
            self.logger.warning(set_color("[Data]: ", "pink") + left_out + "does not know")
            if self.benchmark_filename_list is not None:
                ends = np.cumsum(self.file_size_list)
                kept = np.concatenate([[0], np.cumsum(known)])[ends]
                self.file_size_list = np.diff(kept, prepend=0).tolist()
            self.inter_feat = self.inter_feat[known].reset_index(drop=True)

    def _load_feat(self, filepath, source):
        if self._get_load_and_unload_col(source)[0] == set():
            return None
        _check_types(filepath, header(Path(filepath), self.config["field_separator"]))
        with plain_tables():
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
        pairs = self.inter_feat[[self.uid_field, self.iid_field]]
        again = pairs[pairs.duplicated()]
        if again.empty:
            return
        if self.config["repeatable"]:
            self._log(
                f"{len(again)} interactions repeat a pair of user and item (repeatable): each is "
                f"an example of its own in training; in graphs a pair counts once"
            )
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
            setattr(self, name, fill_missing(getattr(self, name), self.field2type))

    def build(self, whole: bool = False) -> list[Self]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """RecBole's split, its sizes logged; then features are imputed from training neighbours.

        The parts share the features with this data set. Validation and test may be empty.

        Args:
            whole: whether the training part has all interactions, and the others none.
        """
        with self._data_errors(self.config):
            parts = super().build()
        if len(parts) != 3:
            raise DataError(
                f"config key [eval_args] = [{self.config['eval_args']}] makes {len(parts)} part(s) "
                f"of [{self.dataset_name}]; training, validation and test are needed"
            )
        if whole:
            self.split_off = parts[0]
            every = cat_interactions([part.inter_feat for part in parts if len(part)])
            parts = [self.copy(every), *(self.copy(every[[]]) for _ in range(2))]
        sizes = dict(zip(("train", "valid", "test"), map(len, parts), strict=True))
        if not sizes["train"]:
            raise DataError(
                f"the train part of [{self.dataset_name}] is empty; check eval_args and the "
                f"filters ({self.inter_num} interactions in all)"
            )
        self._log("split: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
        if self.config["missing_modality"] == "neighbor":
            self._impute_from_neighbours(parts[0])
        return parts

    # ---- modalities --------------------------------------------------------------------------

    def _load_modalities(self):
        folder = Path(self.dataset_path)
        columns = self.config.plugin.item_modalities or {}
        wanted = self.config.plugin.modalities
        files = find_modalities(folder, wanted, ", or name the modalities to use in `modalities`")
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
            if told := unusual_scale(features):
                self.logger.warning(set_color("[Data]: ", "pink") + f"modality {name}: {told}")

    def _impute_from_neighbours(self, train: MultimodalDataset) -> None:
        sources = impute_from_neighbours(
            self.modality_features,
            self.modality_mask,
            interactions_of(train),
            self.config,
        )
        for name, counts in sources.items():
            told = ", ".join(f"{count} {source}" for source, count in counts.items())
            self._log(f"modality {name} imputed from: {told}")

    def _read(self, name: str, path: Path | None, item_modality) -> Modality:
        id2token = self.field2id_token[self.iid_field].astype(str)
        if path is not None:
            features = read_features(path)
            if (made_by := encoder_file(path)) is not None:
                self.encoder_files[name] = made_by
            rows, ids = row_tokens(path, len(features), self._all_item_tokens)
            # By position every item has a row, and a row without interactions is no mistake.
            strict = ids is not None and self.config["strict_ids"] and self.vocabulary is None
            source = str(path)
        else:
            path = Path(self.dataset_path) / f"{self.dataset_name}.item"
            rows, values = encoders.read_item_columns(
                path, self.iid_field, item_modality.columns, self.config["field_separator"]
            )
            settings = item_modality.model_dump_json()
            self.encoded_from[name] = encoders.digest(settings, [rows, *values])
            if item_modality.encoder == "tfidf":
                encoder = encoders.Tfidf.learn(values, item_modality.dimension)
            else:
                encoder = encoders.MultiHot.learn(values, self.config["seq_separator"])
            self.encoders[name], features = encoder, encoder.encode(values)
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
                f"{separator_hint(columns)}"
            )
