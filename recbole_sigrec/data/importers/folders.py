"""Data-set folders of other toolboxes, whose items are numbered by the rows of their features."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

from recbole_sigrec.data.build import Source
from recbole_sigrec.data.features import find_modalities
from recbole_sigrec.data.importers.features import open_features
from recbole_sigrec.data.importers.sparse_pickle import read_matrix
from recbole_sigrec.data.importers.table import ROWS, Columns, read_table
from recbole_sigrec.data.interactions import ITEM_COLUMNS, USER_COLUMNS, header, pick_column
from recbole_sigrec.data.pairs import Pairs
from recbole_sigrec.errors import DataError, some

PICKLES = (
    ("trnMat.pkl", "train_mat", "train_mat.pkl"),
    ("valMat.pkl", "val_mat", "val_mat.pkl"),
    ("tstMat.pkl", "test_mat", "test_mat.pkl"),
)
"""The names of DiffMM's and MMSSL's matrices: training, validation, test."""

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
    table = read_table(path, Columns(user, item, split="x_label"), separator="\t")
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
    users, items = [], []
    for path in paths:
        of_part = _read_json(path)
        users.append(np.array([u for u, row in of_part.items() for _ in row], dtype=np.int64))
        items.append(np.array([n for row in of_part.values() for n in row], dtype=np.int64))
    return _with_features(folder, _numbered(users, items), paths, "lattice")


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
    users, items = [m.row for m in matrices], [m.col for m in matrices]
    n_items = matrices[0].shape[1]  # the last may have no interaction
    return _with_features(folder, _numbered(users, items), paths, "mmssl", n_items)


def _folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the one that holds the data set's files")
    return folder


def _read_json(path: Path) -> dict[int, list[int]]:
    """User number → item numbers."""
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_once)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}; it must map users to items")
    for user, row in content.items():
        numbers = isinstance(row, list) and all(type(n) is int and 0 <= n < _MAX for n in row)
        if not (_NUMBER.fullmatch(user) and int(user) < _MAX and numbers):
            raise DataError(
                f"{path}: user [{user}] has [{str(row)[:80]}]; users and items must be numbers "
                f"from 0 without leading zeros, and each user have a list of items"
            )
    return {int(user): row for user, row in content.items()}


def _once(pairs: list[tuple]) -> dict:
    """An object of the JSON file; of a key that comes twice ``json`` would keep the last."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"key(s) {some(twice)} more than once; join their lists")
    return dict(pairs)


def _numbered(users: list[np.ndarray], items: list[np.ndarray]) -> Pairs:
    """Pairs of the three parts' user and item numbers; their tokens are those numbers."""
    pairs = Pairs(*(map(str, np.unique(np.concatenate(side)).tolist()) for side in (users, items)))
    for label in range(3):
        for start in range(0, max(1, len(users[label])), ROWS):
            rows = [side[label][start : start + ROWS].tolist() for side in (users, items)]
            pairs.add(*(list(map(str, r)) for r in rows), labels=np.full(len(rows[0]), label))
    return pairs


def _with_features(
    folder: Path, pairs: Pairs, files: list[Path], kind: str, n_items: int | None = None
) -> Source:
    """A source whose features are the folder's; ``n_items``: a number of rows they must have."""
    tokens = pairs.item_tokens if n_items is None else [*pairs.item_tokens, str(n_items - 1)]
    found = find_modalities(folder)
    features = {name: open_features(path, tokens) for name, path in found.items()}
    return Source(pairs, features, [*files, *found.values()], {"format": kind})
