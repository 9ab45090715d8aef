"""``recbole-sigrec prepare``: make one of the field's public data sets from its published files."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser, model_source, need_text_encoder
from recbole_sigrec.user_paths import user_path

EXAMPLE = "recbole-sigrec prepare baby --out=dataset"


def parser() -> Parser:
    """The arguments of the command."""
    from recbole_sigrec.preparation.prepare import DATASETS

    about = "Make one of the field's public data sets from its published files."
    made = Parser("recbole-sigrec prepare", about, EXAMPLE)
    made.add_argument("name", metavar="NAME", help=", ".join(DATASETS))
    source = (
        "the folder of the published files; default OUT/raw/NAME. Missing files are downloaded "
        "into it; the command names those that you must fetch yourself"
    )
    made.add_argument("--from", dest="source", type=user_path, metavar="DIR", help=source)
    out = "the new data set is the folder OUT/NAME, which must not exist yet; default dataset"
    made.add_argument("--out", type=user_path, default="dataset", help=out)
    seed = "draws the random split; default 2020"
    made.add_argument("--seed", type=int, default=2020, help=seed)
    text_model = (
        "encodes the texts: a sentence-transformers model, by name or folder, or tfidf; default "
        "all-MiniLM-L6-v2, or tfidf if sentence-transformers is not installed"
    )
    made.add_argument("--text_model", type=model_source, metavar="MODEL", help=text_model)
    return made


def main(arguments: list[str]) -> int:
    """Prepare; 0 if the data set was written."""
    given = parser().parse_args(arguments)
    need_text_encoder(given.text_model)  # before the download
    from recbole_sigrec.preparation.build import summary
    from recbole_sigrec.preparation.prepare import prepare

    manifest = prepare(given.name, given.source, given.out, given.seed, given.text_model)
    print(f"{summary(manifest)}\nwritten: {given.out}/{given.name}")
    return 0
