"""What is there already under the name of an export."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbole_sigrec.errors import DataError
from recbole_sigrec.files import check_free, new_folder, write_json


def check_export(name: str, there: bool, ours: bool, force: bool) -> None:
    """See that an export may take a name.

    Args:
        name: for the message.
        there: whether something has it.
        ours: whether that is an earlier export of the same kind.
        force: whether such a one is replaced; nothing else is.

    Raises:
        DataError: it may not.
    """
    if there and not ours:
        raise DataError(f"{name} is there already, and is no such export; give another name")
    check_free(name, there, force)


@contextlib.contextmanager
def export_folder(path: Path, manifest: dict[str, Any], force: bool) -> Iterator[Path]:
    """A folder to write an export in, whole or not at all; ``manifest.json`` is written there.

    Raises:
        DataError: there is something already that is not to be replaced.
    """
    check_export(str(path), path.exists(), kind(path) == manifest["export"], force)
    with new_folder(path, replace=force) as folder:
        yield folder
        write_json(manifest, folder / "manifest.json")


def kind(path: Path) -> str | None:
    """Which export a folder holds, or None: it holds none."""
    try:
        return dict(json.loads((path / "manifest.json").read_text("utf-8"))).get("export")
    except (OSError, ValueError, TypeError, RecursionError):
        return None
