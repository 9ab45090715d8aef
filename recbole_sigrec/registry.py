"""Model names: ours first, then RecBole's (repaired where :mod:`recbole_sigrec.compat` says so)."""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path

import recbole
from recbole.utils import get_model

from recbole_sigrec import compat
from recbole_sigrec.errors import ConfigError, did_you_mean

MODELS = {
    "SIGRec": "recbole_sigrec.model.sigrec",
    "BM3": "recbole_sigrec.model.bm3",
    "MGCN": "recbole_sigrec.model.mgcn",
    "SMORE": "recbole_sigrec.model.smore",
    "VBPR": "recbole_sigrec.model.vbpr",
    "FREEDOM": "recbole_sigrec.model.freedom",
    "LATTICE": "recbole_sigrec.model.lattice",
    "LGMRec": "recbole_sigrec.model.lgmrec",
    "COHESION": "recbole_sigrec.model.cohesion",
    "MMGCN": "recbole_sigrec.model.mmgcn",
    "ContentKNN": "recbole_sigrec.model.content_knn",
    "ContentEASE": "recbole_sigrec.model.content_ease",
}
"""Our models: name → module."""

FASTER = {"LightGCN": "recbole_sigrec.model.lightgcn"}
"""RecBole's models whose products our kernels compute: name → module."""


@functools.cache
def recbole_models() -> frozenset[str]:
    """The names of RecBole's models: those that have a property file."""
    return frozenset(p.stem for p in Path(recbole.__file__).parent.glob("properties/model/*.yaml"))


@functools.cache
def known_models() -> tuple[str, ...]:
    """The names of all models: ours, then RecBole's."""
    return (*MODELS, *sorted(recbole_models() - MODELS.keys()))


@functools.cache
def resolve_model(name: str) -> type:
    """The class of a model's name.

    Raises:
        ConfigError: no model has that name, or it cannot run on current libraries.
    """
    module = {**MODELS, **FASTER}.get(name)
    if module is not None:
        return getattr(import_module(module), name)
    if name in compat.BROKEN_MODELS:
        raise ConfigError(
            f"model [{name}] of RecBole cannot run here: {compat.BROKEN_MODELS[name]}."
        )
    if name not in recbole_models():
        raise ConfigError(
            f"unknown model [{name}].{did_you_mean(name, known_models())} Models of this plugin: "
            f"{', '.join(sorted(MODELS))}; any model of RecBole's can be named too."
        )
    try:
        model = get_model(name)
    except ImportError as error:
        raise ConfigError(f"model [{name}] needs a package that is missing: {error}") from None
    if name in compat.REPAIRS:
        return type(name, (compat.REPAIRS[name], model), {"__doc__": model.__doc__})
    return model
