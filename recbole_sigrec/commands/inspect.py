"""``recbole-sigrec inspect``: tell whether a data set is sound."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Once, Parser, need_recbole, output_file

USAGE = """\
recbole-sigrec inspect NAME [--json FILE] [--html FILE] [--KEY=VALUE …]

  NAME         a folder in data_path
  --json       write the figures there
  --html       write one page with histograms there; needs recbole_sigrec[report]
  --KEY=VALUE  any config key, e.g. --data_path=data --modalities=[image]

Shows users, items, interactions, density, split sizes, cold users and items, and for each modality
its dimension, coverage, duplicate rows, norms, and alignment: how much more often an item and its
nearest in content are in the same training history than items of the same popularity ("lift").
Features that belong to other items have a lift of 1, which is warned of; so is a split whose
held-out items nearly all have the highest (or lowest) number of their user's items.
"""


def main(arguments: list[str]) -> int:
    """Show and write the figures; 0 also where they give cause for a warning."""
    parser = Parser()
    parser.add_argument("dataset", metavar="NAME")
    parser.add_argument("--json", type=output_file, action=Once)
    parser.add_argument("--html", type=output_file, action=Once)
    known, rest = parser.parse_known_args(arguments)
    need_recbole()
    from recbole_sigrec.config import Config
    from recbole_sigrec.inspection import as_page, as_text, inspect
    from recbole_sigrec.inspection.page import need_plotly
    from recbole_sigrec.quick_start import write_json, write_text

    if known.html:
        need_plotly()
    figures = inspect(Config("SIGRec", known.dataset, command_line=rest))
    print(as_text(figures))
    if known.json:
        write_json(figures, known.json)
    if known.html:
        write_text(as_page(figures), known.html)
    return 0
