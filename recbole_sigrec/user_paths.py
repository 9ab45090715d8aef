"""Paths as users give them, and names that must not be paths."""

from __future__ import annotations

import os
from pathlib import Path

from recbole_sigrec.errors import ConfigError


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path of a user's, as a shell reads it where it begins with ``~``.

    ``~`` and ``~/x`` are of your home folder, ``~name`` and ``~name/x`` of that user's. Where there
    is no such user, the path stays as it is.
    """
    return Path(os.path.expanduser(path))


def folder_name(dataset: str) -> str:
    """A data set's name, as ``data_path`` has a folder of it; a slash at its end does not count.

    Raises:
        ConfigError: it is a path, or cannot be the name of a folder.
    """
    separators = {os.sep, os.altsep or os.sep}
    name = dataset.rstrip("".join(separators))
    if not dataset or "\0" in name or len(os.fsencode(name)) > 255:
        raise ConfigError(f"dataset [{dataset[:100]!r}] is no name of a folder")
    if not name or name in (".", "..") or separators & set(name) or name == "~":
        path = user_path(dataset)
        path = path if path.name not in ("", "..") else path.resolve()
        raise ConfigError(
            f"dataset [{dataset}] is a path; give the folder's name, and the folder that holds it: "
            f"--data_path={path.parent} --dataset={path.name}"
        )
    return name
