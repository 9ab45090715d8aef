"""The errors that a user can mend: each message names the file or key, the value and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class SIGRecError(ValueError):
    """A mistake in the input; the command line prints its message without a traceback."""


class ConfigError(SIGRecError):
    """An unknown, misspelt or wrongly typed configuration value."""


class DataError(SIGRecError):
    """A data-set file that cannot be used as it is."""


class WriteError(DataError, OSError):
    """A file that cannot be written: a full disk, a folder's rights. See :func:`write_error`."""

    __str__ = DataError.__str__

    def __reduce__(self) -> tuple[type[WriteError], tuple]:
        """For pickle. Dask replaces OSError's way by one that fails with a second base."""
        return type(self), self.args


def write_error(path: Path, cause: OSError) -> WriteError:
    """The error for a file that cannot be written, with what the system says."""
    error = WriteError(
        f"{path} cannot be written: {cause.strerror or cause}; mend that, or name another file, "
        f"and run it again"
    )
    error.errno, error.strerror, error.filename = cause.errno, cause.strerror, str(path)
    return error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean x?`` with the closest known word, or nothing where none is close."""
    lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.6)
    return f" Did you mean '{lower[close[0]]}'?" if close else ""


def is_nearly(word: str, known: Iterable[str]) -> bool:
    """Whether a word, itself unknown, is so close to a known one that it must be a slip."""
    return bool(difflib.get_close_matches(str(word), known, n=1, cutoff=0.85))


def some(values: Iterable[object], limit: int = 5) -> str:
    """The first few of a list for a message: ``3, 7, 9, … (12 in all)``."""
    values = list(values)
    shown = ", ".join(str(v) for v in values[:limit])
    return shown if len(values) <= limit else f"{shown}, … ({len(values)} in all)"
