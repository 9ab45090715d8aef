"""Models by their names: ours first, then RecBole's, some of them repaired or faster.

A model's module is imported when the model is asked for: it needs the config, which needs this.
"""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path

import recbole
from recbole.utils import get_model
from torch import is_anomaly_check_nan_enabled, is_anomaly_enabled
from torch.autograd import set_detect_anomaly

from recbole_sigrec.errors import ConfigError, did_you_mean
from recbole_sigrec.model_names import MODELS, REFUSED, REPLACED


@functools.cache
def recbole_models() -> frozenset[str]:
    """The names of RecBole's models: Random, and those that have a property file."""
    files = Path(recbole.__file__).parent.glob("properties/model/*.yaml")
    return frozenset({*(file.stem for file in files), "Random"})


@functools.cache
def known_models() -> tuple[str, ...]:
    """The names of all models: ours, then RecBole's."""
    return (*MODELS, *sorted(recbole_models() - MODELS.keys()))


@functools.cache
def model_name(given: str) -> str:
    """A model's name as it is written, from any case of it; an unknown one is left as it is."""
    known = known_models()
    return {name.lower(): name for name in known}.get(given.lower(), given)


def is_foreign(model: type) -> bool:
    """Whether a model's class is neither RecBole's nor this plugin's."""
    return not model.__module__.startswith(("recbole.", "recbole_sigrec."))


@functools.cache
def resolve_model(name: str) -> type:
    """The class of a model's name, in any case.

    Raises:
        ConfigError: no model has that name, or it cannot run on current libraries.
    """
    name = model_name(name)
    module = {**MODELS, **REPLACED}.get(name)
    if module is not None:
        return getattr(import_module(module), name)
    if name in REFUSED:
        raise ConfigError(f"model [{name}] of RecBole cannot run here: {REFUSED[name]}.")
    if name not in recbole_models():
        raise ConfigError(
            f"unknown model [{name}].{did_you_mean(name, known_models())} Models of this plugin: "
            f"{', '.join(sorted(MODELS))}; any model of RecBole's can be named too."
        )
    try:
        with set_detect_anomaly(is_anomaly_enabled(), is_anomaly_check_nan_enabled()):
            return get_model(name)  # with RecBole's sequential models, SINE's module turns it on
    except ImportError as error:
        raise ConfigError(f"model [{name}] needs a package that is missing: {error}") from None
