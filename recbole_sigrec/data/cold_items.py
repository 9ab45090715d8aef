"""Items without a training interaction: those that nobody has taken, and those held out.

The first are named in ``cold_items.txt``, one token a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_sigrec.data.features import read_ids
from recbole_sigrec.errors import DataError, some
from recbole_sigrec.files import synced
from recbole_sigrec.tables.tokens import check_lengths

FILE = "cold_items.txt"


def read_cold_items(folder: Path, taken: pd.Series) -> np.ndarray:
    """The tokens of a data set's cold items, in the file's order; none without the file.

    Args:
        folder: the data set's folder.
        taken: the item token of each interaction.

    Raises:
        DataError: the file cannot be read, names an item twice or one that has an interaction, or
            has a line without a token.
    """
    path = folder / FILE
    if not path.exists():
        return np.array([], dtype=object)
    tokens = read_ids(path)
    check_lengths(path, tokens)
    if len(wrong := tokens[pd.Series(tokens).isin(taken)]):
        raise DataError(
            f"{path} names item(s) {some(wrong)}, which have interactions; remove them from it"
        )
    return tokens


def held_out_items(train: Any, test: Any) -> np.ndarray | None:
    """The items without a training pair, where the test part has no others: bool [n_items].

    None where it has: then items were not held out for it. [PAD] is none of them.

    Args:
        train, test: parts of a data set.
    """
    field = train.iid_field
    trained = np.bincount(train.inter_feat[field], minlength=train.item_num) > 0
    if trained[test.inter_feat[field]].any():
        return None
    trained[0] = True
    return ~trained


def write_cold_items(folder: Path, tokens: Iterable[str]) -> None:
    """Write the tokens to a data set's folder."""
    with synced(folder / FILE) as file:
        file.writelines(f"{token}\n".encode() for token in tokens)
