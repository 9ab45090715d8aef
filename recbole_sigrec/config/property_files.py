"""Property files: where they are, which keys they know, and values for one model alone."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import recbole

from recbole_sigrec.config.keys import UNTYPED, PluginKeys, RecBoleKeys
from recbole_sigrec.config.registry import known_models, model_name
from recbole_sigrec.config.yaml_files import read_yaml
from recbole_sigrec.errors import ConfigError, did_you_mean, is_nearly

BY_MODEL = "model_defaults"
"""In a file: model → {key: value}, for that model alone."""

PROPERTY_ONLY = frozenset({BY_MODEL, "search_space"})
"""Keys that our property files may hold and a user's dict or command line may not."""


def property_root() -> Path:
    """The folder of the property files: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "properties", package.parent / "properties"):
        if (root / "overall.yaml").is_file():
            return root
    raise FileNotFoundError(f"no property files beside {package}; reinstall recbole_sigrec")


@functools.cache
def known_keys() -> frozenset[str]:
    """Every key that RecBole, one of its models, or one of ours reads."""
    keys = {*UNTYPED, *PluginKeys.model_fields, *RecBoleKeys.model_fields}
    for root in (Path(recbole.__file__).parent / "properties", property_root()):
        for file in root.rglob("*.yaml"):
            if file.parent.name == "dataset" and file.name.startswith(("url", "kg_url")):
                continue
            keys |= set(read_yaml(file, "property file") or {})
    return frozenset(keys - PROPERTY_ONLY)


def by_model(given: Any, file: str) -> dict[str, dict[str, Any]]:
    """``model_defaults`` of a user's file; a model of the user's own may have values, too.

    Raises:
        ConfigError: it is not model → {key: value}, or a model's name is nearly a known one.
    """
    given = {} if given is None else given
    if not isinstance(given, dict) or not all(isinstance(v, dict) for v in given.values()):
        raise ConfigError(
            f"config file [{file}]: {BY_MODEL} = [{given}]; write it as {{MODEL: {{key: value}}}}"
        )
    known = known_models()
    names = [model_name(str(model)) for model in given]
    if len({*names}) < len(names):
        raise ConfigError(
            f"config file [{file}]: {BY_MODEL} names a model twice: {', '.join(given)}"
        )
    given = dict(zip(names, given.values()))
    for model in given:
        if model not in known and is_nearly(model, known):
            raise ConfigError(
                f"config file [{file}]: {BY_MODEL} has values for [{model}], which is no model."
                f"{did_you_mean(str(model), known)}"
            )
    return given
