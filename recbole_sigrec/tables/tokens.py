"""Which texts can be tokens of users and items."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from recbole_sigrec.errors import DataError

_NO_TOKEN = re.compile(
    "^$|^\\s|\\s$|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)  # tabs and line ends separate, the reader strips, and a lone surrogate is no UTF-8


LONGEST = 500
"""Characters of a token: NumPy's arrays of text give each as much room as the longest has."""


def is_token(value: object) -> bool:
    """Whether a value can be a user's or item's token in a data-set folder, kept as it is.

    It cannot if it is empty or longer than ``LONGEST``, is no text, holds a tab, line end or other
    control character, or begins or ends with a space.
    """
    return isinstance(value, str) and len(value) <= LONGEST and _NO_TOKEN.search(value) is None


def check_lengths(path: Path, tokens: Iterable[object]) -> None:
    """See that no token of a file is longer than ``LONGEST``.

    Raises:
        DataError: one is; its first characters are named.
    """
    longest = max(map(str, tokens), key=len, default="")
    if len(longest) > LONGEST:
        raise DataError(
            f"{path} has a user or item token of {len(longest):,} characters, [{longest[:40]}…]; "
            f"at most {LONGEST} are possible. See whether the right column is named"
        )
