"""What the commands share in reading their arguments."""

from __future__ import annotations

import argparse
import os
import shlex
from importlib.util import find_spec
from pathlib import Path

from recbole_sigrec.errors import SIGRecError


class Parser(argparse.ArgumentParser):
    """A parser without abbreviations or help of its own, whose errors are raised."""

    def __init__(self, **kwargs):
        super().__init__(add_help=False, allow_abbrev=False, exit_on_error=False, **kwargs)

    def error(self, message):
        raise argparse.ArgumentError(None, message)


class Once(argparse.Action):
    """Store a value; refuse a second, different one, as for the config's keys."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) not in (None, values):
            raise argparse.ArgumentError(self, "given twice, with different values")
        setattr(namespace, self.dest, values)


def config_files(text: str | None) -> list[str]:
    """The files of ``--config_files "a.yaml b.yaml"``; a name with a space is quoted in it.

    Raises:
        SIGRecError: a quotation mark is not closed.
    """
    try:
        return shlex.split(text or "")
    except ValueError as error:
        raise SIGRecError(f"--config_files={text}: {error}") from None


def names(text: str | None) -> list[str]:
    """Those of ``--models=A,B``; spaces around a comma are not of a name."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def output_file(text: str) -> Path:
    """The path of a file to write, as the type of an argument: its folder must be there."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"[{path}] is a folder; name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"[{path}]: there is no folder [{path.parent}]")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"[{path}]: folder [{path.parent}] cannot be written")
    return path


def need_recbole() -> None:
    """See that RecBole is installed.

    Raises:
        SIGRecError: it is not; on Python 3.12 and later pip leaves it out.
    """
    if find_spec("recbole") is None:
        raise SIGRecError(
            "RecBole is not installed; on Python 3.12 and later it is installed on its own: "
            "pip install --no-deps recbole==1.2.1"
        )
