"""The systems that vectors are exported to."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.extras import need
from recbole_sigrec.serving.recommender import Recommender
from recbole_sigrec.vector_export.vector_form import vector_form

TARGETS = {
    "parquet": "parquet_files",
    "faiss": "faiss_folder",
    "qdrant": "qdrant_collections",
    "pgvector": "pgvector_tables",
    "onnx": "onnx_model",
}
"""Target → the module that writes it."""


def export_vectors(
    bundle: str | Path, to: str, out: str, force: bool = False, **where: str | None
) -> None:
    """Write a bundle's vectors for another system, with all that exact ranking needs.

    Args:
        bundle: the folder.
        to: a key of ``TARGETS``.
        out: a folder (``parquet``, ``faiss``), a file (``onnx``), or the name of the collections
            (``qdrant``) or tables (``pgvector``).
        force: whether an earlier export there is replaced; nothing else is.
        where: ``url`` or ``path`` for ``qdrant``, ``dsn`` for ``pgvector``.

    Raises:
        DataError: the bundle cannot be read, ``out`` is there already, or the system refuses.
        SIGRecError: the system's library is not installed.
    """
    if to not in TARGETS:
        raise ConfigError(f"to = [{to}]: give one of {', '.join(TARGETS)}")
    need(to, f"--to {to}")  # before the bundle is read
    target = import_module(f"recbole_sigrec.vector_export.{TARGETS[to]}")
    target.write(vector_form(Recommender.load(bundle)), out, force, **where)
