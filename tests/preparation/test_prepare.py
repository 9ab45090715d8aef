"""The public data sets: the raw pipeline against a plain one, and what is said where files lack."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers_data import load, write_mmrec
from helpers_raw import plain_images, plain_pairs, plain_texts, write_amazon
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from recbole_sigrec.cli import run_command
from recbole_sigrec.data import encoders
from recbole_sigrec.encode.text import TFIDF_DIMENSION, Sentences
from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.download import Published
from recbole_sigrec.preparation.prepare import DATASETS, Layout, prepare

N_REVIEWS = int(os.environ.get("RECBOLE_SIGREC_REVIEWS", "2000"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """The raw files of a small Baby."""
    folder = tmp_path_factory.mktemp("raw") / "baby"
    write_amazon(folder, "Baby", N_REVIEWS)
    return folder


def read_made(folder: Path):
    """(pairs with their part, {modality: {item: row}}) of a written data set, read plainly."""
    lines = (folder / f"{folder.name}.inter").read_text("utf-8").splitlines()[1:]
    pairs = [(user, item, int(part)) for user, item, part in (line.split("\t") for line in lines)]
    rows = {}
    for modality in ("image", "text"):
        tokens = (folder / f"{modality}_ids.txt").read_text("utf-8").splitlines()
        rows[modality] = dict(zip(tokens, np.load(folder / f"{modality}_feat.npy")))
    return pairs, rows


def plain_tfidf(texts):
    """TF-IDF and truncated SVD of those texts that have a word, by scikit-learn."""
    learned = [text for text in texts if text]
    words = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    matrix = words.fit_transform(learned)
    width = min(TFIDF_DIMENSION, len(words.vocabulary_) - 1, len(learned))
    svd = TruncatedSVD(width, random_state=0).fit(matrix)
    return svd.transform(words.transform(texts))


def test_amazon_as_a_plain_pipeline_makes_it(raw, capsys, monkeypatch):
    monkeypatch.setattr(
        "recbole_sigrec.preparation.amazon._IMAGES", 10
    )  # so that there are many blocks
    monkeypatch.setattr("recbole_sigrec.preparation.amazon._BATCH", 100)
    given = f"--from={raw}", "--out=out", "--seed=3", "--text_model=tfidf"
    assert run_command("prepare", "baby", *given) == 0
    told = capsys.readouterr().out
    pairs, rows = read_made(Path("out/baby"))
    expected = plain_pairs(raw, "Baby", 3)
    assert len(pairs) == len(expected) > N_REVIEWS // 2
    assert set(pairs) == set(expected)
    items = {item for _, item, _ in expected}
    assert {"007", "7"} <= {user for user, _, _ in expected}

    images = plain_images(raw, "Baby")
    assert set(rows["image"]) == items
    for item, row in rows["image"].items():
        np.testing.assert_array_equal(row, images.get(item, np.zeros(4096, np.float32)))
    texts = {item: text for item, text in plain_texts(raw, "Baby").items() if item in items}
    plain = dict(zip(texts, plain_tfidf(list(texts.values()))))
    columns = [list(texts.values())]
    encoded = encoders.Tfidf.learn(columns, TFIDF_DIMENSION).encode(columns)
    encoded = dict(zip(texts, encoded))
    assert set(rows["text"]) == items
    made_by = Path("out/baby/text_encoder.safetensors")
    again = encoders.Tfidf.load(made_by).encode(columns)
    for item, row in zip(texts, again, strict=True):
        np.testing.assert_array_equal(rows["text"][item], row)
    for item, row in rows["text"].items():
        np.testing.assert_allclose(row, plain.get(item, np.zeros(len(row))), atol=1e-4)
        np.testing.assert_array_equal(row, encoded.get(item, np.zeros(len(row), np.float32)))
    assert not Path("owned").exists()  # the metadata's code did not run

    manifest = json.loads(Path("out/baby/manifest.json").read_text("utf-8"))
    image = manifest["modalities"]["image"]
    assert image["items"] == sum(images[item].any() for item in items if item in images)
    assert image["items"] + image["missing"] == len(items)
    assert image["not_finite"] == 1 and image["repeated"] == 1
    assert manifest["modalities"]["text"]["encoder"] == (
        f"tfidf {TFIDF_DIMENSION}, learned from at most 10000 texts"
    )
    assert manifest["modalities"]["text"]["revision"].startswith("scikit-learn ")
    assert manifest["steps"][-1] == {
        **{"step": "5-core", "users": len({user for user, _, _ in expected})},
        **{"items": len(items), "interactions": len(expected)},
    }
    skipped = manifest["source"]["skipped"]["reviews_Baby_5.json.gz"]
    assert skipped["with a rating that is not from 1 to 5"] >= 3
    assert "skipped in reviews_Baby_5.json.gz" in told
    dataset = load(Path("out/baby").absolute())
    assert int(dataset.modality_mask["image"].sum()) == image["items"]


def test_a_full_disk_for_texts_is_told(raw, monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", lambda *args, **kwargs: Full())
    assert run_command("prepare", "baby", f"--from={raw}", "--text_model=tfidf", "--out=out") == 2
    told = capsys.readouterr().err
    assert "texts could not be kept" in told and "TMPDIR" in told and tempfile.gettempdir() in told
    assert not Path("out/baby").exists()


def test_the_seed_is_the_split(raw):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare("baby", raw, out, seed, "tfidf")
    a, b, c = (Path(f"{out}/baby/baby.inter").read_bytes() for out in "abc")
    assert a == b != c


@pytest.fixture
def spoilt(raw, tmp_path):
    """``spoilt(name, content)``: the raw files, one of them with another content."""

    def make(name, content):
        folder = tmp_path / "spoilt"
        folder.mkdir(exist_ok=True)
        for path in raw.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / name).write_bytes(content)
        return folder

    return make


@pytest.mark.parametrize(
    "name, spoil, says",
    [
        ("reviews_Baby_5.json.gz", lambda b: b[: len(b) // 2], "cut short after line"),
        ("meta_Baby.json.gz", lambda b: b[:-5], "cut short after line"),
        ("image_features_Baby.b", lambda b: b[:-1], "not a multiple of 16394"),
        ("image_features_Baby.b", lambda b: b"", "has 0 bytes"),
        ("meta_Baby.json.gz", lambda b: b"no gz", "damaged or cut short after line 0"),
        (
            "reviews_Baby_5.json.gz",
            lambda b: gzip.compress(gzip.decompress(b) + 50 * b"{\n"),
            "not a JSON object (first: line",
        ),
        (
            "meta_Baby.json.gz",
            lambda b: gzip.compress(gzip.decompress(b).replace(b"asin", b"asia")),
            "without an asin (first: line",
        ),
    ],
)
def test_a_damaged_raw_file_is_refused(raw, spoilt, capsys, name, spoil, says):
    folder = spoilt(name, spoil((raw / name).read_bytes()))
    assert (
        run_command("prepare", "baby", f"--from={folder}", "--text_model=tfidf", "--out=out") == 2
    )
    told = capsys.readouterr().err
    assert str(folder / name) in told and says in told
    assert [path for path in Path("out").iterdir() if path.is_dir()] == []


# ---- TikTok and MicroLens ------------------------------------------------------------------------


def test_tiktok_in_three_layouts(tmp_path):
    frame = pd.DataFrame(
        [(u, (u + 3 * n) % 20, label) for u in range(20) for n, label in enumerate((0, 0, 1, 2))],
        columns=["userID", "itemID", "x_label"],
    )
    write_mmrec(tmp_path / "a", "tiktok", frame)
    for layout in ("b", "c"):
        write_mmrec(tmp_path / layout, "tiktok", frame)
        folder = tmp_path / layout / "tiktok"
        (folder / "tiktok.inter").unlink()
        for part, (json_name, pickle_name) in enumerate(
            (("train", "trnMat"), ("val", "valMat"), ("test", "tstMat"))
        ):
            rows = frame[frame["x_label"] == part]
            if layout == "b":
                lists = {str(user): own.tolist() for user, own in rows.groupby("userID")["itemID"]}
                (folder / f"{json_name}.json").write_text(json.dumps(lists))
            else:
                entries = (np.ones(len(rows)), (rows["userID"], rows["itemID"]))
                matrix = sp.coo_matrix(entries, shape=(20, 20))
                (folder / f"{pickle_name}.pkl").write_bytes(pickle.dumps(matrix))
    made = set()
    for layout in "abc":
        prepare("tiktok", tmp_path / layout / "tiktok", tmp_path / "out" / layout)
        folder = tmp_path / "out" / layout / "tiktok"
        lines = (folder / "tiktok.inter").read_text().splitlines()
        made.add((tuple(sorted(lines)), (folder / "image_feat.npy").read_bytes()))
    assert len(made) == 1


def test_the_raw_files_of_other_items_are_told(raw, spoilt, capsys):
    """Metadata that has none of the items is not broken, but gives no row."""
    meta = gzip.compress(b'{"asin": "other", "title": "a word"}\n')
    folder = spoilt("meta_Baby.json.gz", meta)
    given = f"--from={folder}", "--text_model=tfidf", "--out=out"
    assert run_command("prepare", "baby", *given) == 2
    assert "modality [text]: no row belongs to an item" in capsys.readouterr().err


class FakeSentences:
    """A sentence encoder: how many characters and words; ``given`` are the sizes of its blocks."""

    def __init__(self):
        self.given = []

    def encode(self, texts, batch_size, show_progress_bar):
        self.given.append(len(texts) - 1)  # the first is there for its width
        return np.array([[len(t), len(t.split())] for t in texts], dtype=np.float32)


def test_a_sentence_encoder_is_given_some_texts_at_a_time(raw, monkeypatch):
    model = FakeSentences()
    encoder = Sentences(model, 4, "minilm 64", b"of the encoder")
    encoder.size = 10
    monkeypatch.setattr(
        "recbole_sigrec.preparation.prepare.text_encoder", lambda name, batch: encoder
    )
    monkeypatch.setattr(
        "recbole_sigrec.preparation.prepare.version", lambda library: f"of {library}"
    )
    made = prepare("baby", raw, "out", 3, "minilm")
    pairs, rows = read_made(Path("out/baby"))
    items = {item for _, item, _ in pairs}
    texts = {item: text for item, text in plain_texts(raw, "Baby").items() if item in items}
    assert set(rows["text"]) == items
    for item, row in rows["text"].items():
        text = texts.get(item, "")
        assert row.tolist() == [len(text), len(text.split())]
    assert Path("out/baby/text_encoder.safetensors").read_bytes() == b"of the encoder"
    assert max(model.given) <= 10 < len(texts) and len(model.given) == -(-len(texts) // 10)
    text = made["modalities"]["text"]
    assert text["revision"] == "sentence-transformers of sentence-transformers"


@pytest.fixture
def published(tmp_path) -> Path:
    """MicroLens in small: every user and item with at least 5 interactions, but one user."""
    raw = tmp_path / "published"
    raw.mkdir()
    rows = [(u, 1 + (3 * u + n) % 9, 1_600_000_000_000 + n) for u in range(9) for n in range(6)]
    rows += [(9, 1, 1_600_000_000_000)]
    frame = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    frame.to_csv(raw / "MicroLens-50k_pairs.csv", index=False)
    titles = pd.DataFrame({"item": range(1, 9), "title": [f"video, tune{n}" for n in range(1, 9)]})
    titles.to_csv(raw / "MicroLens-50k_titles.csv", index=False)
    return raw


def test_microlens_as_published(published):
    frame = pd.read_csv(published / "MicroLens-50k_pairs.csv")
    made = prepare("microlens", published, "out", text_model="tfidf")
    assert made["settings"]["k_core"] == 5
    assert made["settings"]["split"] == "temporal"
    assert made["split"] == {"train": 36, "valid": 9, "test": 9}
    text = made["modalities"]["text"]
    assert (text["items"], text["missing"]) == (8, 1)
    labels = pd.read_csv("out/microlens/microlens.inter", sep="\t", dtype=str)
    frame = frame.astype(str).rename(columns={"user": "userID", "item": "itemID"})
    joined = labels.merge(frame, on=["userID", "itemID"])
    assert (joined.groupby("x_label")["timestamp"].nunique() == [4, 1, 1]).all()
    # The encoder of features that are there comes with them.
    made_by = Path("out/microlens/text_encoder.safetensors").read_bytes()
    for suffix in ("feat.npy", "ids.txt", "encoder.safetensors"):
        Path(f"out/microlens/text_{suffix}").rename(published / f"text_{suffix}")
    again = prepare("microlens", published, "again")
    assert Path("again/microlens/text_encoder.safetensors").read_bytes() == made_by
    read = {Path(entry["file"]).name for entry in again["source"]["files"]}
    assert {"text_feat.npy", "text_ids.txt", "text_encoder.safetensors"} < read


@pytest.mark.parametrize(
    "content", [b"item,title\n1,a\n2,b,c,d\n", b"item,title\n1,\xff\n", b"a,b\n"]
)
def test_titles_that_cannot_be_read_are_told(published, content, capsys):
    (published / "MicroLens-50k_titles.csv").write_bytes(content)
    given = f"--from={published}", "--text_model=tfidf", "--out=out"
    assert run_command("prepare", "microlens", *given) == 2
    assert "MicroLens-50k_titles.csv" in capsys.readouterr().err


# ---- where files come from -----------------------------------------------------------------------


def test_without_files_all_that_is_needed_is_told(capsys, tmp_path):
    assert run_command("prepare", "sports", f"--from={tmp_path}", "--out=out") == 2
    told = capsys.readouterr().err
    assert f"Put into {tmp_path}/" in told
    for name in ("reviews_{}_5.json.gz", "meta_{}.json.gz", "image_features_{}.b"):
        name = name.format("Sports_and_Outdoors")
        assert f"  {name}   from http" in told and f"/{name}\n" in told
    assert run_command("prepare", "tiktok", "--out=out") == 2
    told = capsys.readouterr().err
    assert "Put into out/raw/tiktok/" in told and "trnMat.pkl" in told and "tiktok.inter" in told


def test_a_text_encoder_that_is_not_there_is_told_first(raw, capsys):
    given = f"--from={raw}", "--out=out", f"--text_model={raw.parent / 'nowhere'}"
    assert run_command("prepare", "baby", *given) == 2
    told = capsys.readouterr().err
    assert "no such folder" in told or "recbole_sigrec[text]" in told
    assert [path for path in Path("out").glob("*") if path.is_dir()] == []


def test_unknown_names(capsys, tmp_path):
    assert run_command("prepare", "babby") == 2
    assert "Did you mean 'baby'?" in capsys.readouterr().err
    assert run_command("prepare", "baby", "--seed=-1") == 2
    assert "seed [-1]" in capsys.readouterr().err
    assert run_command("prepare") == 2


def test_missing_files_are_downloaded_and_dead_links_told(raw, monkeypatch, capsys):
    """Links of another scheme stand in for the web; tests/test_download.py has the rest."""
    layout = DATASETS["baby"][0]

    def linked(folder):
        files = tuple(Published(f.name, (folder / f.name).as_uri()) for f in layout.files)
        return (Layout(files, layout.read, layout.settings),)

    monkeypatch.setitem(DATASETS, "baby", linked(raw.parent / "gone"))
    assert run_command("prepare", "baby", "--text_model=tfidf") == 2
    told = capsys.readouterr().err
    assert "gone/reviews_Baby_5.json.gz" in told and "Put into dataset/raw/baby/" in told
    monkeypatch.setitem(DATASETS, "baby", linked(raw))
    Path("dataset/raw/baby").mkdir(parents=True, exist_ok=True)
    there = Path("dataset/raw/baby/meta_Baby.json.gz")
    there.write_bytes((raw / there.name).read_bytes())
    assert run_command("prepare", "baby", "--text_model=tfidf") == 0
    names = {path.name for path in raw.iterdir()}
    assert {path.name for path in Path("dataset/raw/baby").iterdir()} == names
    with pytest.raises(DataError, match="is there already"):
        prepare("baby")
