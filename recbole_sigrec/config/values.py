"""Config values from text: YAML, never evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from recbole_sigrec.config.keys import PATH_KEYS
from recbole_sigrec.config.yaml_files import parse_yaml
from recbole_sigrec.errors import ConfigError

_SEPARATORS = ("field_separator", "seq_separator")
"""Keys whose text YAML would take for its own signs: a bar, a space."""


def parse_value(text: str, key: str = "") -> Any:
    """A key's string value as a YAML scalar or flow collection; never evaluated.

    Paths and separators are taken as they stand. ``None`` is null.
    """
    if key in PATH_KEYS:
        quoted = re.fullmatch(r"\s*(['\"])(.*)\1\s*", text, flags=re.DOTALL)
        if quoted:
            return quoted[2]
        if text == "~" and key in ("data_path", "checkpoint_dir"):
            return text  # the home folder
        return None if text.strip().lower() in ("", "~", "null", "none") else text
    if key in _SEPARATORS and not re.fullmatch(r"(['\"]).+\1", text):
        return "\t" if text == r"\t" else text
    if text.strip() == "None":
        return None
    try:
        return parse_yaml(text)
    except ValueError:
        return text


def parse_command_line(arguments: Sequence[str]) -> dict[str, Any]:
    """``--key=value`` arguments as a dict.

    Raises:
        ConfigError: an argument is not of that form, or a key is given twice with two values.
    """
    result: dict[str, Any] = {}
    for argument in arguments:
        match = re.fullmatch(r"--([^=\s]+)=(.*)", argument, flags=re.DOTALL)
        if not match:
            raise ConfigError(f"command line argument [{argument}]: write it as --key=value")
        key, value = match[1], parse_value(match[2], match[1])
        if key in result and result[key] != value:
            raise ConfigError(f"command line key [{key}] is given twice, with different values")
        result[key] = value
    return result
