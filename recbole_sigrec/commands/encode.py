"""``recbole-sigrec encode``: make a feature file of texts or images."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_sigrec.commands.arguments import Once, Parser, output_file

BATCH_SIZE = 64

USAGE = """\
recbole-sigrec encode text --items FILE --id_column NAME --columns NAME,… --out DIR/text_feat.npy
recbole-sigrec encode image --items FILE --id_column NAME --path_column NAME --out DIR/….npy
recbole-sigrec encode image --folder DIR --out DIR/image_feat.npy

  --items        a table with one row per item: .csv, .tsv, .jsonl (also .gz) or .parquet; broken
                 lines of .jsonl are skipped and counted, more than 1 % is an error
  --id_column    its column of item ids
  --columns      its columns of texts, which are joined
  --path_column  its column of image files; paths are relative to the table
  --folder       a folder of images, whose names without suffix are the item ids
  --out          <modality>_feat.npy; <modality>_ids.txt is written beside it
  --model        text: a sentence-transformers model, by name or as a local folder; default
                 sentence-transformers/all-MiniLM-L6-v2, or without recbole_sigrec[text] `tfidf`
                 image: a timm model (recbole_sigrec[image]), by name or as a local folder; default
                 vit_base_patch32_clip_224.openai
  --weights      a file with the weights of a timm model that --model names
  --max_tokens   text: where a sentence encoder cuts a text; default the model's own
  --batch_size   texts or images at a time; default 64

A killed command goes on where it was when it is given again. Items whose text is empty, or whose
image is missing or damaged, get a zero row, which counts as missing; how many is shown at the end.
"""


def main(arguments: list[str]) -> int:
    """Encode; 0 if the feature file is there."""
    known = parser().parse_args(arguments)
    source, missing = known.encode(known)
    told = ", ".join(f"{count} {reason}" for reason, count in missing.items())
    for reason, count in source.skipped.items():
        print(f"skipped in {known.items}: {count} {reason}")
    print(f"{known.out}: {len(source)} items, {missing.total()} missing" + (told and f" ({told})"))
    return 0


def parser() -> Parser:
    """The parser of both kinds; ``encode`` is the function of one."""
    root = Parser(prog="")
    kinds = root.add_subparsers(dest="kind", required=True)
    text = kinds.add_parser("text")
    text.set_defaults(encode=encode_text)
    text.add_argument("--items", type=Path, action=Once, required=True)
    text.add_argument("--id_column", action=Once, required=True)
    text.add_argument("--columns", action=Once, required=True)
    text.add_argument("--max_tokens", type=positive, action=Once)
    image = kinds.add_parser("image")
    image.set_defaults(encode=encode_image)
    source = image.add_mutually_exclusive_group(required=True)
    source.add_argument("--items", type=Path, action=Once)
    source.add_argument("--folder", type=Path, action=Once)
    image.add_argument("--id_column", action=Once)
    image.add_argument("--path_column", action=Once)
    image.add_argument("--weights", type=Path, action=Once)
    for kind in (text, image):
        kind.add_argument("--out", type=feature_file, action=Once, required=True)
        kind.add_argument("--model", action=Once)
        kind.add_argument("--batch_size", type=positive, action=Once)
    return root


def encode_text(known):
    """(the items, why some are missing) of `encode text`."""
    from recbole_sigrec.encode import ItemTable, encode_text_columns

    table = ItemTable(known.items, known.id_column, known.columns.split(","))
    size = known.batch_size or BATCH_SIZE
    encoded = encode_text_columns(table, known.out, known.model, size, known.max_tokens)
    return table, encoded


def encode_image(known):
    """(the items, why some are missing) of `encode image`."""
    from recbole_sigrec.encode import ImageFolder, ItemTable
    from recbole_sigrec.encode.images import encode_images

    columns = (known.id_column, known.path_column)
    if known.folder is not None:
        if any(columns):
            raise argparse.ArgumentError(None, "--folder takes no --id_column or --path_column")
        source = ImageFolder(known.folder)
    elif not all(columns):
        raise argparse.ArgumentError(None, "--items needs --id_column and --path_column")
    else:
        folder = known.items.parent
        source = ItemTable(
            known.items,
            known.id_column,
            [known.path_column],
            lambda values: folder / values[0] if values[0] else None,
        )
    size = known.batch_size or BATCH_SIZE
    return source, encode_images(source, known.out, known.model, known.weights, size)


def feature_file(text: str) -> Path:
    """The type of ``--out``."""
    path = output_file(text)
    if not path.name.endswith("_feat.npy") or path.name == "_feat.npy":
        raise argparse.ArgumentTypeError(f"[{path}]: name it <modality>_feat.npy")
    return path


def positive(text: str) -> int:
    """The type of ``--batch_size``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"[{text}] is not a positive number")
    return int(text)
