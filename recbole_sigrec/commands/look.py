"""``recbole-sigrec look``: what a bundle recommends and why, as one page in a file."""

from __future__ import annotations

from pathlib import Path

from recbole_sigrec.commands.arguments import Parser, output_file, table_file
from recbole_sigrec.errors import ConfigError, some
from recbole_sigrec.files import check_free
from recbole_sigrec.user_paths import user_path

ABOUT = """\
Write a page that shows some users: their history, their recommendations and the
reasons, and similar items. The page is one file and loads nothing else."""
EXAMPLE = "recbole-sigrec look shop.rec --users=20 --out=look.html"


def parser() -> Parser:
    """The arguments of the command."""
    made = Parser("recbole-sigrec look", ABOUT, EXAMPLE)
    made.add_argument("bundle", type=user_path, help="a bundle of recbole-sigrec export")
    about = "a table with one row per item; default the columns of the bundle"
    made.once("--items", type=table_file, metavar="FILE", help=about)
    made.once("--id_column", metavar="NAME", help="its column of item ids")
    made.once(
        "--title", default="title", metavar="COLUMN", help="the column of titles; default title"
    )
    pictures = "the column of pictures: addresses, or files in the table's folder; default picture"
    made.once("--picture", metavar="COLUMN", help=pictures)
    made.once("--users", type=int, default=20, metavar="N", help="number of users; default 20")
    out = "the page, such as look.html"
    made.once("--out", type=output_file, required=True, metavar="FILE", help=out)
    made.add_argument("--force", action="store_true", help="replace an earlier file")
    return made


def main(arguments: list[str]) -> int:
    """Look; 0 if the file is there."""
    known = parser().parse_args(arguments)
    if (known.items is None) != (known.id_column is None):
        raise ConfigError("--items and --id_column are given together, or neither of them")
    check_free(known.out, known.out.exists(), known.force)
    from recbole_sigrec.service.look import MOST_BYTES, Pictures, write_look
    from recbole_sigrec.serving.recommender import Recommender
    from recbole_sigrec.tables.item_columns import item_columns

    recommender = Recommender.load(known.bundle)
    folder = Path()
    if known.items is not None:
        folder = known.items.parent
        names = [name for name in (known.title, known.picture) if name is not None]
        tokens = recommender.items.names.tolist()
        recommender.columns |= item_columns(known.items, known.id_column, names, tokens)
    pictures = Pictures(folder)
    picture = known.picture or "picture"
    write_look(recommender, known.out, known.title, picture, pictures, known.users)
    if pictures.left_out:
        limit = f"not there, no picture, or over {MOST_BYTES:,} bytes"
        print(f"not shown: {some(pictures.left_out)} ({limit})")
    print(f"{known.out}: open it in a browser")
    return 0
