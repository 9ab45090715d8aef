"""Importers: what lies in other layouts becomes a data-set folder that trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_sigrec.data.features import check_name
from recbole_sigrec.errors import DataError, did_you_mean
from recbole_sigrec.files import new_folder
from recbole_sigrec.preparation.build import Source, build_dataset
from recbole_sigrec.preparation.importers.feature_files import files_of, open_features
from recbole_sigrec.preparation.importers.folders import read_lattice, read_mmrec, read_mmssl
from recbole_sigrec.preparation.importers.table import Columns, read_table
from recbole_sigrec.preparation.split import check_settings, read_ratios
from recbole_sigrec.preparation.writer import dataset_folder
from recbole_sigrec.user_paths import user_path

FOLDERS = {"mmrec": read_mmrec, "lattice": read_lattice, "mmssl": read_mmssl}
"""Format → the reader of such a folder."""

FORMATS = (*FOLDERS, "table")

File = str | Path


def import_data(
    source: str | Path,
    name: str,
    kind: str,
    out: str | Path = "dataset",
    columns: Columns | None = None,
    features: Mapping[str, File | tuple[File, File]] | None = None,
    split: str | None = None,
    ratios: str = "8:1:1",
    k_core: int = 0,
    seed: int = 2020,
    keep_cold_items: bool = False,
) -> dict[str, Any]:
    """Write a source as the data set ``<out>/<name>/``, in MMRec's layout, with a manifest.

    Repeated pairs are dropped (the first, or earliest, stays), and then what is not in the k-core;
    ids are kept as text. Interactions wait on disk (``pairs.Pairs``),
    rows of tables and of features are read and written in batches: memory grows by the tokens alone
    (but for a ``.npz``, JSON and pickles, which are held).

    Args:
        source: a folder, or for ``table`` a file.
        name: the new data set's.
        kind: mmrec, lattice, mmssl or table.
        out: the folder of data sets.
        columns: of a table.
        features: modality → its file, or (its file, the file that names the item of each row);
            beside those that a folder has.
        split: random, leave-one-out, temporal, temporal-global, cold-items or given; by default
            given where the source has a split, else random.
        ratios: training:validation:test, of the splits by ratio; 0 leaves a part out.
        k_core: users and items with fewer interactions are left out, until none is; 0: none.
        seed: of the random order.
        keep_cold_items: whether items that have features, but no interaction in the source, are in
            the data set, so that models can recommend them; else the manifest counts them.

    Returns:
        The manifest.

    Raises:
        DataError: the source cannot be used; nothing is left in ``out``.
    """
    if kind not in FORMATS:
        raise DataError(
            f"format [{kind}] is unknown.{did_you_mean(kind, FORMATS)} There are: "
            f"{', '.join(FORMATS)}"
        )
    if (kind == "table") != (columns is not None):
        raise DataError("a table, and no other format, needs the names of its columns: --user …")
    if split is None:
        split = "random" if columns is not None and columns.split is None else "given"
    check_settings(split, k_core, seed)
    for modality in features or ():
        check_name(modality)
    parts = read_ratios(ratios)
    with new_folder(dataset_folder(out, name)) as folder:
        path = user_path(source)
        read = read_table(path, columns) if columns else FOLDERS[kind](path)
        read = _with_given_features(read, features or {})
        return build_dataset(read, folder, name, split, parts, k_core, seed, keep_cold_items)


def _with_given_features(
    source: Source, features: Mapping[str, File | tuple[File, File]]
) -> Source:
    opened, files = dict(source.features), list(source.files)
    for modality, given in features.items():
        path, ids = map(user_path, given) if isinstance(given, tuple) else (user_path(given), None)
        opened[modality] = open_features(path, source.pairs.item_tokens, ids)
        files += files_of(opened[modality])
    return dataclasses.replace(source, features=opened, files=files)
