"""``recbole-sigrec export``: a trained model as a bundle, or a bundle's vectors elsewhere."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from recbole_sigrec.commands.arguments import Once, Parser, names, need_recbole, table_file
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.user_paths import user_path

ABOUT = """\
Make a bundle of a trained model: a folder that recommends without the training
data, without RecBole and without torch. Or, with --to, write a bundle's vectors
for another system, with all that ranking exactly needs."""
EXAMPLE = """\
recbole-sigrec export saved/SIGRec.pth --out=shop.rec
recbole-sigrec export shop.rec --to=faiss --out=shop.faiss"""

TARGETS = {
    "parquet": "parquet   TARGET is a folder of two tables",
    "faiss": "faiss     TARGET is a folder with an index",
    "qdrant": "qdrant    TARGET names the collections",
    "pgvector": "pgvector  TARGET begins the names of the tables",
    "onnx": "onnx      TARGET is a file, shop.onnx",
}


_OF_CHECKPOINT = "data_path", "items", "id_column", "columns", "without_histories"
_OF_BUNDLE = "url", "path", "dsn"
_OF_TARGET = {None: _OF_CHECKPOINT, "qdrant": ("url", "path"), "pgvector": ("dsn",)}


def parser() -> Parser:
    """The arguments of the command."""
    made = Parser("recbole-sigrec export", ABOUT, EXAMPLE)
    made.add_argument("model", type=user_path, help="a .pth checkpoint, or with --to a bundle")
    out = "the bundle, such as shop.rec; with --to, see below"
    made.once("--out", "--collection", type=user_path, required=True, metavar="TARGET", help=out)
    made.add_argument("--force", action="store_true", help="replace an earlier export")

    group = made.add_argument_group("of a checkpoint")
    where = "where the data is now, if it has moved"
    group.add_argument("--data_path", action=Once, type=user_path, metavar="FOLDER", help=where)
    table = "a table with one row per item"
    group.add_argument("--items", action=Once, type=table_file, metavar="FILE", help=table)
    group.add_argument("--id_column", action=Once, metavar="NAME", help="its column of item ids")
    kept = "the columns to keep, such as titles"
    group.add_argument("--columns", action=Once, type=names, metavar="A,B", help=kept)
    about = "leave out the users' histories"
    group.add_argument("--without_histories", action="store_true", help=about)

    group = made.add_argument_group("of a bundle", "\n".join(TARGETS.values()))
    group.add_argument("--to", action=Once, choices=TARGETS, help="for which system")
    group.add_argument("--url", action=Once, help="of a Qdrant server; QDRANT_API_KEY has its key")
    group.add_argument(
        "--path", action=Once, type=user_path, metavar="FOLDER", help="of a Qdrant without a server"
    )
    dsn = "of PostgreSQL; default by PGHOST, PGDATABASE and so on"
    group.add_argument("--dsn", action=Once, help=dsn)
    return made


def main(arguments: list[str]) -> int:
    """Export; 0 if it is there."""
    known = parser().parse_args(arguments)
    bundle = (known.model / "manifest.json").is_file()
    _check(known, bundle)
    if bundle:
        from recbole_sigrec.vector_export.targets import export_vectors

        where = {name: value for name in _OF_BUNDLE if (value := getattr(known, name)) is not None}
        export_vectors(known.model, known.to, str(known.out), known.force, **where)
        print(f"{known.out}: the vectors of {known.model} for {known.to}")
        return 0
    need_recbole()
    from recbole_sigrec.training.export import export

    table = {"items": known.items, "id_column": known.id_column, "columns": known.columns}
    where: dict[str, Any] = {} if known.data_path is None else {"data_path": str(known.data_path)}
    without = known.without_histories
    export(known.model, known.out, **table, histories=not without, force=known.force, **where)
    print(f"{known.out}: ready for recbole-sigrec recommend")
    return 0


def _check(known: Namespace, bundle: bool) -> None:
    """See that the options belong to what is exported, and where to."""
    if bundle and known.to is None:
        raise ConfigError(
            f"{known.model} is a bundle already; give --to {', '.join(TARGETS)} to export its "
            f"vectors"
        )
    if known.to is not None and not bundle:
        raise ConfigError(f"--to exports a bundle's vectors, and {known.model} is no bundle")
    given = [name for name in (*_OF_CHECKPOINT, *_OF_BUNDLE) if getattr(known, name)]
    stray = [f"--{name}" for name in given if name not in _OF_TARGET.get(known.to, ())]
    if stray:
        of = f"--to {known.to}" if bundle else "a checkpoint"
        raise ConfigError(f"{', '.join(stray)}: of no use for {of}")
