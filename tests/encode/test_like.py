"""Encoders that are saved beside the features, and used again by ``--like``: texts.

Those of images are in test_encode_images.py.
"""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from recbole_sigrec.cli import run_command
from recbole_sigrec.data.encoder_files import SavedEncoder, read_encoder
from recbole_sigrec.data.encoders import MultiHot, Tfidf
from recbole_sigrec.encode import ItemTable, encode_text, encode_text_columns, store, text
from recbole_sigrec.errors import DataError, SIGRecError

OLD = {f"i{n}": (f"thing{n % 3} name{n}", f"colour{n % 5}" * (n % 2)) for n in range(30)}
NEW = {
    "n1": ("thing1 zebra", ""),
    "i4": OLD["i4"],
    "n2": ("", ""),
    "n3": ("THING1 zebra zebra, lion", "lion"),
    "i29": OLD["i29"],
    "n4": ("thing1", ""),
    "n5": ("zebra", "lion"),
}


def write_items(path: Path, items: dict) -> Path:
    """A table with columns item, title, text."""
    rows = [(item, *texts) for item, texts in items.items()]
    pd.DataFrame(rows, columns=["item", "title", "text"]).to_csv(path, index=False)
    return path


def encode(items: dict, out: str, *given: str) -> int:
    """`encode text`; its exit status."""
    table = write_items(Path(f"{out}.csv"), items)
    columns = "--id_column=item", "--columns=title,text"
    return run_command("encode", "text", f"--items={table}", *columns, f"--out={out}", *given)


def rows_of(out: str) -> dict[str, list[float]]:
    """Item → its row."""
    ids = Path(out.replace("_feat.npy", "_ids.txt")).read_text("utf-8").split()
    return dict(zip(ids, np.load(out, allow_pickle=False).tolist(), strict=True))


# ---- TF-IDF --------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path) -> Path:
    """The features of ``OLD``, in the working directory."""
    assert encode(OLD, "text_feat.npy", "--model=tfidf") == 0
    return tmp_path / "text_feat.npy"


@pytest.mark.parametrize("like", ["text_feat.npy", "text_encoder.safetensors"])
def test_new_items_get_rows_in_the_same_space(old, capsys, like):
    capsys.readouterr()
    assert encode(NEW, "new_feat.npy", f"--like={like}") == 0
    told = capsys.readouterr().out
    assert told == "new_feat.npy: 7 items, 2 missing (2 without a known word)\n"
    before, rows = rows_of("text_feat.npy"), rows_of("new_feat.npy")
    assert list(rows) == list(NEW)
    assert (rows["i4"], rows["i29"]) == (before["i4"], before["i29"])
    assert rows["n1"] == rows["n3"] == rows["n4"] and any(rows["n1"])
    assert not any(rows["n2"] + rows["n5"])
    encoder = Path("new_encoder.safetensors").read_bytes()
    assert encoder == Path("text_encoder.safetensors").read_bytes()
    # Learned anew, the same text has another row.
    assert encode(NEW, "anew_feat.npy", "--model=tfidf") == 0
    assert rows_of("anew_feat.npy")["i4"][:2] != before["i4"][:2]


def test_all_items_again_get_the_same_rows(old):
    turned = dict(reversed(OLD.items()))
    assert encode(turned, "new_feat.npy", "--like=text_feat.npy", "--model=tfidf") == 0
    assert rows_of("new_feat.npy") == rows_of("text_feat.npy")


def test_from_python(old):
    texts = [" ".join(NEW[item]) for item in NEW]
    table = ItemTable(write_items(Path("new.csv"), NEW), "item", ["title", "text"])
    missing = encode_text_columns(table, Path("new_feat.npy"), like=old)
    assert missing == {"without a known word": 2}
    rows = encode_text(texts, like=old)
    assert rows.dtype == np.float16
    np.testing.assert_array_equal(rows, np.load("new_feat.npy"))
    out = encode_text(texts, out=Path("b_feat.npy"), like="text_encoder.safetensors")
    np.testing.assert_array_equal(out, rows)
    again = encode_text(texts[:2], like="b_feat.npy")
    np.testing.assert_array_equal(again, rows[:2])


def test_the_encoder_is_one_that_can_be_loaded(old):
    tfidf = Tfidf.load("text_encoder.safetensors")
    rows = tfidf.encode(list(zip(*OLD.values()))).astype(np.float16)
    np.testing.assert_array_equal(rows, np.load(old))


@pytest.fixture
def starts(monkeypatch) -> list[int]:
    """Where the blocks of 5 rows begin that are written from now on."""
    seen, write = [], store._write

    def noted(path, start, rows, out):
        seen.append(start)
        return write(path, start, rows, out)

    monkeypatch.setattr(text.TfidfTexts, "size", 5)
    monkeypatch.setattr(store, "_write", noted)
    return seen


class Killed(BaseException):
    """What nothing catches, as a kill."""


def killed_at(place: int, items: dict, out: str, given: str) -> None:
    """`encode text`, killed before it writes the block that begins there."""
    write = store._write

    def dying(path, start, rows, out):
        if start == place:
            raise Killed
        return write(path, start, rows, out)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(store, "_write", dying)
        encode(items, out, given)


def test_a_killed_run_goes_on_with_the_same_encoder(old, starts):
    killed_at(20, OLD, "b_feat.npy", "--model=tfidf")
    assert not Path("b_ids.txt").exists() and not Path("b_encoder.safetensors").exists()
    starts.clear()
    assert encode(OLD, "b_feat.npy", "--model=tfidf") == 0
    assert starts == [20, 25]
    assert Path("b_feat.npy").read_bytes() == old.read_bytes()
    encoder = Path("b_encoder.safetensors").read_bytes()
    assert encoder == Path("text_encoder.safetensors").read_bytes()


def test_rows_of_two_encoders_are_never_mixed(old, starts):
    """A killed run that is given again with the encoder of another file begins again."""
    assert encode(NEW, "other_feat.npy", "--model=tfidf") == 0
    killed_at(5, NEW, "b_feat.npy", "--like=other_feat.npy")
    starts.clear()
    assert encode(NEW, "b_feat.npy", "--like=text_feat.npy") == 0
    assert starts == [0, 5]
    np.testing.assert_array_equal(
        np.load("b_feat.npy"), encode_text([" ".join(texts) for texts in NEW.values()], like=old)
    )


@pytest.mark.parametrize("content", ["another encoder", "foreign"])
def test_another_encoder_is_not_overwritten(old, content, capsys):
    path = Path("b_encoder.safetensors")
    if content == "foreign":
        path.write_bytes(b"mine")
    else:
        Tfidf.learn([["word"]], 4).save(path)
    before = path.read_bytes()
    for given in ("--model=tfidf", "--like=text_feat.npy"):
        assert encode(OLD, "b_feat.npy", given) == 2
        assert "b_encoder.safetensors exists, with another encoder" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert sorted(p.name for p in Path().glob("*b_*")) == [
        "b_encoder.safetensors",
        "b_feat.npy.csv",
    ]
    shutil.copy("text_encoder.safetensors", path)  # the same one is fine
    assert encode(OLD, "b_feat.npy", "--model=tfidf") == 0


def test_a_file_that_is_no_saved_encoder_is_told(old, capsys):
    save_file({"features": np.ones((2, 2), np.float32)}, "image_encoder.safetensors")
    MultiHot.learn([["a"]]).save("genre_encoder.safetensors")
    content = Path("text_encoder.safetensors").read_bytes()
    Path("cut_encoder.safetensors").write_bytes(content[:-1])
    for like, message in {
        "no_feat.npy": "no_feat.npy has no saved encoder, no_encoder.safetensors is not there",
        "no_encoder.safetensors": "there is no file no_encoder.safetensors",
        "image_feat.npy": "image_encoder.safetensors is no saved encoder, or is damaged",
        "cut_feat.npy": "cut_encoder.safetensors is no saved encoder, or is damaged",
        "genre_feat.npy": "kind [multi_hot]; name one of kind tfidf or sentence-transformers",
    }.items():
        assert encode(NEW, "new_feat.npy", f"--like={like}") == 2
        assert message in capsys.readouterr().err
    assert not list(Path().glob("*new_feat.npy"))


@pytest.mark.parametrize("given", ["--model=all-MiniLM-L6-v2", "--max_tokens=5"])
def test_settings_that_tfidf_does_not_have_are_told(old, given, capsys):
    assert encode(NEW, "new_feat.npy", "--like=text_feat.npy", given) == 2
    assert "are from `tfidf`; leave out --model and --max_tokens" in capsys.readouterr().err


# ---- sentence encoders ---------------------------------------------------------------------------


WEIGHTS = {"hub/one": 1.0, "hub/two": 2.0}


class FakeSentences(torch.nn.Module):
    """A sentence encoder, whose weight is that of its name: characters and words, cut."""

    loaded: ClassVar[list] = []

    def __init__(self, name: str, revision: str | None = None):
        super().__init__()
        self.loaded.append((name, revision))
        folder = Path(name, "weight")
        weight = float(folder.read_text()) if folder.is_file() else WEIGHTS[name]
        self.scale = torch.nn.Parameter(torch.full((2,), weight))
        self.register_buffer("position", torch.arange(2))
        self.model_card_data = SimpleNamespace(base_model_revision="c0ffee")
        self.max_seq_length = 4

    def encode(self, texts, batch_size, show_progress_bar):
        cut = [t.split()[: self.max_seq_length] for t in texts]
        rows = np.array([[sum(map(len, words)), len(words)] for words in cut], dtype=np.float32)
        return rows * self.scale.detach().numpy()


@pytest.fixture
def sentences(monkeypatch) -> list:
    """In place of sentence-transformers; what was loaded: names and revisions."""
    library = SimpleNamespace(SentenceTransformer=FakeSentences)
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    monkeypatch.setattr(text, "library_version", lambda name: f"1 of {name}")
    monkeypatch.setattr(FakeSentences, "loaded", [])
    return FakeSentences.loaded


TEXTS = ["a bb ccc", "", "one two three four five"]


def test_a_sentence_encoder_is_loaded_as_it_was(sentences, monkeypatch):
    monkeypatch.setattr(text, "DEFAULT_MODEL", "hub/two")
    rows = encode_text(TEXTS, "hub/one", max_tokens=2, out=Path("text_feat.npy"))
    assert rows.tolist() == [[3, 2], [0, 0], [6, 2]]
    saved = read_encoder(Path("text_encoder.safetensors"), "sentence-transformers")
    assert (saved.settings["model"], saved.settings["revision"]) == ("hub/one", "c0ffee")
    assert saved.settings["max_tokens"] == 2
    assert saved.settings["version"] == "1 of sentence-transformers"
    for given in ({}, {"model": "hub/one"}, {"max_tokens": 2}):
        np.testing.assert_array_equal(encode_text(TEXTS, like="text_feat.npy", **given), rows)
    assert sentences == [("hub/one", None), *[("hub/one", "c0ffee")] * 3]
    again = encode_text(TEXTS, like="text_feat.npy", out=Path("new_feat.npy"))
    np.testing.assert_array_equal(again, rows)
    encoder = Path("new_encoder.safetensors").read_bytes()
    assert encoder == Path("text_encoder.safetensors").read_bytes()


def test_a_model_that_conflicts_is_told_before_it_is_loaded(sentences):
    encode_text(TEXTS, "hub/one", max_tokens=2, out=Path("text_feat.npy"))
    for given, message in (
        ({"model": "hub/two"}, r"from model \[hub/one\], not \[hub/two\]; leave out --model"),
        ({"model": "tfidf"}, r"from model \[hub/one\], not \[tfidf\]; leave out --model"),
        ({"max_tokens": 3}, "texts cut at 2 tokens, not 3; leave out --max_tokens"),
    ):
        with pytest.raises(SIGRecError, match=message):
            encode_text(TEXTS, like="text_feat.npy", **given)
    assert len(sentences) == 1


def test_a_model_that_has_changed_is_told(sentences, monkeypatch, caplog):
    rows = encode_text(TEXTS, "hub/one", out=Path("text_feat.npy"))
    with caplog.at_level(logging.WARNING):
        encode_text(TEXTS, like="text_feat.npy")
        assert not caplog.text
        monkeypatch.setattr(text, "library_version", lambda _: "2")
        np.testing.assert_array_equal(encode_text(TEXTS, like="text_feat.npy"), rows)
    assert "is from version 1 of sentence-transformers of the encoder's library" in caplog.text
    monkeypatch.setitem(WEIGHTS, "hub/one", 1.001)
    with pytest.raises(DataError, match=r"model \[hub/one\], version 2 .*: weights differ\. Name"):
        encode_text(TEXTS, like="text_feat.npy")


def test_a_folder_that_was_moved_can_be_named(sentences, tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, weight in zip(folders, (3.0, 3.0, 4.0)):
        folder.mkdir()
        (folder / "weight").write_text(str(weight))
    rows = encode_text(TEXTS, "a", out=Path("text_feat.npy"))
    saved = read_encoder(Path("text_encoder.safetensors"), "sentence-transformers")
    assert saved.settings["model"] == str(folders[0]) and "revision" not in saved.settings
    np.testing.assert_array_equal(encode_text(TEXTS, like="text_feat.npy"), rows)
    np.testing.assert_array_equal(encode_text(TEXTS, "b", like="text_feat.npy"), rows)
    with pytest.raises(DataError, match=r"model \[.*/c\], .*: weights differ"):
        encode_text(TEXTS, "c", like="text_feat.npy")
    shutil.rmtree("a")
    with pytest.raises(SIGRecError, match=r"folder \[.*/a\], which is not there; name the folder"):
        encode_text(TEXTS, like="text_feat.npy")
    np.testing.assert_array_equal(encode_text(TEXTS, "b", like="text_feat.npy"), rows)


@pytest.mark.parametrize(
    "changed", [{"model": None}, {"max_tokens": "2"}, {"weights": 1}, {"trust_remote_code": True}]
)
def test_spoilt_settings_are_told(sentences, changed):
    settings = {"model": "hub/one", "weights": "a", "version": None, **changed}
    content = SavedEncoder("sentence-transformers", settings).to_bytes()
    Path("text_encoder.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="is no saved encoder, or is damaged"):
        encode_text(TEXTS, like="text_feat.npy")
    assert not sentences


def test_a_sentence_encoder_needs_its_library(sentences, monkeypatch):
    encode_text(TEXTS, "hub/one", out=Path("text_feat.npy"))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SIGRecError, match=r'text_encoder\.safetensors needs .*"recbole_sigrec\[te'):
        encode_text(TEXTS, like="text_feat.npy")
