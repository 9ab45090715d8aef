"""``recbole-sigrec prepare``: make one of the field's public data sets from its published files."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser

USAGE = """\
recbole-sigrec prepare NAME [--from DIR] [--out dataset] [--seed 2020] [--text_model MODEL]

  NAME          baby, sports, clothing, electronics (Amazon 2014), microlens, tiktok
  --from        the folder that has the published files; default: OUT/raw/NAME, into which those
                that are missing are downloaded (where they cannot be, the command says which files
                to put there)
  --out         the new data set is the folder OUT/NAME, which must not be there
  --seed        of the random split
  --text_model  encodes the texts: a sentence-transformers model, by name or folder, or tfidf;
                default all-MiniLM-L6-v2, or tfidf where sentence-transformers is not installed
"""


def main(arguments: list[str]) -> int:
    """Prepare; 0 if the data set was written."""
    parser = Parser()
    parser.add_argument("name")
    parser.add_argument("--from", dest="source")
    parser.add_argument("--out", default="dataset")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--text_model")
    given = parser.parse_args(arguments)
    from recbole_sigrec.data.build import summary
    from recbole_sigrec.data.prepare import prepare

    manifest = prepare(given.name, given.source, given.out, given.seed, given.text_model)
    print(f"{summary(manifest)}\nwritten: {given.out}/{given.name}")
    return 0
