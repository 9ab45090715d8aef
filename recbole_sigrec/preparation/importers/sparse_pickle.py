"""Reading a pickled SciPy matrix without running anything that a pickle may name."""

from __future__ import annotations

import io
import pickle
import re
import struct
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from recbole_sigrec.errors import DataError

_MAX = 2**31  # rows or columns


class Entries(NamedTuple):
    """The entries of a matrix that are not zero.

    Attributes:
        shape: (rows, columns) of the matrix.
        rows, columns: of each entry, in the file's order, int64 [n].
    """

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray


class _Type:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, name: object, *_: object):
        self._name, self._order = str(name), "="

    def __setstate__(self, state: Any) -> None:
        self._order = state[1]

    def numpy(self) -> np.dtype:
        if not re.fullmatch("[biuf][0-9]+", self._name):
            raise ValueError(f"an array is of type {self._name}")
        order: Any = "=" if self._order == "|" else self._order
        return np.dtype(self._name).newbyteorder(order)


class _Array:
    """Stands in for ``numpy.ndarray``: a vector."""

    def __init__(self, raw: Any = b"", kind: Any = None, shape: Any = (0,), *_: object):
        self._shape, self._kind, self._raw = shape, kind, raw

    def __setstate__(self, state):
        _, self._shape, self._kind, _, self._raw = state

    def numpy(self, kinds: str) -> np.ndarray:
        """Its values, which must be of one of these kinds of number."""
        kind = self._kind.numpy()
        if kind.kind not in kinds:
            raise ValueError(f"its indices are of type {kind}")
        (length,) = self._shape
        if len(self._raw) != length * kind.itemsize:
            raise ValueError("an array has too few or too many bytes")
        return np.frombuffer(self._raw, kind)


class _Matrix:
    """Stands in for a SciPy matrix: keeps what was pickled."""

    def __setstate__(self, state):
        self.state = state


class _Csr(_Matrix):
    pass


class _Csc(_Matrix):
    pass


class _Coo(_Matrix):
    pass


def _scalar(kind: _Type, raw: bytes) -> int | float:
    return np.frombuffer(raw, kind.numpy())[0].item()


def _no_bytes() -> bytes:
    """``bytes()``, as protocol 2 writes empty ones."""
    return b""


_NUMPY = {
    "ndarray": _Array,
    "dtype": _Type,
    "_reconstruct": lambda array, *_: _Array(),
    "scalar": _scalar,
    "_frombuffer": _Array,
}
_NAMES = {_Array: "ndarray", _Type: "dtype"}
_SCIPY = {
    f"{layout}_{kind}": parts
    for layout, parts in (("csr", _Csr), ("csc", _Csc), ("coo", _Coo))
    for kind in ("matrix", "array")
}


_Python: Any = pickle._Unpickler  # type checkers do not know its methods


class _Unpickler(_Python):
    """Knows NumPy's arrays and SciPy's matrices, under their modules of all versions.

    It is Python's own unpickler that is written in Python, whose handling of an instruction can be
    replaced. Nothing that it makes is larger than the file.
    """

    dispatch: ClassVar = dict(_Python.dispatch)

    def __init__(self, content: bytes):
        super().__init__(io.BytesIO(content))
        self._size, self._encoded = len(content), 0

    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(r"numpy(\._?core\.(multiarray|numeric))?", module) and name in _NUMPY:
            return _NUMPY[name]
        if re.fullmatch(r"scipy\.sparse(\._?(csr|csc|coo))?", module) and name in _SCIPY:
            return _SCIPY[name]
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if name == "bytes" and module in ("builtins", "__builtin__"):
            return _no_bytes
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def _encode(self, text: str, encoding: str) -> bytes:
        """``_codecs.encode`` as pickles before protocol 3 use it, to write bytes."""
        self._encoded += len(text)
        if encoding != "latin1" or self._encoded > self._size:  # more than the file has
            raise pickle.UnpicklingError(f"it encodes {self._encoded} characters as {encoding}")
        return text.encode("latin1")

    def _load_build(self) -> None:
        if not isinstance(self.stack[-2], _Array | _Type | _Matrix):
            raise pickle.UnpicklingError("it sets the state of something else")
        self.load_build()

    def _load_long_bytes(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        if size > self._size:
            raise EOFError("it is cut short")
        self.append(self.read(size))

    dispatch[pickle.BUILD[0]] = _load_build
    dispatch[pickle.BINBYTES8[0]] = dispatch[pickle.BYTEARRAY8[0]] = _load_long_bytes


def read_matrix(path: Path) -> Entries:
    """The entries of a pickled SciPy matrix (CSR, CSC or COO).

    The pickle can name NumPy's arrays and types, and SciPy's matrices, for which plain holders
    stand in; at any other name it is refused before that is looked up.

    Raises:
        DataError: the file is missing, holds anything else, or an index is beyond the shape.

    Memory: the file, and 16 bytes for each entry.
    """
    try:
        return _entries(_Unpickler(path.read_bytes()).load())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle raises any kind
        raise DataError(
            f"{path} is not a pickled SciPy matrix ({str(error) or type(error).__name__}); nothing "
            f"of it was run. Save it again: pickle.dump(scipy.sparse.csr_matrix(…), file)"
        ) from None


def _entries(held: object) -> Entries:
    """The entries of what was pickled, all of it checked."""
    if not isinstance(held, _Matrix):
        raise ValueError(f"it holds a {_NAMES.get(type(held), type(held).__name__)}")
    state, shape = held.state, held.state["_shape"]
    if len(shape) != 2 or not all(type(n) is int and 0 <= n < _MAX for n in shape):
        raise ValueError(f"its shape is not two numbers from 0 to {_MAX - 1}")
    data = _vector(state["data"], "biuf")
    if isinstance(held, _Coo):
        given = state["coords"] if "coords" in state else (state["row"], state["col"])
    else:
        given = (state["indices"],)
    sides = [_vector(side, "iu").astype(np.int64) for side in given]
    if any(len(side) != len(data) for side in sides):
        raise ValueError("its data and indices differ in number")
    if not isinstance(held, _Coo):
        starts = _vector(state["indptr"], "iu").astype(np.int64)
        along, sizes = shape[isinstance(held, _Csc)], np.diff(starts)
        grows = len(starts) == along + 1 and starts[0] == 0 and (sizes >= 0).all()
        if not grows or starts[-1] > len(data):
            raise ValueError("its offsets do not fit its shape and indices")
        data, sides = data[: starts[-1]], [sides[0][: starts[-1]]]
        sides.insert(isinstance(held, _Csc), np.repeat(np.arange(along), sizes))
    rows, columns = sides
    for numbers, size in zip(sides, shape, strict=True):
        if (numbers < 0).any() or (numbers >= size).any():
            raise ValueError(f"its indices are beyond its shape, {tuple(shape)}")
    return Entries(tuple(shape), rows[data != 0], columns[data != 0])


def _vector(array: object, kinds: str) -> np.ndarray:
    if not isinstance(array, _Array):
        raise ValueError(f"one of its arrays is a {type(array).__name__}")
    return array.numpy(kinds)
