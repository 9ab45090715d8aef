"""The JSON files of a comparison: each has a hash of its content, which is checked when it is read.

Files of earlier versions have none; they are read, and what they must hold is checked alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_sigrec.comparison.arms import content_hash
from recbole_sigrec.errors import DataError
from recbole_sigrec.files import write_json
from recbole_sigrec.json_object import jsonable

HASH = "sha256"


def write_record(content: Mapping[str, Any], path: Path) -> None:
    """Write values and the hash of all of them."""
    values = jsonable(content)
    write_json({**values, HASH: content_hash(values)}, path)


def read_record(path: Path, kinds: Mapping[str, type], remedy: str) -> dict[str, Any]:
    """What :func:`write_record` wrote, with the hash, if there is one.

    Args:
        kinds: the keys that the file must have, and the types of their values.
        remedy: what mends a damaged file, for the error.

    Raises:
        DataError: the file cannot be read, lacks a key, or is not as it was written.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}). {remedy}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged (it holds a {type(content).__name__}). {remedy}")
    values = {key: value for key, value in content.items() if key != HASH}
    if HASH in content and content[HASH] != content_hash(values):
        raise DataError(f"{path} was changed after it was written. {remedy}")
    for key, kind in kinds.items():
        if key not in values or not isinstance(values[key], kind):
            wrong = f"[{key}] = [{values[key]}]" if key in values else f"it lacks [{key}]"
            raise DataError(f"{path} is damaged ({wrong}). {remedy}")
    return content
