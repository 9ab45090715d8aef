"""The field's public data sets, from their published files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_sigrec.data.matrix_files import find_modalities
from recbole_sigrec.encode.text import text_encoder
from recbole_sigrec.errors import DataError, did_you_mean
from recbole_sigrec.files import new_folder
from recbole_sigrec.preparation import amazon
from recbole_sigrec.preparation.build import Features, Source, build_dataset
from recbole_sigrec.preparation.download import Published, download
from recbole_sigrec.preparation.importers import FOLDERS
from recbole_sigrec.preparation.importers.feature_files import files_of, open_features
from recbole_sigrec.preparation.importers.table import Columns, read_table
from recbole_sigrec.preparation.split import check_settings
from recbole_sigrec.preparation.writer import Blocks, dataset_folder
from recbole_sigrec.tables.frames import ROWS, frames
from recbole_sigrec.tables.records import Skipped
from recbole_sigrec.user_paths import user_path

AMAZON = "http://snap.stanford.edu/data/amazon/productGraph"
BATCH = 64  # texts that go through the encoder at a time


@dataclasses.dataclass(frozen=True)
class Layout:
    """One form in which a data set is published.

    Attributes:
        files: what must be there.
        read: the folder, and the model of the text encoder → the source.
        settings: of :func:`recbole_sigrec.preparation.build.build_dataset`.
        about: other files that are used if they are there, and who publishes it.
    """

    files: tuple[Published, ...]
    read: Callable[[Path, str | None], Source]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    about: str = ""


def prepare(
    name: str,
    source: str | Path | None = None,
    out: str | Path = "dataset",
    seed: int = 2020,
    text_model: str | None = None,
) -> dict[str, Any]:
    """Make the data set ``<out>/<name>/`` from its published files.

    Args:
        name: a name of ``DATASETS``.
        source: the folder that has the files; by default ``<out>/raw/<name>/``, into which those
            that are missing are downloaded.
        out: the folder of data sets.
        seed: of the random split.
        text_model: the encoder of the texts, see :func:`recbole_sigrec.encode.encode_text`.

    Returns:
        The manifest.

    Raises:
        DataError: a file is missing and cannot be downloaded (the message says which files to put
            where), or cannot be used; nothing is left in ``<out>/<name>``.
        SIGRecError: the text encoder cannot be loaded; raised before the files are read.
    """
    if name not in DATASETS:
        raise DataError(
            f"[{name}] is no data set that can be prepared.{did_you_mean(name, DATASETS)} There "
            f"are: {', '.join(DATASETS)}; others: recbole-sigrec import"
        )
    check_settings("random", 0, seed)
    raw = user_path(out) / "raw" / name if source is None else user_path(source)
    with new_folder(dataset_folder(out, name)) as folder:
        layout = _obtain(name, raw, fetch=source is None)
        read = layout.read(raw, text_model)
        return build_dataset(read, folder, name, **{"seed": seed, **layout.settings})


def _obtain(name: str, raw: Path, fetch: bool) -> Layout:
    """The layout whose files the folder has, downloaded if it may."""
    layouts = DATASETS[name]
    for layout in layouts:
        if all((raw / file.name).is_file() for file in layout.files):
            return layout
    reasons = []
    for layout in layouts if fetch else ():
        if all(file.url for file in layout.files):
            try:
                for file in layout.files:
                    download(file, raw)
                return layout
            except DataError as error:
                reasons.append(str(error))
    reason = "; ".join(reasons) or f"{raw} does not hold its files"
    raise DataError(f"{name}: {reason}.\n{_instructions(layouts, raw)}")


def _instructions(layouts: tuple[Layout, ...], raw: Path) -> str:
    """Which files to put where."""
    lines = []
    for number, layout in enumerate(layouts):
        lines.append(f"Put into {raw}/" if number == 0 else "or")
        for file in layout.files:
            here = " (there)" if (raw / file.name).is_file() else ""
            lines.append(f"  {file.name}{here}" + (f"   from {file.url}" if file.url else ""))
        if layout.about:
            lines.append(f"  ({layout.about})")
    return "\n".join([*lines, "and run the command again."])


# ---- Amazon 2014 ---------------------------------------------------------------------------------


def _amazon(category: str) -> tuple[Layout, ...]:
    reviews, meta = f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz"
    images = f"image_features_{category}.b"
    files = (
        Published(reviews, f"{AMAZON}/categoryFiles/{reviews}"),
        Published(meta, f"{AMAZON}/categoryFiles/{meta}"),
        Published(images, f"{AMAZON}/image_features/categoryFiles/{images}"),
    )

    def read(raw: Path, model: str | None) -> Source:
        in_meta = Skipped(raw / meta)
        features = {
            "image": Features(lambda items: amazon.image_blocks(raw / images), {"file": images}),
            "text": text_features(
                lambda items: amazon.read_texts(raw / meta, items, in_meta), model
            ),
        }
        pairs, in_reviews = amazon.read_reviews(raw / reviews)
        paths = [raw / file.name for file in files]
        about = {"format": "amazon-2014", "category": category}
        skipped: dict[str, Mapping[str, int]] = {
            reviews: in_reviews.reasons,
            meta: in_meta.reasons,
        }
        return Source(pairs, features, paths, about, skipped)

    return (Layout(files, read, {"split": "random", "k": 5}),)


# ---- text ----------------------------------------------------------------------------------------


def text_features(
    read: Callable[[pd.Index], Iterable[tuple[str, str]]], model: str | None
) -> Features:
    """The modality that the text encoder makes of items' texts; an empty text gives a zero row.

    Args:
        read: the items of the data set → (token, text) of those that have one.
        model: see :func:`recbole_sigrec.encode.encode_text`.
    """
    encoder = text_encoder(model, BATCH)

    def blocks(items: pd.Index) -> Blocks:
        with contextlib.ExitStack() as stack:
            found = iter(read(items))
            if encoder.learns:  # then they are read twice
                again = stack.enter_context(_kept(found))
                if next(again(), None) is None:
                    return
                encoder.learn(text for _, text in again())
                found = again()
            while block := list(islice(found, encoder.size)):
                tokens, texts = zip(*block, strict=True)
                yield tokens, encoder.encode(list(texts))[0]

    origin = {
        "encoder": encoder.name,
        "revision": f"{encoder.library} {version(encoder.library)}",
    }
    return Features(blocks, origin, encoder.saved)


@contextlib.contextmanager
def _kept(records: Iterable[Any]) -> Iterator[Callable[[], Iterator[Any]]]:
    """Records that JSON can hold, in a temporary file, to be read more than once."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        try:
            for record in records:
                file.write(json.dumps(record) + "\n")
            file.flush()
        except OSError as error:
            raise DataError(
                f"texts could not be kept in a temporary file, in {tempfile.gettempdir()}: "
                f"{error.strerror or error}. Make room there, or let the environment variable "
                f"TMPDIR name another folder"
            ) from None

        def read() -> Iterator[Any]:
            file.seek(0)
            return map(json.loads, file)

        yield read


# ---- TikTok and MicroLens ------------------------------------------------------------------------


def _folder(kind: str, *names: str, about: str) -> Layout:
    def read(raw: Path, _: str | None) -> Source:
        return FOLDERS[kind](raw)

    return Layout(tuple(map(Published, names)), read, {}, about)


def _microlens(raw: Path, model: str | None) -> Source:
    """MicroLens-50k as published: pairs with times, titles, and features if they are there."""
    pairs, titles = raw / "MicroLens-50k_pairs.csv", raw / "MicroLens-50k_titles.csv"
    source = read_table(pairs, Columns("user", "item", timestamp="timestamp"))
    found = find_modalities(raw)
    features = {n: open_features(path, source.pairs.item_tokens) for n, path in found.items()}
    if "text" not in features:
        features["text"] = text_features(lambda items: _read_titles(titles, items), model)
    given = (file for name in found for file in files_of(features[name]))
    return dataclasses.replace(source, features=features, files=[pairs, titles, *given])


def _read_titles(path: Path, items: pd.Index) -> Iterator[tuple[str, str]]:
    """The title of each item that has one; of an item that comes twice the first counts."""
    wanted = set(items)
    for frame in frames(path, ["item", "title"], Skipped(path), ROWS):
        for item, title in zip(frame["item"], frame["title"], strict=True):
            if item in wanted:
                wanted.remove(item)
                yield item, title


DATASETS: dict[str, tuple[Layout, ...]] = {
    "baby": _amazon("Baby"),
    "sports": _amazon("Sports_and_Outdoors"),
    "clothing": _amazon("Clothing_Shoes_and_Jewelry"),
    "electronics": _amazon("Electronics"),
    "microlens": (
        Layout(
            (Published("MicroLens-50k_pairs.csv"), Published("MicroLens-50k_titles.csv")),
            _microlens,
            {"split": "temporal", "k": 5},
            "as published by github.com/westlake-repl/MicroLens; with them image_feat.npy, "
            "text_feat.npy, … and image_ids.txt, … that name the item of each row",
        ),
        _folder("mmrec", "microlens.inter", about="MMRec's folder, with its *_feat.npy"),
    ),
    "tiktok": (
        _folder(
            *("mmssl", "trnMat.pkl", "valMat.pkl", "tstMat.pkl"),
            about="as published with DiffMM, github.com/HKUDS/DiffMM: with them image_feat.npy, "
            "audio_feat.npy, text_feat.npy",
        ),
        _folder(
            *("lattice", "train.json", "val.json", "test.json"),
            about="as published with MMSSL, github.com/HKUDS/MMSSL: with them image_feat.npy, "
            "audio_feat.npy, text_feat.npy",
        ),
        _folder("mmrec", "tiktok.inter", about="MMRec's folder, with its *_feat.npy"),
    ),
}
"""Name → the forms in which it is published; the first that is there is used."""
