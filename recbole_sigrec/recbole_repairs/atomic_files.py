"""How RecBole reads atomic files with pandas, and fills what is missing in them."""

from __future__ import annotations

import contextlib
import csv
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import recbole.data.dataset.dataset
from recbole.utils import FeatureType


@contextlib.contextmanager
def plain_tables() -> Iterator[None]:
    """While RecBole reads atomic files: quotation marks and names of missing values are text.

    The marks in files separated by tabs. In all files, only an empty id is a missing one.

    pandas' defaults, which it uses, join lines from one quotation mark to the next, and take the
    ids NA, None, nan and null for missing ones.

    Raises:
        ValueError: all ids of a file separated by tabs are in quotation marks.
    """
    module = recbole.data.dataset.dataset
    original = module.pd

    def read_csv(file: str, dtype: Any, delimiter: str, **how: Any) -> pd.DataFrame:
        missing = {name: _MISSING if kind is np.float64 else [] for name, kind in dtype.items()}
        how = {**how, "keep_default_na": False, "na_values": missing}
        if delimiter == "\t":
            how["quoting"] = csv.QUOTE_NONE
        frame: pd.DataFrame = original.read_csv(file, dtype=dtype, delimiter=delimiter, **how)
        for name in map(str, frame):
            if name.endswith(f":{FeatureType.TOKEN.value}"):
                if delimiter == "\t" and len(frame) and frame[name].str.fullmatch('".*"').all():
                    raise ValueError(
                        f"all of column [{name}] in {file} is in quotation marks, which are part "
                        f"of the text where tabs separate; remove them"
                    )
                frame[name] = frame[name].where(frame[name] != "")
        return frame

    try:
        module.pd = types.SimpleNamespace(**{**vars(original), "read_csv": read_csv})
        yield
    finally:
        module.pd = original


_MISSING = [  # what pandas takes for a missing number
    *("", "NaN", "-NaN", "nan", "-nan", "NA", "<NA>", "N/A", "n/a", "#N/A", "#NA", "#N/A N/A"),
    *("NULL", "null", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
]


def drop_missing_ids(feat: pd.DataFrame, field: str) -> list[int]:
    """Drop the rows of a table that lack an id, in place.

    RecBole takes the labels of such rows for their places: once a row was dropped, it drops others.

    Returns:
        The lines of the file that held them, if the labels are still those of reading.
    """
    missing = feat.index[feat[field].isnull()]
    feat.drop(missing, inplace=True)
    return [int(label) + 2 for label in missing]


def fill_missing(feat: pd.DataFrame, field2type: dict[str, FeatureType]) -> pd.DataFrame:
    """RecBole's missing-value rule without the in-place ``fillna`` that pandas 3 ignores.

    Tokens become 0 ([PAD]), floats the column's mean, sequences empty.
    """
    for field in map(str, feat):
        kind = field2type[field]
        if kind == FeatureType.TOKEN:
            feat[field] = feat[field].fillna(0)
        elif kind == FeatureType.FLOAT:
            feat[field] = feat[field].fillna(feat[field].mean())
        else:
            dtype = np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64
            empty = np.array([], dtype)
            filled: list[Any] = [empty if isinstance(x, float) else x for x in feat[field]]
            feat[field] = filled
    return feat
