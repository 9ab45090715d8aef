"""Built-in encoders: what they learn, the files that keep it, and rows that they encode later."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn
from helpers_data import N_ITEMS, Payload, features, load, write_atomic
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import MultiLabelBinarizer

from recbole_sigrec.data.encoder_files import SavedEncoder, encoder_file, find_encoder, read_encoder
from recbole_sigrec.data.encoders import MultiHot, Tfidf, load_encoder, read_item_columns
from recbole_sigrec.errors import DataError

TEXTS = ["red shoe", "Red red shirt!", "", "green shirt", "  ", "größe 42 shoe", "中文字 a b"]
NEW = ["shoe zebra, red", "zebra", "", "Größe größe", "red shoe"]
GENRES = [["a b", "c", "", "b"], ["x", "", "", "x y"]]


@pytest.fixture(params=["tfidf", "one word", "multi_hot"])
def encoder(request):
    """A built-in encoder, new columns, and their rows."""
    if request.param == "multi_hot":
        made, columns = MultiHot.learn(GENRES), [["b b q", ""], ["y", "q"]]
    else:
        texts = TEXTS if request.param == "tfidf" else ["word", "", "word word"]
        made, columns = Tfidf.learn([texts], 4), [[*NEW, *texts]]
    return made, columns, made.encode(columns)


def write_file(path: Path, tensors: dict, about: object) -> Path:
    """A file in the format of saved encoders."""
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(tensors, path, {"recbole_sigrec_encoder": text})
    return path


def about(path: Path) -> dict:
    """The metadata of a saved encoder."""
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["recbole_sigrec_encoder"])


# ---- what is learned -----------------------------------------------------------------------------


@pytest.mark.parametrize("n, dimension, seed", [(1, 5, 0), (7, 3, 1), (400, 16, 2), (400, 999, 0)])
def test_tfidf_rows_are_scikit_learns_to_the_bit(n, dimension, seed):
    rng = np.random.default_rng(n)
    draw = [" ".join(f"w{w}" for w in rng.zipf(1.5, size=9) % 300) for _ in range(n)]
    columns = [draw, draw[::-1]]
    joined = [f"{a} {b}" for a, b in zip(*columns)]
    words = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    matrix = words.fit_transform(joined)
    width = min(dimension, matrix.shape[1] - 1, n)
    expected = TruncatedSVD(width, random_state=seed).fit(matrix).transform(words.transform(joined))
    rows = Tfidf.learn(columns, dimension, seed).encode(columns)
    assert rows.dtype == np.float32 == expected.dtype
    exact = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 5)  # of another order before
    np.testing.assert_allclose(rows, expected, rtol=0, atol=0 if exact else 1e-6)


def test_one_word_has_its_weight():
    rows = Tfidf.learn([["word", "", "word word"]], 4).encode([["a word", "other", ""]])
    assert rows.dtype == np.float32 and rows.tolist() == [[1.0], [0.0], [0.0]]


CELLS = st.lists(st.sampled_from(["a", "b", "c,d", "é", ""]), max_size=3).map(" ".join)


@given(st.lists(st.tuples(*[CELLS] * 11), min_size=1, max_size=6))
def test_multi_hot_rows_are_those_of_a_binarizer(rows):
    columns = [list(column) for column in zip(*rows)]
    labels = [[f"{n}={v}" for n, cell in enumerate(row) for v in cell.split()] for row in rows]
    if any(labels):
        encoded = MultiHot.learn(columns).encode(columns)
        assert encoded.dtype == np.float32
        np.testing.assert_array_equal(encoded, MultiLabelBinarizer().fit_transform(labels))
    else:
        with pytest.raises(DataError, match="hold no value"):
            MultiHot.learn(columns)


def test_what_was_not_learned_is_ignored():
    tfidf = Tfidf.learn([TEXTS], 4)
    rows = tfidf.encode([["shoe zebra, red", "shoe red", "zebra !", ""]])
    assert rows[0].any()
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not rows[2:].any()
    genres = MultiHot.learn(GENRES)
    rows = genres.encode([["b q", "q", "x"], ["y", "", "a"]])
    assert rows.tolist() == [[0, 1, 0, 0, 1], [0] * 5, [0] * 5]
    with pytest.raises(DataError, match=r"multi_hot: 1 column\(s\) given, 2 learned"):
        genres.encode([["b"]])


@given(st.permutations(range(len(TEXTS))), st.integers(1, 7))
def test_a_row_depends_on_its_text_alone(order, size):
    tfidf = Tfidf.learn([TEXTS], 4)
    texts = [TEXTS[n] for n in order]
    blocks = [tfidf.encode([texts[n : n + size]]) for n in range(0, len(texts), size)]
    np.testing.assert_array_equal(np.concatenate(blocks), tfidf.encode([TEXTS])[list(order)])


# ---- files ---------------------------------------------------------------------------------------


def test_a_saved_encoder_encodes_alike(encoder, tmp_path):
    made, columns, rows = encoder
    made.save(tmp_path / "e.safetensors")
    for found in (type(made).load(tmp_path / "e.safetensors"), load_encoder("e.safetensors")):
        assert type(found) is type(made)
        encoded = found.encode(columns)
        assert encoded.dtype == np.float32
        np.testing.assert_array_equal(encoded, rows)
        found.save(tmp_path / "again.safetensors")  # equal encoders have equal files
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["again.safetensors", "e.safetensors"]
    assert Path("again.safetensors").read_bytes() == Path("e.safetensors").read_bytes()


def test_what_is_in_the_files(tmp_path):
    path = tmp_path / "e.safetensors"
    Tfidf.learn([TEXTS], 4, seed=3).save(path)
    words = TfidfVectorizer(sublinear_tf=True, dtype=np.float32).fit(filter(str.strip, TEXTS))
    told = about(path)
    assert (told["kind"], told["settings"]["words"]) == ("tfidf", sorted(words.vocabulary_))
    learned = told["settings"]["learned"]
    assert (learned["dimension"], learned["seed"]) == (4, 3)
    tensors = load_file(path)
    assert {name: (t.dtype, t.shape) for name, t in tensors.items()} == {
        "idf": (np.float32, (7,)),
        "components": (np.float32, (4, 7)),
    }
    np.testing.assert_array_equal(tensors["idf"], words.idf_)
    Tfidf.learn([["word"]], 4).save(tmp_path / "one.safetensors")
    assert list(load_file("one.safetensors")) == ["idf"]
    MultiHot.learn(GENRES, separator=",").save(tmp_path / "m.safetensors")
    labels = ["0=a b", "0=b", "0=c", "1=x", "1=x y"]
    settings = {"labels": labels, "separator": ",", "n_columns": 2}
    assert about(tmp_path / "m.safetensors") == {"kind": "multi_hot", "settings": settings}


def test_torch_is_not_needed(tmp_path):
    tfidf = Tfidf.learn([TEXTS], 4)
    tfidf.save(tmp_path / "e.safetensors")
    code = (
        "import sys\n"
        "from recbole_sigrec.data.encoders import Tfidf\n"
        f"rows = Tfidf.load('e.safetensors').encode([{NEW!r}])\n"
        "from recbole_sigrec.encode import encode_text\n"
        f"assert (encode_text({NEW!r}, like='e_encoder.safetensors') == rows.astype('e')).all()\n"
        "print('torch' in sys.modules, rows.tobytes().hex())"
    )
    tfidf.save(tmp_path / "e_encoder.safetensors")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", tfidf.encode([NEW]).tobytes().hex()], done.stderr


def test_no_other_file_is_overwritten(encoder, tmp_path):
    made, _, _ = encoder
    path = tmp_path / "e.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"e\.safetensors exists, with another encoder; move it"):
        made.save(path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(DataError, match="exists, with another encoder"):
        made.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["e.safetensors"]


def test_cut_files_are_told(encoder, tmp_path):
    made, _, _ = encoder
    content = made.saved().to_bytes()
    path = tmp_path / "e.safetensors"
    for size in {*range(0, len(content), 7), len(content) - 1}:
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"e\.safetensors is no saved encoder, or is damaged"):
            load_encoder(path)


READING = {"lowercase": True, "token_pattern": r"(?u)\b\w\w+\b"}
WORDS = {"words": ["aa", "bb"], "reading": READING, "learned": {}}
IDF = np.ones(2, np.float32)
ONE = {"none": np.ones(1)}  # the format needs some tensor
BAD_TFIDF = {
    "no words": ({"idf": IDF}, {"reading": READING, "learned": {}}),
    "too few words": ({"idf": IDF}, {**WORDS, "words": ["aa"]}),
    "words that repeat": ({"idf": IDF}, {**WORDS, "words": ["aa", "aa"]}),
    "words that are none": ({"idf": IDF}, {**WORDS, "words": [1, 2]}),
    "a text as words": ({"idf": IDF}, {**WORDS, "words": "ab"}),
    "other reading": ({"idf": IDF}, {**WORDS, "reading": {"token_pattern": "(a+)+$"}}),
    "no weights": (ONE, WORDS),
    "float64": ({"idf": np.ones(2)}, WORDS),
    "a matrix": ({"idf": np.ones((1, 2), np.float32)}, WORDS),
    "NaN": ({"idf": np.full(2, np.nan, np.float32)}, WORDS),
    "wrong width": ({"idf": IDF, "components": np.ones((2, 3), np.float32)}, WORDS),
    "infinity": ({"idf": IDF, "components": np.full((1, 2), np.inf, np.float32)}, WORDS),
    "no settings": ({"idf": IDF}, [1]),
}


@pytest.mark.parametrize("tensors, settings", BAD_TFIDF.values(), ids=BAD_TFIDF)
def test_spoilt_tfidf_is_told(tmp_path, tensors, settings):
    path = write_file(tmp_path / "e", tensors, {"kind": "tfidf", "settings": settings})
    with pytest.raises(DataError, match=r"e is no saved encoder, or is damaged .* name another"):
        Tfidf.load(path)


GENRE = {"labels": ["0=a", "0=b"], "separator": " ", "n_columns": 1}


@pytest.mark.parametrize(
    "changed", [{"labels": []}, {"labels": [[]]}, {"separator": 1}, {"n_columns": "1"}, {"more": 1}]
)
def test_spoilt_multi_hot_is_told(tmp_path, changed):
    whole = write_file(tmp_path / "whole", ONE, {"kind": "multi_hot", "settings": GENRE})
    assert MultiHot.load(whole).encode([["b a"]]).tolist() == [[1, 1]]
    about = {"kind": "multi_hot", "settings": {**GENRE, **changed}}
    with pytest.raises(DataError, match="e is no saved encoder, or is damaged"):
        MultiHot.load(write_file(tmp_path / "e", ONE, about))


def test_foreign_files_are_told(tmp_path):
    save_file({"weight": IDF}, tmp_path / "weights", {"format": "pt"})
    save_file({"weight": IDF}, tmp_path / "bare")
    (tmp_path / "pickle").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    write_file(tmp_path / "broken", ONE, '{"kind": "tfi')
    write_file(tmp_path / "deep", ONE, "[" * 100_000)
    write_file(tmp_path / "list", ONE, [])
    for name in ("weights", "bare", "pickle", "broken", "deep", "list"):
        with pytest.raises(DataError, match=f"{name} is no saved encoder, or is damaged"):
            load_encoder(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    for name in ("nothing", "."):
        with pytest.raises(DataError, match=r"there is no file .* of a saved encoder"):
            load_encoder(tmp_path / name)
    MultiHot.learn(GENRES).save(tmp_path / "genres")
    with pytest.raises(DataError, match=r"kind \[multi_hot\]; name one of kind tfidf"):
        Tfidf.load(tmp_path / "genres")
    write_file(tmp_path / "later", ONE, {"kind": "clip", "settings": {}})
    with pytest.raises(DataError, match=r"kind \[clip\]; name one of kind tfidf or multi_hot"):
        load_encoder(tmp_path / "later")


def test_too_many_words_are_told(tmp_path):
    about = SavedEncoder("tfidf", {"words": ['"' * 24_749_900]})  # each takes four bytes
    (tmp_path / "e").write_bytes(about.to_bytes())
    assert read_encoder(tmp_path / "e", "tfidf").settings == about.settings
    about.settings["words"] += ["é" * 500]
    with pytest.raises(DataError, match=r"\[tfidf\] cannot be saved: .* fewer or shorter columns"):
        about.to_bytes()


def test_the_encoder_beside_a_feature_file(tmp_path):
    feature_file = tmp_path / "text_feat.npy"
    assert encoder_file(feature_file) is None
    missing = re.escape(f"{feature_file} has no saved encoder, {tmp_path / 'text_encoder'}.safe")
    with pytest.raises(DataError, match=missing):
        find_encoder(feature_file)
    path = tmp_path / "text_encoder.safetensors"
    Tfidf.learn([TEXTS], 4).save(path)
    for name in ("text_feat.npy", "text_feat.npz", "text_feat.safetensors", "text.npy"):
        assert encoder_file(tmp_path / name) == find_encoder(tmp_path / name) == path
    assert find_encoder(path) == path
    assert encoder_file(tmp_path / "texts_feat.npy") is None


# ---- data sets -----------------------------------------------------------------------------------


def test_a_data_set_keeps_what_encoded_its_columns(tmp_path):
    titles = [f"thing{n % 3} number{n}" for n in range(N_ITEMS)]
    kinds = [f"{'ab'[n % 2]},{'xyz'[n % 3]}" for n in range(N_ITEMS)]
    items = {"title:token_seq": titles, "years:token_seq": ["1999"] * N_ITEMS, "kind:token": kinds}
    folder = write_atomic(tmp_path / "data", items=items)
    np.save(folder / "image_feat.npy", features())
    (folder / "image_ids.txt").write_text("".join(f"i{n}\n" for n in range(N_ITEMS)))
    columns = {
        "text": {"columns": ["title", "years"], "encoder": "tfidf", "dimension": 4},
        "kind": {"columns": ["kind"], "encoder": "multi_hot"},
    }
    dataset = load(folder, item_modalities=columns, seq_separator=",")
    assert list(dataset.modality_features) == ["image", "text", "kind"]
    assert list(dataset.encoders) == ["text", "kind"]
    for name, column in columns.items():
        tokens, values = read_item_columns(folder / "atomic.item", "item_id", column["columns"])
        dataset.encoders[name].save(tmp_path / f"{name}_encoder.safetensors")
        rows = load_encoder(tmp_path / f"{name}_encoder.safetensors").encode(values)
        ids = [dataset.field2token_id["item_id"][token] for token in tokens]
        np.testing.assert_array_equal(dataset.modality_features[name].numpy()[ids], rows)
    new = dataset.encoders["text"].encode([["number3", "unknown"], ["1999", ""]])
    assert new.shape == (2, 4) and new[0].any() and not new[1].any()
    assert dataset.encoders["kind"].encode([["z,a"]]).tolist() == [[1, 0, 0, 0, 1]]
    assert all(part.encoders is dataset.encoders for part in dataset.build())
