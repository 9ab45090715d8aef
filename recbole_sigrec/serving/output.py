"""Recommendations for many users as a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from recbole_sigrec.display.progress import progress
from recbole_sigrec.errors import DataError
from recbole_sigrec.extras import need
from recbole_sigrec.files import check_free, written_whole
from recbole_sigrec.serving.recommender import Recommender

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 1024  # users


def write_recommendations(
    recommender: Recommender,
    out: Path,
    users: Path | None = None,
    k: int = 10,
    exclude: Literal["seen", "none"] = "seen",
    force: bool = False,
) -> int:
    """Write the best items of users: user, item, rank, score. Whole or not at all.

    Args:
        out: a ``.parquet``, ``.csv`` or ``.jsonl`` file.
        users: a file with a token on each line; none given: all users.
        k, exclude: see :meth:`recbole_sigrec.serving.recommender.Recommender.recommend`.
        force: whether an earlier file is replaced.

    Returns:
        The number of users.

    Raises:
        DataError: the file is there already, a user is unknown, or the suffix is another.

    Cost: memory for one batch of users; time see ``docs/putting-it-to-work.md``.
    """
    if out.suffix not in _WRITERS:
        raise DataError(f"{out}: name a file that ends in {', '.join(_WRITERS)}")
    check_free(out, out.exists(), force)
    tokens = recommender.users.names if users is None else _read_users(users)
    recommender.users.find(tokens)
    recommender.recommend(tokens[:1], k, exclude=exclude)  # its errors before a file is begun
    bar = progress(out.name, unit="users", total=len(tokens))
    with written_whole(out) as file, _WRITERS[out.suffix](file) as write, bar:
        for start in range(0, len(tokens), _BATCH):
            batch = tokens[start : start + _BATCH]
            write(recommender.recommend(batch, k, exclude=exclude))
            bar.update(len(batch))
    return len(tokens)


def _read_users(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    tokens = [line.strip() for line in lines if line.strip()]
    if not tokens:
        raise DataError(f"{path} names no user")
    return tokens


Write = Callable[["pd.DataFrame"], Any]


@contextlib.contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Write]:
    arrow = need("parquet", "a .parquet file")
    from pyarrow import parquet

    text = arrow.string()
    types = {"user": text, "item": text, "rank": arrow.int32(), "score": arrow.float32()}
    schema = arrow.schema(list(types.items()))
    with parquet.ParquetWriter(file, schema) as writer:
        yield lambda table: writer.write_table(arrow.Table.from_pandas(table, schema))


@contextlib.contextmanager
def _csv(file: IO[bytes]) -> Iterator[Write]:
    file.write(b"user,item,rank,score\n")
    yield lambda table: table.to_csv(file, index=False, header=False, lineterminator="\n")


@contextlib.contextmanager
def _jsonl(file: IO[bytes]) -> Iterator[Write]:
    yield lambda table: table.to_json(
        file, orient="records", lines=True, force_ascii=False, double_precision=15
    )


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
