"""Data-set folders of other toolboxes, whose items are numbered by the rows of their features."""

from __future__ import annotations

import json
import re
from array import array
from pathlib import Path

import numpy as np

from recbole_sigrec.data.interactions import ITEM_COLUMNS, USER_COLUMNS, header, pick_column
from recbole_sigrec.data.matrix_files import find_modalities
from recbole_sigrec.errors import DataError, some
from recbole_sigrec.preparation.build import Source
from recbole_sigrec.preparation.importers.feature_files import files_of, open_features
from recbole_sigrec.preparation.importers.sparse_pickle import read_matrix
from recbole_sigrec.preparation.importers.table import Columns, read_table
from recbole_sigrec.preparation.pairs import Pairs
from recbole_sigrec.tables.frames import ROWS

PICKLES = (
    ("trnMat.pkl", "train_mat", "train_mat.pkl"),
    ("valMat.pkl", "val_mat", "val_mat.pkl"),
    ("tstMat.pkl", "test_mat", "test_mat.pkl"),
)
"""The names of DiffMM's and MMSSL's matrices: training, validation, test."""

Numbers = tuple[np.ndarray, np.ndarray]
"""The user numbers and the item numbers of pairs, int64 [n] each."""

_MAX = 2**31
_NUMBER = re.compile("0|[1-9][0-9]{0,9}")


def read_mmrec(folder: str | Path) -> Source:
    """MMRec: ``<name>.inter`` with ``x_label``, and ``<modality>_feat.npy``.

    Raises:
        DataError: a file or column is missing, or does not fit.
    """
    folder = _folder(folder)
    found = sorted(folder.glob("*.inter"))
    path = folder / f"{folder.name}.inter"
    if path not in found:
        if len(found) != 1:
            raise DataError(
                f"{folder} holds {some(p.name for p in found) or 'no .inter file'}; MMRec's layout "
                f"has one, {path.name}"
            )
        path = found[0]
    columns = header(path)
    user = pick_column(path, columns, USER_COLUMNS, "user")
    item = pick_column(path, columns, ITEM_COLUMNS, "item")
    table = read_table(path, Columns(user, item, split="x_label", separator="\t"))
    return _with_features(folder, table.pairs, [path], "mmrec")


def read_lattice(folder: str | Path) -> Source:
    """LATTICE and MMSSL: ``5-core/{train,val,test}.json``, or these files in the folder itself.

    Each maps a user to a list of item numbers; item i has row i of ``<modality>_feat.npy``, which
    lies in the folder.

    Raises:
        DataError: a file is missing, or does not hold that.
    """
    folder = _folder(folder)
    inner = folder / "5-core" if (folder / "5-core").is_dir() else folder
    paths = [inner / f"{part}.json" for part in ("train", "val", "test")]
    pairs = _numbered([_json_pairs(path) for path in paths])
    return _with_features(folder, pairs, paths, "lattice")


def read_mmssl(folder: str | Path) -> Source:
    """MMSSL and DiffMM: pickled SciPy matrices of users × items, and ``<modality>_feat.npy``.

    They are ``trnMat.pkl``, ``valMat.pkl`` and ``tstMat.pkl``, or ``train_mat``, ``val_mat`` and
    ``test_mat``; an entry that is not zero is an interaction, column i is row i of the features.

    Raises:
        DataError: a file is missing, or is no such matrix (then nothing of it is run).
    """
    folder = _folder(folder)
    paths = []
    for names in PICKLES:
        there = [folder / name for name in names if (folder / name).is_file()]
        if len(there) != 1:
            raise DataError(f"{folder} must hold one of {', '.join(names)}; it has {len(there)}")
        paths += there
    matrices = [read_matrix(path) for path in paths]
    shapes = {matrix.shape for matrix in matrices}
    if len(shapes) > 1:
        raise DataError(f"{some(paths)} are of different shapes: {some(shapes)}")
    n_items = matrices[0].shape[1]  # the last may have no interaction
    pairs = _numbered([(matrix.rows, matrix.columns) for matrix in matrices])
    return _with_features(folder, pairs, paths, "mmssl", n_items)


def _folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the one that holds the data set's files")
    return folder


def _json_pairs(path: Path) -> Numbers:
    """The pairs of a file that maps user numbers to lists of item numbers."""
    try:
        members = json.loads(path.read_bytes(), object_pairs_hook=tuple)
        if not isinstance(members, tuple):
            raise ValueError("it must be an object")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read as JSON that maps users to items: {error}"
        ) from None
    seen: set[int] = set()
    users, items = array("q"), array("q")
    for user, row in members:
        numbers = isinstance(row, list) and all(type(n) is int and 0 <= n < _MAX for n in row)
        if not (_NUMBER.fullmatch(user) and int(user) < _MAX and numbers):
            raise DataError(
                f"{path}: user [{user[:80]}] has [{str(row)[:80]}]; users and items must be "
                f"numbers from 0 without leading zeros, and each user have a list of items"
            )
        if int(user) in seen:
            raise DataError(f"{path}: user [{user}] is there more than once; join the lists")
        seen.add(int(user))
        users.extend([int(user)] * len(row))
        items.extend(row)
    return np.array(users), np.array(items)


def _numbered(parts: list[Numbers]) -> Pairs:
    """The pairs of the three parts; their tokens are the numbers, ascending."""
    known = [np.unique(np.concatenate(side)) for side in zip(*parts, strict=True)]
    pairs = Pairs(*(map(str, numbers.tolist()) for numbers in known))
    for label, part in enumerate(parts):
        for start in range(0, len(part[0]) or 1, ROWS):  # text takes more memory than numbers
            users, items = (list(map(str, n[start : start + ROWS].tolist())) for n in part)
            pairs.add(users, items, labels=np.full(len(users), label))
    return pairs


def _with_features(
    folder: Path, pairs: Pairs, files: list[Path], kind: str, n_items: int | None = None
) -> Source:
    """A source whose features are the folder's; ``n_items``: a number of rows they must have."""
    tokens = pairs.item_tokens if n_items is None else [*pairs.item_tokens, str(n_items - 1)]
    found = find_modalities(folder)
    features = {name: open_features(path, tokens) for name, path in found.items()}
    files = [*files, *(file for one in features.values() for file in files_of(one))]
    return Source(pairs, features, files, {"format": kind})
