"""Reading a pickled SciPy matrix without running anything that a pickle may name."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.errors import DataError


class _Parts:
    """Stands in for a SciPy matrix: keeps what was pickled as attributes, and does nothing."""


class _Csr(_Parts):
    pass


class _Csc(_Parts):
    pass


class _Coo(_Parts):
    pass


def _bytes(text: str, encoding: str) -> bytes:
    """``_codecs.encode`` as pickles before protocol 3 use it, to write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


_NUMPY = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": np.zeros(0).__reduce__()[0],
    "scalar": np.int64(0).__reduce__()[0],
    "_frombuffer": np.zeros(1).__reduce_ex__(5)[0],
}
_SCIPY = {
    f"{layout}_{kind}": parts
    for layout, parts in (("csr", _Csr), ("csc", _Csc), ("coo", _Coo))
    for kind in ("matrix", "array")
}


class _Unpickler(pickle.Unpickler):
    """Knows NumPy's arrays and SciPy's matrices, under their modules of all versions."""

    def find_class(self, module, name):
        if re.fullmatch(r"numpy(\._?core\.(multiarray|numeric))?", module) and name in _NUMPY:
            return _NUMPY[name]
        if re.fullmatch(r"scipy\.sparse(\._?(csr|csc|coo))?", module) and name in _SCIPY:
            return _SCIPY[name]
        if (module, name) == ("_codecs", "encode"):
            return _bytes
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_matrix(path: str | Path) -> sp.coo_matrix:
    """A pickled SciPy matrix (CSR, CSC or COO), its entries that are not zero.

    The pickle can name NumPy's arrays and types, and SciPy's matrices, for which a plain holder
    stands in; at any other name it is refused before that is looked up. The matrix is then built
    from its arrays, whose indices are checked.

    Raises:
        DataError: the file is missing, or holds anything else.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            parts = _Unpickler(file).load()
        matrix = _matrix(parts)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle raises any kind
        raise DataError(
            f"{path} is not a pickled SciPy matrix ({error}); nothing of it was run. Save it "
            f"again: pickle.dump(scipy.sparse.csr_matrix(…), file)"
        ) from None
    matrix.eliminate_zeros()
    return matrix


def _matrix(parts) -> sp.coo_matrix:
    if not isinstance(parts, _Parts):
        raise ValueError(f"it holds a {type(parts).__name__}")
    state = vars(parts)
    shape = tuple(int(n) for n in state["_shape"])
    if len(shape) != 2:
        raise ValueError(f"its shape is {shape}")
    if isinstance(parts, _Coo):
        row, column = state["coords"] if "coords" in state else (state["row"], state["col"])
        return sp.coo_matrix((state["data"], (row, column)), shape=shape)
    layout = sp.csr_matrix if isinstance(parts, _Csr) else sp.csc_matrix
    matrix = layout((state["data"], state["indices"], state["indptr"]), shape=shape)
    matrix.check_format(full_check=True)
    return matrix.tocoo()
