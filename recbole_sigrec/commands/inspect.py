"""``recbole-sigrec inspect``: tell whether a data set is sound."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser, config_keys, need_recbole, output_file

READ_TOO = {"eval_args", "knn_k", "knn_search", "graph_memory_mb"}
"""Config keys that are read beside those of the data and the split."""


EXAMPLE = "recbole-sigrec inspect mine --data_path=dataset --html=mine.html"


def parser() -> Parser:
    """The arguments of the command."""
    about = """\
Show users, items, interactions, density, split sizes, cold users and items.
Show for each modality its dimension, coverage, duplicate rows, norms, and
alignment: how much more often an item and its nearest in content are in the
same training history than items of the same popularity ("lift"). Features
that belong to other items have a lift of 1. The command warns of them, and of
a split whose held-out items nearly all have the highest (or lowest) number of
their user's items."""
    keys = "a config key of data or split: --modalities=[image]"
    made = Parser("recbole-sigrec inspect", about, EXAMPLE, keys)
    made.add_argument("dataset", metavar="NAME", help="a folder in data_path")
    made.config_files()
    made.once("--json", type=output_file, metavar="FILE", help="write the figures to this file")
    html = "write a page with histograms to this file"
    made.once("--html", type=output_file, metavar="FILE", help=html)
    return made


def main(arguments: list[str]) -> int:
    """Show and write the figures; 0 also where they give cause for a warning."""
    known, rest = parser().parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.config.keys import keys_of
    from recbole_sigrec.config.property_files import known_keys
    from recbole_sigrec.files import write_json, write_text
    from recbole_sigrec.inspection import as_page, as_text, inspect

    read = keys_of("data", "split") - {"dataset"} | READ_TOO
    idle = dict.fromkeys(known_keys() - read, "it reads keys of the data and its split")
    values = config_keys(rest, **{**idle, "dataset": "the data set is the first argument"})
    figures = inspect(known.dataset, known.config_files, values)
    print(as_text(figures))
    if known.json:
        write_json(figures, known.json)
    if known.html:
        write_text(as_page(figures), known.html)
    return 0
