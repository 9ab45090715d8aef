"""Which items may be recommended, and which must not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.errors import DataError, did_you_mean
from recbole_sigrec.kernels.csr_rows import csr_of_lists
from recbole_sigrec.serving.scores import Queries
from recbole_sigrec.serving.token_rows import Tokens

Excluded = Literal["seen", "none"] | Mapping[Any, Iterable[Any]]


def allowed_items(
    items: Tokens,
    columns: Mapping[str, Sequence[Any]],
    candidates: Iterable[Any] | None,
    where: Mapping[str, Any] | None,
) -> np.ndarray | None:
    """Which items may be recommended, bool [n_items]; None: all.

    Args:
        columns, candidates, where: see :class:`recbole_sigrec.serving.recommender.Recommender`.

    Raises:
        DataError: an item or a column is unknown.
    """
    if candidates is None and not where:
        return None
    allowed = np.ones(len(items), dtype=bool)
    if candidates is not None:
        allowed[:] = False
        allowed[items.find(candidates)] = True
    if where is not None and not isinstance(where, Mapping):
        raise DataError(f"where = [{where}]: give {{column: value, or values}}")
    for column, wanted in (where or {}).items():
        if column not in columns:
            raise DataError(
                f"where names column [{column}].{did_you_mean(column, columns)} The "
                f"bundle has: {', '.join(columns) or 'none'}"
            )
        plain = isinstance(wanted, str) or not isinstance(wanted, Iterable)
        values = {str(value) for value in ([wanted] if plain else wanted)}
        found = (not values.isdisjoint(_texts(value)) for value in columns[column])
        allowed &= np.fromiter(found, bool, len(allowed))
    return allowed


def _texts(value: Any) -> list[str]:
    """What an item has in a column, as texts: of a list each of its values."""
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def items_left_out(items: Tokens, queries: Queries, exclude: Excluded) -> sp.csr_matrix | None:
    """What must not be recommended to each user, CSR [n, n_items]; None: nothing.

    Args:
        exclude: see :meth:`recbole_sigrec.serving.recommender.Recommender.recommend`.

    Raises:
        DataError: what was seen is not known, or a user or an item is unknown.
    """
    if exclude == "none":
        return None
    if exclude == "seen":
        if queries.seen is None:
            raise DataError(
                "the bundle was exported without histories, so that what a user has seen is "
                "not known; give exclude='none' or the items"
            )
        return queries.seen
    if not isinstance(exclude, Mapping):
        raise DataError(f"exclude = [{exclude}]: give `seen`, `none`, or items for each user")
    given = {str(user): taken for user, taken in exclude.items()}
    stray = sorted(set(given) - {str(name) for name in queries.names})
    if stray:
        raise DataError(f"exclude names user [{stray[0]}], who is not asked for")
    rows = [items.find(given.get(str(name), ())) for name in queries.names]
    return csr_of_lists(rows, len(items))
