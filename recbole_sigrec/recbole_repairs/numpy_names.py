"""NumPy's names that RecBole 1.2.1 uses and NumPy 2 no longer has."""

from __future__ import annotations

import numpy as np

_ALIASES = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "complex": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
}


def numpy_aliases() -> None:
    """Give NumPy the names that RecBole's code uses and NumPy no longer has (``np.float``, …).

    RecBole's metrics, Interaction and layers use them. Called where a Config is made and where a
    trainer is, since a Config that was unpickled has not been through its constructor. Names that
    NumPy has are left alone.
    """
    for name, value in _ALIASES.items():
        if name not in np.__dict__:
            setattr(np, name, value)
