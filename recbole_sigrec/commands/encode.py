"""``recbole-sigrec encode``: make a feature file of texts or images."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_sigrec.commands.arguments import (
    Once,
    Parser,
    model_source,
    need_text_encoder,
    output_file,
    table_file,
)
from recbole_sigrec.user_paths import user_path

if TYPE_CHECKING:
    from recbole_sigrec.encode.sources import ImageFolder, ItemTable
    from recbole_sigrec.tables.delimited import TextForm

BATCH_SIZE = 64

ABOUT = """\
Make a feature file of texts or images. Run the same command again to continue
after an interruption. An item whose text is empty, or whose image is missing or
damaged, gets a zero row, which counts as missing."""

TEXT_EXAMPLE = """\
recbole-sigrec encode text --items=items.csv --id_column=item_id \\
  --columns=title,description --out=text_feat.npy"""
IMAGE_EXAMPLE = "recbole-sigrec encode image --folder=pictures --out=image_feat.npy"

ITEMS = (
    "a table with one row per item: .csv, .tsv, .jsonl (also .gz) or .parquet; broken lines of "
    ".jsonl are skipped and counted, more than 1 %% is an error"
)


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
    root = Parser("recbole-sigrec encode", ABOUT)
    kinds = root.add_subparsers(dest="kind", required=True)
    text = kinds.add_parser("text", prog="recbole-sigrec encode text", example=TEXT_EXAMPLE)
    text.set_defaults(encode=encode_text)
    text.add_argument("--items", type=table_file, action=Once, required=True, help=ITEMS)
    id_column = "its column of item ids"
    text.once("--id_column", required=True, metavar="NAME", help=id_column)
    text.once("--columns", required=True, help="its columns of texts, which are joined")
    max_tokens = "a sentence encoder cuts longer texts; default the model's own limit"
    text.once("--max_tokens", type=positive, metavar="N", help=max_tokens)
    image = kinds.add_parser("image", prog="recbole-sigrec encode image", example=IMAGE_EXAMPLE)
    image.set_defaults(encode=encode_image)
    source = image.add_mutually_exclusive_group(required=True)
    source.add_argument("--items", type=table_file, action=Once, help=ITEMS)
    folder = "a folder of images, whose names without suffix are the item ids"
    source.add_argument("--folder", type=user_path, action=Once, help=folder)
    image.once("--id_column", metavar="NAME", help=id_column)
    path_column = "the table's column of image files; paths are relative to the table"
    image.once("--path_column", metavar="NAME", help=path_column)
    weights = "a file with the weights of a timm model that --model names"
    image.once("--weights", type=user_path, help=weights)
    default = {
        "text": "a sentence-transformers model, by name or as a local folder; default "
        "sentence-transformers/all-MiniLM-L6-v2, or without recbole_sigrec[text] `tfidf`",
        "image": "a timm model (recbole_sigrec[image]), by name or as a local folder; default "
        "vit_base_patch32_clip_224.openai",
    }
    for name, kind in (("text", text), ("image", image)):
        out = (
            "<modality>_feat.npy; <modality>_ids.txt and <modality>_encoder.safetensors are "
            "written into the same folder"
        )
        kind.once("--out", type=feature_file, required=True, metavar="FILE", help=out)
        kind.once("--model", type=model_source, help=default[name])
        like = (
            "a feature file, or its _encoder.safetensors: the same encoder makes the vectors of "
            "new items, in the same space"
        )
        kind.once("--like", type=user_path, metavar="FILE", help=like)
        kind.text_form(kind)
        size = f"texts or images at the same time; default {BATCH_SIZE}"
        kind.once("--batch_size", type=positive, default=BATCH_SIZE, metavar="N", help=size)
    root.epilog = f"{text.format_help()}\n{image.format_help()}"
    return root


def encode_text(known: argparse.Namespace) -> tuple[ItemTable, Counter[str]]:
    """(the items, why some are missing) of `encode text`."""
    if known.like is None:  # else its encoder says what is needed
        need_text_encoder(known.model)
    from recbole_sigrec.encode import ItemTable, encode_text_columns

    table = ItemTable(known.items, known.id_column, known.columns.split(","), form=form(known))
    given = known.out, known.model, known.batch_size, known.max_tokens, known.like
    return table, encode_text_columns(table, *given)


def encode_image(known: argparse.Namespace) -> tuple[ImageFolder | ItemTable, Counter[str]]:
    """(the items, why some are missing) of `encode image`."""
    from recbole_sigrec.encode import ImageFolder, ItemTable
    from recbole_sigrec.encode.images import encode_images

    columns = (known.id_column, known.path_column)
    if known.folder is not None:
        if any((*columns, known.separator, known.encoding)):
            raise argparse.ArgumentError(
                None, "--folder takes no --id_column or other option of a table"
            )
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
            form(known),
        )
    given = known.out, known.model, known.weights, known.batch_size, known.like
    return source, encode_images(source, *given)


def form(known: argparse.Namespace) -> TextForm:
    """How the table of items is written."""
    from recbole_sigrec.tables.delimited import TextForm

    return TextForm(known.separator, known.encoding)


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
