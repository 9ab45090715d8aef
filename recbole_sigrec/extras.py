"""Optional libraries: an error that names the extra where one is missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from recbole_sigrec.errors import SIGRecError

EXTRAS = {
    "text": "sentence_transformers",
    "image": "timm",
    "faiss": "faiss",
    "parquet": "pyarrow",
    "qdrant": "qdrant_client",
    "pgvector": "psycopg",
    "onnx": "onnx",
    "tune": "optuna",
    "serve": "fastapi",
    "cluster": "distributed",
}
"""Extra of this package → the library that it installs."""
_WITH_IT = {
    "serve": ("uvicorn",),
    "image": ("PIL",),
    "cluster": ("dask_jobqueue", "cryptography", "psycopg"),
}
"""What else it installs and its users import."""


def need(extra: str, what: str, otherwise: str = "") -> ModuleType:
    """Import the library of an extra.

    Args:
        extra: a key of ``EXTRAS``.
        what: what needs it, for the error.
        otherwise: another remedy than to install it.

    Raises:
        SIGRecError: the library is not installed.
    """
    modules = []
    for library in (EXTRAS[extra], *_WITH_IT.get(extra, ())):
        try:
            modules.append(import_module(library))
        except ImportError:
            raise SIGRecError(
                f"{what} needs {library}, which is not installed: "
                f'pip install "recbole_sigrec[{extra}]"{otherwise}'
            ) from None
    return modules[0]
