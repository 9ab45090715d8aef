"""``recbole-sigrec import``: make a data set of a table or of another toolbox's folder."""

from __future__ import annotations

import argparse

from recbole_sigrec.commands.arguments import Once, Parser, table_file
from recbole_sigrec.user_paths import user_path

FORMATS = """\
formats of SRC:
  table     a .csv, .tsv, .jsonl (also .gz) or .parquet file, a folder of
            .parquet parts, or with --separator any text with a header
  mmrec     SRC/<name>.inter with x_label
  lattice   SRC/5-core/train.json, val.json, test.json, or SRC/train.json …
  mmssl     SRC/trnMat.pkl, valMat.pkl, tstMat.pkl, or train_mat, val_mat, …
with SRC/<modality>_feat.npy"""

OF_TABLE = {
    "user": "column of the user ids, which are kept as text",
    "item": "column of the item ids",
    "rating": "column of ratings",
    "timestamp": "column of times, numbers or ISO 8601",
    "split_column": "column of parts: train, valid, test or 0, 1, 2",
}
"""Options of a table's columns: name → what it is."""


EXAMPLE = """\
recbole-sigrec import ratings.csv --format=table --name=mine \\
  --user=user_id --item=item_id --features=text=text_feat.npy,ids=text_ids.txt"""


def parser() -> Parser:
    """The arguments of the command."""
    about = "Make a data set of your table, or of another toolbox's folder."
    made = Parser("recbole-sigrec import", about, EXAMPLE, epilog=FORMATS)
    made.add_argument("source", type=table_file, metavar="SRC", help="a file or folder")
    made.once("--format", required=True, help="table, mmrec, lattice or mmssl")
    made.once("--name", required=True, help="the data set is OUT/NAME, which must not exist yet")
    made.add_argument("--out", type=user_path, default="dataset", help="default dataset")
    features = (
        "a modality's .npy, .npz or .safetensors, and a file with the item of each row, one a "
        "line; without ids row r belongs to item r; give the option once for each modality"
    )
    how = {"action": "append", "default": [], "type": _features, "help": features}
    made.add_argument("--features", metavar="M=FILE[,ids=FILE]", **how)
    table = made.add_argument_group("of a table")
    for name, what in OF_TABLE.items():
        table.add_argument(f"--{name}", action=Once, metavar="COLUMN", help=what)
    low = "leave out lower ratings"
    table.add_argument("--min_rating", type=float, metavar="N", help=low)
    between = "LOWEST:HIGHEST possible rating, such as 1:5; another rating is an error"
    table.add_argument("--rating_range", type=_range, metavar="RANGE", help=between)
    time_format = "the form of times that are not ISO 8601, such as %%d.%%m.%%Y %%H:%%M"
    table.add_argument("--time_format", action=Once, metavar="FORMAT", help=time_format)
    made.text_form(table)
    how = made.add_argument_group("how it is split and filtered")
    split = (
        "random, leave-one-out, temporal (by user), temporal-global, cold-items (other items in "
        "each part), given; default: given if the source has a split, else random"
    )
    how.add_argument("--split", action=Once, help=split)
    ratios = "training:validation:test; default 8:1:1; 0 leaves validation or test out"
    how.add_argument("--ratios", default="8:1:1", help=ratios)
    k_core = "leave out users and items with fewer interactions; default 0: keep all"
    how.add_argument("--k_core", type=int, default=0, metavar="K", help=k_core)
    how.add_argument("--seed", type=int, default=2020, help="draws the random split; default 2020")
    cold = "keep items with features but without interactions, so that models can recommend them"
    how.add_argument("--keep_cold_items", action="store_true", help=cold)
    return made


def main(arguments: list[str]) -> int:
    """Import; 0 if the data set was written."""
    made = parser()
    given = made.parse_args(arguments)
    from recbole_sigrec.preparation.build import summary
    from recbole_sigrec.preparation.importers import FOLDERS, import_data
    from recbole_sigrec.preparation.importers.table import Columns

    modalities = [modality for modality, _ in given.features]
    for modality in modalities:
        if modalities.count(modality) > 1:
            made.error(f"--features: modality [{modality}] is given twice; name one file of it")
    options = (*OF_TABLE, "min_rating", "rating_range", "time_format", "separator", "encoding")
    of_table = [f"--{name}" for name in options if getattr(given, name) is not None]
    if given.format in FOLDERS and of_table:
        made.error(f"{', '.join(of_table)}: only a table has columns, {given.format} has none")
    columns = None
    if given.format == "table":
        for name in ("user", "item"):
            if getattr(given, name) is None:
                made.error(f"--{name}: name the column of the table's {name} ids")
        columns = Columns(
            *(given.user, given.item, given.rating, given.timestamp, given.split_column),
            *(given.min_rating, given.rating_range),
            *(given.time_format, given.separator, given.encoding),
        )
    manifest = import_data(
        given.source,
        given.name,
        given.format,
        given.out,
        columns,
        dict(given.features),
        given.split,
        given.ratios,
        given.k_core,
        given.seed,
        given.keep_cold_items,
    )
    print(f"{summary(manifest)}\nwritten: {given.out}/{given.name}")
    return 0


def _features(text: str) -> tuple[str, str | tuple[str, str]]:
    """``image=FILE`` or ``image=FILE,ids=FILE``."""
    modality, equals, files = text.partition("=")
    file, _, ids = files.partition(",ids=")
    if not (modality and equals and file):
        raise argparse.ArgumentTypeError(
            f"[{text}] must be MODALITY=FILE or MODALITY=FILE,ids=FILE"
        )
    return modality, (file, ids) if ids else file


def _range(text: str) -> tuple[float, float]:
    """``1:5``."""
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"[{text}] must be LOWEST:HIGHEST, as 1:5") from None
