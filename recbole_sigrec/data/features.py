"""Modality features: whose rows they are, and their alignment with RecBole's item ids."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recbole_sigrec.data.matrix_files import row_blocks
from recbole_sigrec.errors import DataError, did_you_mean, some

ID_SUFFIXES = (".txt", ".csv", ".npy")


@dataclasses.dataclass(frozen=True)
class Modality:
    """Aligned features of one modality.

    Attributes:
        features: float32 [n_items, d_m]; row r belongs to RecBole's item id r, row 0 is zero, and
            so is the row of an item without the modality until it is imputed.
        mask: bool [n_items], which items have the modality.
        n_zero: rows of the source that are all zero, and so count as missing.
        source: where the features are from, for the log.
    """

    features: np.ndarray
    mask: np.ndarray
    n_zero: int
    source: str


def check_name(name: str) -> None:
    """See that a modality's name can name a part of a torch module, which the models make of it.

    Raises:
        DataError: it cannot.
    """
    taken = any(hasattr(kind(), name) for kind in (torch.nn.ModuleDict, torch.nn.ParameterDict))
    if not name or taken or any(sign in name for sign in "./\\"):
        raise DataError(
            f"[{name}] cannot be the name of a modality: torch reserves it, or it is empty or has "
            f"a dot or a slash. Rename the modality, or name the others in `modalities`"
        )


def read_ids(path: Path) -> np.ndarray:
    """Item tokens (strings), one per feature row, from ``.txt``, ``.csv`` (one column) or ``.npy``.

    A ``.csv`` may begin with a header: ``item_id``, ``itemID`` or ``item``.

    Raises:
        DataError: the file is unreadable, a token is empty, or one occurs twice.
    """
    if path.suffix == ".npy":
        try:
            ids = np.load(path, allow_pickle=False)
            tokens = ids.astype(str).tolist()  # an array of broken text raises here
        except Exception as error:
            raise DataError(
                f"{path} cannot be read as an array of ids ({error}); save it again as an array "
                f"of strings or integers, not of objects"
            ) from None
        if ids.ndim != 1:
            raise DataError(f"{path} holds an array of shape {ids.shape}; expected one id per row")
    else:
        table = path.suffix == ".csv"
        try:
            with open(path, encoding="utf-8-sig", newline="" if table else None) as file:
                tokens = _one_each(path, csv.reader(file) if table else file)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
        except csv.Error as error:
            raise DataError(f"{path} cannot be read as CSV: {error}") from None
        if table and tokens[0].split(":")[0] in ("item_id", "itemID", "item"):
            tokens = tokens[1:]
    ids = np.array(tokens, dtype=object)  # of type str, one long token would make all as long
    values, counts = np.unique(ids, return_counts=True)
    if len(twice := values[counts > 1]):
        raise DataError(f"{path} names item(s) {some(twice)} more than once; keep one row of each")
    return ids


def _one_each(path: Path, lines: Iterable[str | list[str]]) -> list[str]:
    """The token of each line, text or its values; empty lines at the end are none."""
    tokens, wrong = [], []
    for line in lines:
        values = [line] if isinstance(line, str) else line
        tokens.append(values[0].strip() if len(values) == 1 else "")
        if not tokens[-1]:
            blank = not values or (len(values) == 1 and values[0].isspace())
            wrong.append((len(tokens), blank))
    while wrong and wrong[-1] == (len(tokens), True):
        tokens.pop()
        wrong.pop()
    if any("\0" in token for token in tokens):
        raise DataError(f"{path} has NUL bytes, and so is no text in UTF-8; save it as such")
    if wrong or not tokens:
        numbers = [n for n, _ in wrong] or [1]
        raise DataError(f"{path}: line(s) {some(numbers)} must hold one item token, and no more")
    return tokens


def row_tokens(path: Path, n_rows: int, tokens: np.ndarray) -> tuple[np.ndarray, Path | None]:
    """The item token of each row of a feature file, and the ids file that gave them.

    With ``<modality>_ids.txt|csv|npy`` beside it: those; else the rows are positions, and the data
    set's item tokens must be the integers 0 … n_rows − 1 (each row, no more).

    Args:
        path: the feature file.
        n_rows: its rows.
        tokens: all item tokens of the data set, before any filtering.

    Raises:
        DataError: the ids do not fit the rows, or positions do not fit the tokens.
    """
    stem = path.stem.removesuffix("_feat")
    ids_paths = [path.with_name(f"{stem}_ids{suffix}") for suffix in ID_SUFFIXES]
    ids_paths = [ids_path for ids_path in ids_paths if ids_path.is_file()]
    if len(ids_paths) > 1:
        raise DataError(f"{path} has several ids files, {some(ids_paths)}; keep one")
    for ids_path in ids_paths:
        ids = read_ids(ids_path)
        if len(ids) != n_rows:
            raise DataError(
                f"{ids_path} names {len(ids)} items, but {path} has {n_rows} rows; it must name "
                f"the item of each row, in order"
            )
        return ids, ids_path
    remedy = f"add {stem}_ids.txt beside it, with the item token of each row"
    texts = pd.Series(list(tokens), dtype=str)
    positional = texts.str.fullmatch("0|[1-9][0-9]{0,17}")  # 07 or 7.0 is no row's name
    if not positional.all():
        raise DataError(
            f"{path} has no ids file, so its rows are positions, but item token "
            f"[{tokens[np.flatnonzero(~positional)[0]]}] is not a row number; {remedy}"
        )
    expected = max(map(int, tokens)) + 1
    if expected != n_rows:
        raise DataError(
            f"{path} has {n_rows} rows but the items are numbered 0 … {expected - 1} "
            f"({expected} rows expected); without an ids file row r belongs to item r. Mend the "
            f"file, or {remedy}"
        )
    return np.arange(n_rows).astype(str), None


def align(
    features: np.ndarray,
    rows: np.ndarray,
    id2token: np.ndarray,
    all_tokens: np.ndarray,
    source: str,
    strict: bool = True,
) -> Modality:
    """Put feature rows in the order of RecBole's item ids, by token.

    Args:
        features: [rows, d] of any numeric type, memory-mapped or not; it is read in row blocks.
        rows: the item token of each row, [rows].
        id2token: RecBole's token of each item id, [n_items]; entry 0 is [PAD].
        all_tokens: item tokens before filtering; a row of a filtered-out item is no mistake.
        source: the file or columns, for messages.
        strict: refuse rows of unknown items, and items without a row.

    Returns:
        The aligned :class:`Modality`, not imputed.

    Raises:
        DataError: under ``strict``, a row's token is unknown or an item has no row; in any case
            where no row belongs to an item of the data set.
    """
    position = pd.Index(rows).get_indexer(pd.Index(id2token))  # −1: no row
    position[0] = -1
    if strict:
        relax = "set strict_ids: False to"
        unknown = rows[~np.isin(rows, all_tokens)]
        if len(unknown):
            raise DataError(
                f"{source}: {len(unknown)} row(s) belong to items that the data set does not know: "
                f"{some(unknown)}.{did_you_mean(unknown[0], all_tokens[:10000])} Mend the ids, or "
                f"{relax} ignore those rows"
            )
        absent = id2token[1:][position[1:] < 0]
        if len(absent):
            raise DataError(
                f"{source}: {len(absent)} item(s) have no row: {some(absent)}. Mend the ids, or "
                f"{relax} treat those items as having no such modality"
            )
    aligned = np.zeros((len(id2token), features.shape[1]), dtype=np.float32)
    found = position >= 0
    for block in row_blocks(aligned):
        aligned[block][found[block]] = features[position[block][found[block]]]
    mask = np.asarray(aligned.any(axis=1))
    if not mask.any():
        raise DataError(f"{source}: no row belongs to an item of the data set")
    return Modality(aligned, mask, int((~mask & found).sum()), source)


def unusual_scale(features: np.ndarray) -> str:
    """What to tell of features whose largest number is beyond ``1e9`` or below ``1e-9``."""
    largest = max(features.max(), -features.min())
    if 1e-9 <= largest <= 1e9:
        return ""
    return (
        f"the largest number is {largest:.3g}. The item graphs, ContentKNN and ContentEASE use "
        f"cosines, which do not depend on the scale; a model that projects the features learns "
        f"badly at this one: divide them by {largest:.0e}"
    )


def impute(
    features: np.ndarray, mask: np.ndarray, how: str, out: np.ndarray | None = None
) -> np.ndarray:
    """Fill the rows of items without the modality: ``mean`` of the others, or zero.

    ``neighbor`` is zero here: :mod:`recbole_sigrec.data.imputation` needs training interactions.

    The padding row 0 stays zero. The result is a new array, or ``out``, which may be ``features``.

    Shapes: features [n_items, d], mask [n_items] → [n_items, d].
    """
    filled = np.empty_like(features) if out is None else out
    if filled is not features:
        filled[:] = features
    if not mask[1:].all():
        mean = how == "mean"
        filled[~mask] = features.mean(axis=0, where=mask[:, None]) if mean else 0.0
    filled[0] = 0.0
    return filled
