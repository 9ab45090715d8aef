"""The arguments of the script that is running: RecBole's Config takes them as keys, so we do."""

from __future__ import annotations

import functools
import logging
import sys
import sysconfig
from pathlib import Path

from recbole_sigrec.config.idle_keys import NOT_SET_HERE
from recbole_sigrec.config.property_files import known_keys
from recbole_sigrec.config.registry import is_foreign
from recbole_sigrec.errors import did_you_mean, is_nearly


def script_arguments(model: str | type | None = None) -> list[str]:
    """Those arguments ``--key=value`` of the user's script that set a config key.

    An installed program, such as pytest, Jupyter or uvicorn, is no script of the user's: its
    arguments are its own. Of a script's arguments, those that set no key are named in a warning:
    the script may read them itself.

    Args:
        model: of the run; a class of the user's may have keys of its own.
    """
    script, *given = sys.argv or [""]
    known = known_keys() - NOT_SET_HERE.keys()
    own = isinstance(model, type) and is_foreign(model)
    if isinstance(model, type):
        known |= set(getattr(getattr(model, "Keys", None), "model_fields", ()))

    def sets_a_key(text: str) -> bool:
        key = _key(text)
        foreign = own and key and key not in NOT_SET_HERE and not is_nearly(key, known)
        return text.startswith("--") and bool(key in known or foreign)

    taken = [text for text in given if sets_a_key(text)]
    if _is_installed(Path(script)):
        if taken and Path(script).name not in ("pytest", "py.test", "ipykernel_launcher.py"):
            _warn(
                f"arguments of {script} are not taken as config keys: {_names(taken)}. Pass them "
                f"on with command_line=sys.argv[1:]"
            )
        return []
    others = [text for text in given if text not in taken]
    if others:
        near = filter(lambda key: is_nearly(key, known), map(_key, others))
        hints = "".join(did_you_mean(key, known) for key in near)
        _warn(
            f"arguments of {script} that set no config key, so that only the script itself can "
            f"read them: {_names(others)}.{hints}"
        )
    return taken


def _names(arguments: list[str]) -> str:
    """Without their values, which may be secret."""
    return " ".join(text.partition("=")[0] for text in arguments)


@functools.cache
def _warn(text: str) -> None:
    """Once in a process, however many configs it makes."""
    logging.getLogger().warning(text)


def _key(argument: str) -> str:
    """``key`` of ``--key=value``; nothing where it has another form."""
    key, equals, _ = argument.removeprefix("--").partition("=")
    return key if equals else ""


def _is_installed(script: Path) -> bool:
    """Whether a program is installed, here or in another environment, or runs tests."""
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    folders = {Path(sysconfig.get_path("scripts", scheme)).resolve() for scheme in schemes}
    packages = {"site-packages", "dist-packages"} & set(script.parts)
    return (
        script.resolve().parent in folders or bool(packages) or script.name in ("pytest", "py.test")
    )
