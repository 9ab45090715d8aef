"""``recbole-sigrec recommend``: the best items of users, as a file."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser, output_file
from recbole_sigrec.user_paths import user_path

ABOUT = "Write the best items of users to a file: user, item, rank, score."


EXAMPLE = "recbole-sigrec recommend shop.rec --k=10 --out=top.csv"


def parser() -> Parser:
    """The arguments of the command."""
    made = Parser("recbole-sigrec recommend", ABOUT, EXAMPLE)
    made.add_argument("bundle", type=user_path, help="a bundle of recbole-sigrec export")
    users = "a file with a user on each line; default all users"
    made.once("--users", type=user_path, metavar="FILE", help=users)
    made.once("--k", type=int, default=10, help="items for each user; default 10")
    exclude = "seen (default): no items that the user took; none: all items"
    made.once("--exclude", choices=("seen", "none"), default="seen", help=exclude)
    out = "a .parquet, .csv or .jsonl file"
    made.once("--out", type=output_file, required=True, metavar="FILE", help=out)
    made.add_argument("--force", action="store_true", help="replace an earlier file")
    return made


def main(arguments: list[str]) -> int:
    """Recommend; 0 if the file is there."""
    known = parser().parse_args(arguments)
    from recbole_sigrec.serving.output import write_recommendations
    from recbole_sigrec.serving.recommender import Recommender

    recommender = Recommender.load(known.bundle)
    how = {"k": known.k, "exclude": known.exclude, "force": known.force}
    n = write_recommendations(recommender, known.out, known.users, **how)
    print(f"{known.out}: {known.k} items for each of {n} users")
    return 0
