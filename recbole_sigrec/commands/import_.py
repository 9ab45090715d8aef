"""``recbole-sigrec import``: make a data set of a table or of another toolbox's folder."""

from __future__ import annotations

import argparse

from recbole_sigrec.commands.arguments import Once, Parser

USAGE = """\
recbole-sigrec import SRC --format F --name N [--out dataset] [--features M=FILE[,ids=FILE]] …

  --format        table     SRC is a .csv, .tsv, .jsonl (also .gz) or .parquet file
                  mmrec     SRC/<name>.inter with x_label
                  lattice   SRC/5-core/train.json, val.json, test.json, or SRC/train.json …
                  mmssl     SRC/trnMat.pkl, valMat.pkl, tstMat.pkl, or train_mat, val_mat, test_mat
                  with SRC/<modality>_feat.npy
  --name, --out   the new data set is the folder OUT/N, which must not be there
  --features      a modality's .npy, .npz or .safetensors, and the item of each row, one a line;
                  without ids row r belongs to item r; to be given for each modality

of a table:
  --user, --item  the columns of the ids; ids are kept as text
  --rating        the column of ratings: --min_rating=4 leaves out what is below, and with
                  --rating_range=1:5 another rating is an error
  --timestamp     the column of times, numbers or ISO 8601
  --split_column  the column of parts: train, valid, test or 0, 1, 2

  --split         random, leave-one-out, temporal (by user), temporal-global, given;
                  default: given where the source has a split, else random
  --ratios        training:validation:test; default 8:1:1
  --k_core        leave out users and items with fewer interactions; default 0: none
  --seed          of the random split; default 2020
"""

OF_TABLE = ("user", "item", "rating", "timestamp", "split_column", "min_rating", "rating_range")


def main(arguments: list[str]) -> int:
    """Import; 0 if the data set was written."""
    parser = Parser()
    parser.add_argument("source")
    parser.add_argument("--format", required=True, action=Once)
    parser.add_argument("--name", required=True, action=Once)
    parser.add_argument("--out", default="dataset")
    parser.add_argument("--features", action="append", default=[], type=_features)
    for name in ("user", "item", "rating", "timestamp", "split_column", "split"):
        parser.add_argument(f"--{name}", action=Once)
    parser.add_argument("--min_rating", type=float)
    parser.add_argument("--rating_range", type=_range)
    parser.add_argument("--ratios", default="8:1:1")
    parser.add_argument("--k_core", type=int, default=0)
    parser.add_argument("--seed", type=int, default=2020)
    given = parser.parse_args(arguments)
    from recbole_sigrec.data.build import summary
    from recbole_sigrec.data.importers import FOLDERS, import_dataset
    from recbole_sigrec.data.importers.table import Columns

    modalities = [modality for modality, _ in given.features]
    for modality in modalities:
        if modalities.count(modality) > 1:
            parser.error(f"--features: modality [{modality}] is given twice; name one file of it")
    of_table = [f"--{name}" for name in OF_TABLE if getattr(given, name) is not None]
    if given.format in FOLDERS and of_table:
        parser.error(f"{', '.join(of_table)}: only a table has columns, {given.format} has none")
    columns = None
    if given.format == "table":
        for name in ("user", "item"):
            if getattr(given, name) is None:
                parser.error(f"--{name}: name the column of the table's {name} ids")
        columns = Columns(
            *(given.user, given.item, given.rating, given.timestamp, given.split_column),
            *(given.min_rating, given.rating_range),
        )
    manifest = import_dataset(
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
