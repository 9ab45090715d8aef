"""Tables of text with a separator: what separates the values, and how the text is encoded."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_sigrec.errors import DataError, did_you_mean, some

SEPARATORS = (",", ";", "\t", "|")
"""What is tried, after the separator that the suffix stands for, where none is given."""

MOST_HEADER = 2**17
"""Characters of a header."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # in this order: the first begins with the third
_OPTIONS = "If it is written otherwise, say so with --separator or --encoding"


@dataclasses.dataclass(frozen=True)
class TextForm:
    r"""How a table of text is written; None: to be found out.

    Attributes:
        separator: one character; ``tab`` and ``\t`` stand for the tab.
        encoding: a name that Python knows, as ``cp1252``.
    """

    separator: str | None = None
    encoding: str | None = None

    def __post_init__(self):
        if self.separator in ("tab", "\\t"):
            object.__setattr__(self, "separator", "\t")
        if self.separator is not None and (
            len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\r\n\0'
        ):
            raise DataError(
                f"separator [{self.separator}] must be one ASCII character, or tab; it cannot be a "
                f"quote or a line end"
            )
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, ValueError):
            raise DataError(
                f"encoding [{self.encoding}] is unknown; name one of Python's, as utf-8, utf-16, "
                f"cp1252, latin-1 or gb18030"
            ) from None


FOUND_OUT = TextForm()
"""The form of a table of which nothing is said."""


def text_frames(
    path: Path, names: list[str], rows: int, form: TextForm, usual: str | None, quoted: bool
) -> Iterator[pd.DataFrame]:
    """The named columns of a table of text in batches, as str.

    Args:
        rows: of a batch, at most.
        usual: the separator that the suffix stands for; None: the form has one.
        quoted: whether ``"`` may quote a value.

    Raises:
        DataError: the file cannot be read, or has no such columns.
    """
    try:
        how = _how(path, names, form, usual, csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        # All columns, since with some of them (usecols) pandas lets a line have too many values.
        with pd.read_csv(path, chunksize=rows, keep_default_na=False, **how) as batches:
            for frame in batches:
                if not isinstance(frame.index, pd.RangeIndex):
                    raise DataError(f"{path}: its first row has more values than its header")
                yield frame[names]
    except DataError:
        raise
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short ({error}); fetch it again") from None
    except UnicodeError as error:
        raise DataError(
            f"{path} cannot be read: it is no text in {form.encoding or 'UTF-8'} ({error}); name "
            f"its encoding, as --encoding=cp1252 for Windows in western Europe, or save it as UTF-8"
        ) from None
    except (ValueError, OSError) as error:  # pandas' ParserError, gzip's
        raise DataError(f"{path} cannot be read as a table: {error}. {_OPTIONS}") from None


def check_columns(path: Path, names: list[str], has: list[str], remedy: str = "") -> None:
    """See that a table has the columns that are to be read, each once.

    Raises:
        DataError: it lacks one, or has two of one name.
    """
    for name in names:
        if name not in has:
            raise DataError(
                f"{path} has no column [{name}].{did_you_mean(name, has)} It has: "
                f"{some(column[:80] for column in has)}{remedy and f'. {remedy}'}"
            )
        if has.count(name) > 1:
            raise DataError(f"{path} has {has.count(name)} columns [{name}]; rename the others")


def _how(
    path: Path, names: list[str], form: TextForm, usual: str | None, quoting: int
) -> dict[str, Any]:
    """pandas' arguments for a table.

    A mark at its start tells UTF-16 and UTF-32. A separator is found where the header has all the
    named columns by it: the usual one, or else the only one of ``SEPARATORS``.
    """
    encoding = form.encoding or _marked(path)
    how = {"quoting": quoting, "dtype": str}
    how["encoding"] = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding

    begin = _begin(path, str(how["encoding"]))
    first = {"header": None, "nrows": 1, "keep_default_na": False, "quoting": quoting}

    def columns(separator: str) -> list[str]:
        rows = pd.read_csv(io.StringIO(begin), sep=separator, dtype=str, **first)
        return rows.iloc[0].tolist()

    separator = form.separator or usual or ","
    has = columns(separator)
    if form.separator is None and not set(names) <= set(has):
        fit = [other for other in SEPARATORS if set(names) <= set(columns(other))]
        if len(fit) == 1:
            separator, has = fit[0], columns(fit[0])
            logging.getLogger().info(f"{path}: its values are separated by {fit[0]!r}")
    check_columns(path, names, has, _OPTIONS)
    return {"sep": separator, **how}


def _begin(path: Path, encoding: str) -> str:
    """The start of a table, which has its whole header."""
    with _opened(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        begin = text.read(MOST_HEADER)
    if len(begin) == MOST_HEADER and not {"\n", "\r"} & set(begin):
        raise DataError(
            f"{path} has more than {MOST_HEADER:,} characters in its first line, the limit of a "
            f"header. {_OPTIONS}"
        )
    return begin


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


def _marked(path: Path) -> str:
    """The encoding that a mark at the start of a file tells; UTF-8 without one."""
    with _opened(path) as file:
        begin = file.read(4)
    return next((name for mark, name in _MARKS if begin.startswith(mark)), "utf-8")
