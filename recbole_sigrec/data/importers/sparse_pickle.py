"""Reading a pickled SciPy matrix without running anything that a pickle may name."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from recbole_sigrec.errors import DataError

_MAX = 2**31  # rows or columns
_ENTRIES = 2**16  # read at a time
_SMALL = 2**16  # bytes; an array that has more stays in the file


class _Stored(NamedTuple):
    """Bytes that were left in the pickle's file."""

    offset: int
    size: int


class _Type:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, name, *_):
        self._name, self._order = name, "="

    def __setstate__(self, state):
        self._order = state[1]

    def numpy(self) -> np.dtype:
        if not re.fullmatch("[biuf][0-9]+", str(self._name)):
            raise ValueError(f"an array is of type {self._name}")
        return np.dtype(self._name).newbyteorder("=" if self._order == "|" else self._order)


class _Array:
    """Stands in for ``numpy.ndarray``: a vector whose values are read when they are asked for."""

    def __init__(self, raw=b"", kind=None, shape=(0,), *_):
        self._shape, self._kind, self._raw = shape, kind, raw

    def __setstate__(self, state):
        _, self._shape, self._kind, _, self._raw = state

    def open(self, file, kinds: str = "biuf") -> None:
        """Check that it is one of these kinds, and read from this file; then it has a length."""
        self._dtype = self._kind.numpy()
        if self._dtype.kind not in kinds:
            raise ValueError(f"its indices are of type {self._dtype}")
        (self._length,) = self._shape
        stored = isinstance(self._raw, _Stored)
        if (self._raw.size if stored else len(self._raw)) != self._length * self._dtype.itemsize:
            raise ValueError("an array has too few or too many bytes")
        self._file = file

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        """Its values of a range."""
        size = self._dtype.itemsize
        start, stop = start * size, stop * size
        if isinstance(self._raw, _Stored):
            self._file.seek(self._raw.offset + start)
            return np.frombuffer(self._file.read(stop - start), self._dtype)
        return np.frombuffer(self._raw[start:stop], self._dtype)


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


class _Unpickler(pickle._Unpickler):
    """Knows NumPy's arrays and SciPy's matrices, under their modules of all versions.

    It is Python's own unpickler that is written in Python, whose handling of an instruction can be
    replaced: of one that holds the bytes of a large array, the place in the file is kept.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, file):
        super().__init__(file)
        self._source, self._end = file, os.fstat(file.fileno()).st_size
        self._encoded = 0

    def find_class(self, module, name):
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
        if encoding != "latin1" or self._encoded > self._end:  # more than the file has
            raise pickle.UnpicklingError(f"it encodes {self._encoded} characters as {encoding}")
        return text.encode("latin1")

    def _load_build(self) -> None:
        if not isinstance(self.stack[-2], _Array | _Type | _Matrix):
            raise pickle.UnpicklingError("it sets the state of something else")
        self.load_build()

    def _load_bytes(self, header: str) -> None:
        (size,) = struct.unpack(header, self.read(struct.calcsize(header)))
        frame = self._unframer.current_frame
        framed = frame is not None and frame.tell() < len(frame.getbuffer())
        if size <= _SMALL or framed:  # what is large is in no frame, where Python wrote it
            self.append(self.read(size))
            return
        place = self._source.tell()
        if place + size > self._end:
            raise EOFError("it is cut short")
        self.append(_Stored(place, size))
        self._source.seek(place + size)

    dispatch[pickle.BUILD[0]] = _load_build
    dispatch[pickle.BINBYTES[0]] = lambda self: self._load_bytes("<I")
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._load_bytes("<Q")
    dispatch[pickle.BYTEARRAY8[0]] = lambda self: self._load_bytes("<Q")


class PickledMatrix:
    """A pickled SciPy matrix (CSR, CSC or COO), whose entries are read as they are asked for.

    The pickle can name NumPy's arrays and types, and SciPy's matrices, for which plain holders
    stand in; at any other name it is refused before that is looked up.

    Args:
        path: the file.

    Attributes:
        shape: (rows, columns).

    Raises:
        DataError: the file is missing, or holds anything else.

    Memory: some thousand entries, and of CSR and CSC the offsets of their rows or columns; of a
    pickle of protocol 2, all of it.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        with self._opened() as file:
            held = _Unpickler(file).load()
            if not isinstance(held, _Matrix):
                raise ValueError(f"it holds a {_NAMES.get(type(held), type(held).__name__)}")
            state, shape = held.state, held.state["_shape"]
            if len(shape) != 2 or not all(type(n) is int and 0 <= n < _MAX for n in shape):
                raise ValueError(f"its shape is not two numbers from 0 to {_MAX - 1}")
            self.shape, self._starts, self._columnwise = tuple(shape), None, False
            self._data = state["data"]
            if isinstance(held, _Coo):
                self._indices = (
                    state["coords"] if "coords" in state else (state["row"], state["col"])
                )
            else:
                self._indices = (state["indices"],)
                self._columnwise = isinstance(held, _Csc)
            self._open(file)
            if any(len(indices) != len(self._data) for indices in self._indices):
                raise ValueError("its data and indices differ in number")
            if not isinstance(held, _Coo):
                self._starts = self._read_starts(file, state["indptr"])

    def _open(self, file) -> None:
        for array, kinds in ((self._data, "biuf"), *((one, "iu") for one in self._indices)):
            if not isinstance(array, _Array):
                raise ValueError(f"one of its arrays is a {type(array).__name__}")
            array.open(file, kinds)

    def _read_starts(self, file, offsets: _Array) -> np.ndarray:
        """The offsets of the rows (columns), checked, int64 [rows + 1]."""
        offsets.open(file, "iu")
        starts = offsets.read(0, len(offsets)).astype(np.int64)
        along = self.shape[1 if self._columnwise else 0]
        grows = len(starts) == along + 1 and starts[0] == 0 and (np.diff(starts) >= 0).all()
        if not grows or starts[-1] > len(self._data):
            raise ValueError("its offsets do not fit its shape and indices")
        return starts

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of the entries that are not zero, in order: int64 [b], int64 [b].

        Raises:
            DataError: the file cannot be read, or an index is beyond the shape.
        """
        n = len(self._data) if self._starts is None else int(self._starts[-1])
        with self._opened() as file:
            self._open(file)
            for start in range(0, max(n, 1), _ENTRIES):  # one batch at least
                stop = min(start + _ENTRIES, n)
                given = [array.read(start, stop).astype(np.int64) for array in self._indices]
                if self._starts is None:
                    rows, columns = given
                else:
                    along = np.searchsorted(self._starts, np.arange(start, stop), "right") - 1
                    rows, columns = (given[0], along) if self._columnwise else (along, given[0])
                for numbers, size in zip((rows, columns), self.shape, strict=True):
                    if (numbers < 0).any() or (numbers >= size).any():
                        raise ValueError(f"its indices are beyond its shape, {self.shape}")
                kept = self._data.read(start, stop) != 0
                yield rows[kept], columns[kept]

    @contextlib.contextmanager
    def _opened(self):
        """The file, open; what goes wrong with it as an error that names the remedy."""
        try:
            with open(self._path, "rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror or error}") from None
        except Exception as error:  # a damaged pickle raises any kind
            why = str(error) or type(error).__name__
            raise DataError(
                f"{self._path} is not a pickled SciPy matrix ({why}); nothing of it was run. Save "
                f"it again: pickle.dump(scipy.sparse.csr_matrix(…), file)"
            ) from None
