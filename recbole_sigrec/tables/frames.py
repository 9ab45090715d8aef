"""Tables as batches of rows, with named columns as text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from recbole_sigrec.display.progress import progress
from recbole_sigrec.errors import DataError
from recbole_sigrec.extras import need
from recbole_sigrec.tables.delimited import FOUND_OUT, TextForm, check_columns, text_frames
from recbole_sigrec.tables.records import Skipped, json_object, read_records

ROWS = 2**13
"""Rows read at a time; all their columns are, so that few long rows are not too much."""


def table_files(path: Path) -> list[Path]:
    """The files of a table: one, or in a folder its ``.parquet`` parts in the order of their names.

    Raises:
        DataError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist; name the file of a table, or a folder of parts")
    parts = [p for p in sorted(path.glob("*.parquet")) if p.name[0] not in "._" and p.is_file()]
    if not parts:
        raise DataError(
            f"{path} is a folder without .parquet files; name a table, or a folder of Parquet parts"
        )
    return parts


def frames(
    path: Path, names: list[str], skipped: Skipped, rows: int, form: TextForm = FOUND_OUT
) -> Iterator[pd.DataFrame]:
    """The named columns of a table in batches; the suffix tells the kind of file.

    Text is str, a missing value is "". Of JSON lines integers are text too, and other values as
    they are; a column may be missing in some of the lines, and is then "" there.

    Args:
        path: a file, or a folder of Parquet parts.
        skipped: counts the lines of JSON that are broken.
        rows: of a batch, at most.
        form: of text; with a separator any suffix is read. Values are quoted in ``.csv`` alone.

    Raises:
        DataError: the file cannot be read, lacks a column, or has too many broken lines.
    """
    for file in table_files(path):
        yield from _file_frames(file, names, skipped, rows, form)


def _file_frames(
    path: Path, names: list[str], skipped: Skipped, rows: int, form: TextForm
) -> Iterator[pd.DataFrame]:
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    usual = {".csv": ",", ".tsv": "\t"}.get(kind)
    if usual is not None or form.separator is not None:
        return _counted(path, text_frames(path, names, rows, form, usual, quoted=kind == ".csv"))
    if form != FOUND_OUT:
        raise DataError(f"{path}: separator and encoding are those of a .csv or .tsv file")
    if kind in (".jsonl", ".ndjson"):
        return _json_frames(path, names, rows, skipped)
    if kind == ".parquet" and path.suffix != ".gz":
        return _counted(path, _parquet_frames(path, names, rows))
    raise DataError(
        f"{path} has the suffix [{path.suffix}]; a table is .csv, .tsv or .jsonl (also with .gz), "
        f".parquet, or any text with --separator"
    )


def _counted(path: Path, batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Batches of a file, with a bar that counts their rows; that of JSON lines counts bytes."""
    with progress(path.name, unit="rows") as bar:
        for frame in batches:
            yield frame
            bar.update(len(frame))


def _json_frames(
    path: Path, names: list[str], rows: int, skipped: Skipped
) -> Iterator[pd.DataFrame]:
    records = read_records(path, json_object, skipped)
    has: set[str] = set()
    while batch := list(islice(records, rows)):
        if not has.issuperset(names):
            has.update(*batch)
        if not has.issuperset(names):  # then one of the later lines must have it
            for record in read_records(path, json_object, Skipped(path)):
                has.update(record)
            check_columns(path, names, sorted(has))
        columns = {name: [_plain(record.get(name)) for record in batch] for name in names}
        yield pd.DataFrame(columns, dtype=object)


def _plain(value: object) -> object:
    """A JSON value as its text, if it is text or a number that is written but one way."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return "" if value is None else value


def _parquet_frames(path: Path, names: list[str], rows: int) -> Iterator[pd.DataFrame]:
    arrow = need("parquet", f"{path}: Parquet")
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            check_columns(path, names, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=rows, columns=names):
                columns = {}
                for name in names:
                    column = batch.column(name)
                    if arrow.types.is_dictionary(column.type):  # pandas' categories
                        column = column.dictionary_decode()
                    if arrow.types.is_integer(column.type):  # with a null, pandas makes it float
                        column = column.cast(arrow.string())
                    columns[name] = column.to_pandas().fillna("")
                yield pd.DataFrame(columns).astype(object)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None
