"""``recbole-sigrec encode``: sources, the resumable feature file, texts and images."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from helpers_data import load, write_mmrec
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from recbole_sigrec.cli import run_command
from recbole_sigrec.data import encoders
from recbole_sigrec.encode import ImageFolder, ItemTable, encode_text, sources, store, text
from recbole_sigrec.encode.sources import Values
from recbole_sigrec.encode.store import encode_rows
from recbole_sigrec.errors import DataError, SIGRecError
from recbole_sigrec.tables.delimited import TextForm

ROWS = [("007", "a, b", 'say "x"'), ("7", "", "d"), ("é\u3000ü", "e\tf", "")]


def write_table(path: Path, rows=ROWS) -> Path:
    """The rows as columns item, title, text, in the format of the file's suffix."""
    frame = pd.DataFrame(rows, columns=["item", "title", "text"])
    if path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    elif path.suffix == ".tsv":
        path.write_text(
            "item\ttitle\ttext\n"
            + "".join("\t".join(cell.replace("\t", " ") for cell in row) + "\n" for row in rows),
            encoding="utf-8",
        )
    else:
        frame.to_csv(path, index=False)
    return path


def lengths(values: list[str]) -> tuple[np.ndarray, Counter]:
    """An encoder: a text's length and its square; an empty text is missing."""
    rows = np.array([[len(value), len(value) ** 2] for value in values], dtype=np.float32)
    return rows, Counter({"empty": n} if (n := values.count("")) else {})


# ---- sources -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_table_is_read_as_text(tmp_path, suffix):
    table = ItemTable(write_table(tmp_path / f"t{suffix}"), "item", ["title", "text"])
    assert len(table) == 3
    assert list(table.ids()) == ["007", "7", "é\u3000ü"]
    tab = " " if suffix == ".tsv" else "\t"
    assert list(table.blocks(2)) == [['a, b say "x"', " d"], [f"e{tab}f "]]


@settings(max_examples=15)
@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 31), st.integers(1, 9))
def test_blocks_begin_anywhere(tmp_path_factory, n, size, start, chunk):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    write_table(path, [(f"i{row}", f"title\n{row}", "") for row in range(n)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK", chunk)
        table = ItemTable(path, "item", ["title"])
        blocks = list(table.blocks(size, start))
    assert [value for block in blocks for value in block] == [
        f"title\n{row}" for row in range(start, n)
    ]
    assert all(len(block) == size for block in blocks[:-1])
    assert list(Values(["a", "b", "c"]).blocks(2, 1)) == [["b", "c"]]


def test_json_values(tmp_path):
    path = tmp_path / "t.jsonl"
    lines = [{"item": 1, "a": ["x", ["y"]], "b": None}, {"item": 12, "b": 2.5}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    table = ItemTable(path, "item", ["a", "b"])
    assert list(table.ids()) == ["1", "12"]
    assert list(table.blocks(9)) == [["x y ", " 2.5"]]


BAD_TABLES = {
    "no column": ("id,name,text\n1,a,b\n", "no column [item]. It has: id, name, text"),
    "misspelt column": ("items,title,text\n1,a,b\n", "Did you mean 'items'?"),
    "nothing": ("", "cannot be read as a table"),
    "no rows": ("item,title,text\n", "holds no items"),
    "empty token": ("item,title,text\n1,a,b\n,a,b\n", "in row(s) 2 "),
    "blank at an end": ("item,title,text\n1 ,a,b\n", "or a blank at an end in row(s) 1 "),
    "carriage return": ('item,title,text\n2,a,b\n"1\r2",a,b\n', "line break"),
    "first row too long": ("item,title,text\n1,a,b,c\n2,a,b\n", "first row has more values"),
    "line break": ('item,title,text\n"1\n2",a,b\n', "line break"),
    "repeated token": ("item,title,text\n1,a,b\n2,a,b\n1,c,d\n", "item(s) 1 more than once"),
    "too many values": ("item,title,text\n1,a,b\n2,a,b,c,d\n3,a,b,c,d,e\n", "as a table"),
    "open quote": ('item,title,text\n1,"a,b\n2,c,d\n', "cannot be read as a table"),
}


@pytest.mark.parametrize("content, message", BAD_TABLES.values(), ids=BAD_TABLES)
def test_bad_tables(tmp_path, content, message, capsys):
    path = tmp_path / "items.csv"
    path.write_text(content, encoding="utf-8")
    given = [f"--items={path}", "--id_column=item", "--columns=title,text", "--model=tfidf"]
    assert run_command("encode", "text", *given, f"--out={tmp_path}/text_feat.npy") == 2
    told = capsys.readouterr().err
    assert str(path) in told and message in told
    assert list(tmp_path.iterdir()) == [path]


def test_tables_that_are_none(tmp_path):
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(DataError, match=r"suffix \[\.xlsx\]; a table is \.csv, \.tsv or \.jsonl"):
        ItemTable(tmp_path / "t.xlsx", "item", ["title"])
    with pytest.raises(DataError, match="does not exist"):
        ItemTable(tmp_path / "t.csv", "item", ["title"])
    (tmp_path / "latin.csv").write_bytes("item,title\n1,é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv cannot be read"):
        ItemTable(tmp_path / "latin.csv", "item", ["title"])
    (tmp_path / "broken.jsonl").write_text('{"item": 1, "title": "a"}\n{"item": 2, "ti')
    with pytest.raises(DataError, match=r"broken\.jsonl: 1 of 2 records cannot be used"):
        ItemTable(tmp_path / "broken.jsonl", "item", ["title"])


def test_few_broken_json_lines_are_skipped_and_told(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    lines = [json.dumps({"item": n, "title": f"word{n % 7} all"}) for n in range(200)]
    path.write_text("\n".join([*lines[:90], '{"item": 7, "ti', *lines[90:]]), encoding="utf-8")
    given = [f"--items={path}", "--id_column=item", "--columns=title", "--model=tfidf"]
    assert run_command("encode", "text", *given, f"--out={tmp_path}/text_feat.npy") == 0
    told = capsys.readouterr().out
    assert f"skipped in {path}: 1 not a JSON object\n" in told and "200 items, 0 missing" in told
    ids = (tmp_path / "text_ids.txt").read_text("utf-8").split()
    assert ids == [str(n) for n in range(200)]


@pytest.mark.parametrize("first, last", [({"title": "a"}, {}), ({}, {"title": "a"})])
def test_a_key_that_a_whole_chunk_lacks(tmp_path, monkeypatch, first, last):
    monkeypatch.setattr(sources, "CHUNK", 2)
    path = tmp_path / "t.jsonl"
    rows = [{"item": n, **(first if n < 4 else last)} for n in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    table = ItemTable(path, "item", ["title"])
    assert list(table.blocks(8)) == [[row.get("title", "") for row in rows]]
    with pytest.raises(DataError, match=r"no column \[titel\]\. Did you mean 'title'"):
        ItemTable(path, "item", ["titel"])


def test_ids_of_json_stay_what_they_are(tmp_path):
    path = tmp_path / "t.jsonl"
    ids = [1, 10**23, 2**53 + 1, "007"]
    titles = ["a", 2.5, "cut \ud800 here", 10**23]
    rows = [{"item": item, "title": title} for item, title in zip(ids, titles)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    table = ItemTable(path, "item", ["title"])
    assert list(table.ids()) == list(map(str, ids))
    assert list(table.blocks(9)) == [["a", "2.5", "cut ? here", str(10**23)]]
    for token in (1.0, "\ud800", "a\tb", None, [1]):
        path.write_text("\n".join([*map(json.dumps, rows), json.dumps({"item": token})]))
        with pytest.raises(DataError, match=r"\[item\] is empty, no text .* in row\(s\) 5 "):
            ItemTable(path, "item", [])


def test_a_folder_of_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "10.jpeg"):
        (tmp_path / name).write_bytes(b"")
    folder = ImageFolder(tmp_path)
    assert list(folder.ids()) == ["10", "a", "b"] and len(folder) == 3
    assert [[p.name for p in block] for block in folder.blocks(2, 1)] == [["a.jpg", "b.PNG"]]
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="several images of item"):
        ImageFolder(tmp_path)
    for name in (b"a .jpg", b"a\rb.jpg", b"a\tb.jpg", b"\xff.jpg"):
        (tmp_path / "odd").mkdir()
        (tmp_path / "odd" / os.fsdecode(name)).touch()
        with pytest.raises(DataError, match=r"odd: without its suffix the name of .* is empty, no"):
            ImageFolder(tmp_path / "odd")
        shutil.rmtree(tmp_path / "odd")
    with pytest.raises(DataError, match="holds no image"):
        (tmp_path / "empty").mkdir()
        ImageFolder(tmp_path / "empty")
    with pytest.raises(DataError, match="there is no folder"):
        ImageFolder(tmp_path / "no")


# ---- the feature file ----------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    rows = [(f"i{row}", "x" * (row % 7), "") for row in range(50)]
    return ItemTable(write_table(tmp_path / "items.csv", rows), "item", ["title"])


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "text_feat.npy"


EXPECTED = np.array([[row % 7, (row % 7) ** 2] for row in range(50)], dtype=np.float16)


def is_whole(out: Path) -> bool:
    """Whether the files of ``table`` are right, and nothing else is there."""
    matrix = np.load(out, allow_pickle=False)
    ids = out.with_name("text_ids.txt").read_text("utf-8").split("\n")
    return (
        matrix.dtype == np.float16
        and np.array_equal(matrix, EXPECTED)
        and ids == [*(f"i{row}" for row in range(50)), ""]
        and len(list(out.parent.iterdir())) == 2
    )


def test_rows_and_ids(table, out):
    assert encode_rows(table, lengths, 8, out, "lengths") == {"empty": 8}
    assert is_whole(out)


def test_it_is_told_where_all_are_missing(table, out, tmp_path, caplog):
    encode_rows(table, lengths, 8, out, "lengths")
    assert "missing" not in caplog.text
    path = write_table(tmp_path / "e.csv", [("1", "", ""), ("2", "", "")])
    empty = ItemTable(path, "item", ["title"])
    encode_rows(empty, lengths, 1, out.with_name("e_feat.npy"), "lengths")
    assert "e_feat.npy: all 2 items are missing" in caplog.text


class Killed(BaseException):
    pass


def dying(after: int, seen: list):
    """``lengths``, which is killed at a block; what it was given goes to ``seen``."""

    def encode(values):
        if len(seen) == after:
            raise Killed
        seen.append(len(values))
        return lengths(values)

    return encode


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_a_killed_run_goes_on(table, out, after):
    with pytest.raises(Killed):
        encode_rows(table, dying(after, []), 8, out, "lengths")
    assert not out.exists() and not out.with_name("text_ids.txt").exists()
    seen: list[int] = []
    # It goes on with other blocks, and counts what was missing before.
    assert encode_rows(table, dying(99, seen), 5, out, "lengths") == {"empty": 8}
    assert sum(seen) == 50 - 8 * after
    assert is_whole(out)


def test_killed_at_the_end(table, out, monkeypatch):
    replace = os.replace

    def killed(source, target):
        if Path(target) == out:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        encode_rows(table, lengths, 8, out, "lengths")
    monkeypatch.setattr(os, "replace", replace)
    seen: list[int] = []
    assert encode_rows(table, dying(0, seen), 8, out, "lengths") == {"empty": 8}
    assert is_whole(out)


def test_killed_once_the_file_is_there(table, out, monkeypatch):
    """The next run refuses that file, and removes the folder in which it was written."""

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", killed)
        encode_rows(table, lengths, 8, out, "lengths")
    part = out.with_name(f".{out.name}.part")
    assert out.exists() and part.exists()
    with pytest.raises(DataError, match=f"{out.name} exists"):
        encode_rows(table, lengths, 8, out, "lengths")
    assert is_whole(out) and not part.exists()


def test_other_inputs_start_again(table, out, tmp_path):
    with pytest.raises(Killed):
        encode_rows(table, dying(3, []), 8, out, "lengths")
    seen: list[int] = []
    with pytest.raises(Killed):
        encode_rows(table, dying(2, seen), 8, out, "another encoder")
    write_table(table.path, [(f"i{row}", "x" * (row % 7), "!") for row in range(50)])
    seen = []
    encode_rows(table, dying(99, seen), 8, out, "another encoder")
    assert sum(seen) == 50 and is_whole(out)


@pytest.mark.parametrize("rows", ["other", "none"])
def test_what_another_run_left_is_no_progress(table, out, rows):
    """One with other inputs that fails at its first block, or rows that are gone."""
    with pytest.raises(Killed):
        encode_rows(table, dying(3, []), 8, out, "lengths")
    if rows == "other":
        with pytest.raises(DataError, match="not finite"):
            encode_rows(table, lambda v: (np.full((len(v), 9), 1e9), Counter()), 8, out, "wide")
    else:
        (out.with_name(f".{out.name}.part") / "rows.npy").unlink()
    assert encode_rows(table, lengths, 8, out, "lengths") == {"empty": 8}
    assert is_whole(out)


@pytest.mark.parametrize("name", ["rows.npy", "progress.json"])
@pytest.mark.parametrize("damage", ["cut", "a bit", "emptied", "other types"])
def test_progress_that_was_damaged_is_none(table, out, caplog, name, damage):
    """The rows are those of a run that was left alone, and a warning says that all are made."""
    with pytest.raises(Killed):
        encode_rows(table, dying(3, []), 8, out, "lengths")
    file = out.with_name(f".{out.name}.part") / name
    content = bytearray(file.read_bytes())
    if damage == "a bit":
        place = content.index(b'"done": ') + 8 if name == "progress.json" else 128
        content[place] ^= 1
    others = b"[" * 10**5 if name == "progress.json" else content.replace(b"<f2", b"<i2")
    file.write_bytes(
        {"cut": content[:-9], "emptied": b"", "other types": others}.get(damage, content)
    )
    seen = []
    encode_rows(table, dying(99, seen), 8, out, "lengths")
    assert sum(seen) == 50 and is_whole(out)
    assert "is damaged" in caplog.text and "encoded anew" in caplog.text


def test_progress_of_an_earlier_version_is_none(table, out, caplog):
    """It has no seal."""
    with pytest.raises(Killed):
        encode_rows(table, dying(3, []), 8, out, "lengths")
    file = out.with_name(f".{out.name}.part") / "progress.json"
    state = json.loads(file.read_text("utf-8"))
    del state["seal"]
    file.write_text(json.dumps(state), "utf-8")
    seen = []
    encode_rows(table, dying(99, seen), 8, out, "lengths")
    assert sum(seen) == 50 and is_whole(out)
    assert "made by an earlier version; all rows are encoded anew" in caplog.text
    assert "damaged" not in caplog.text


def test_ids_can_be_encoded_too(tmp_path):
    path = write_table(tmp_path / "t.csv", [("a", "x", ""), ("b", "y", "")])
    table = ItemTable(path, "item", ["item", "title"])
    assert list(table.blocks(9)) == [["a x", "b y"]]


def test_a_folder_that_cannot_be_written_is_told(table):
    with pytest.raises(DataError, match=r"x_feat\.npy cannot be written: .*name another file"):
        encode_rows(table, lengths, 8, Path("/proc/x_feat.npy"), "lengths")


def test_nothing_is_overwritten(table, out):
    ids = out.with_name("text_ids.txt")
    for content in (b"other\n", b"\xe9\n"):
        ids.write_bytes(content)
        with pytest.raises(DataError, match="with other items; move it away"):
            encode_rows(table, lengths, 8, out, "lengths")
        assert ids.read_bytes() == content
    ids.write_text("".join(f"i{row}\n" for row in range(50)), encoding="utf-8")
    encode_rows(table, lengths, 8, out, "lengths")
    with pytest.raises(DataError, match="exists; move it away"):
        encode_rows(table, lengths, 8, out, "lengths")
    assert is_whole(out)


def test_two_processes_do_not_write_one_file(table, out):
    part = out.with_name(f".{out.name}.part")
    part.mkdir()
    with FileLock(part / "lock"), pytest.raises(DataError, match="by another process"):
        encode_rows(table, lengths, 8, out, "lengths")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk_is_told_and_a_second_run_finishes(table, out, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(DataError, match="No space left on device; make space"):
            encode_rows(table, lengths, 8, out, "lengths")
    assert not out.exists()
    encode_rows(table, lengths, 8, out, "lengths")
    assert is_whole(out)


def test_space_is_reserved(tmp_path):
    store._allocate(tmp_path / "a.npy", (1000, 64))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1000 * 64 * 2


MEASURE = """
import resource, sys
from collections import Counter
from pathlib import Path
import numpy as np
from recbole_sigrec.encode import ItemTable
from recbole_sigrec.encode.store import encode_rows

def encode(texts):
    return np.ones((len(texts), 512)), Counter()

for n in (1_000, 25_000):
    path = Path(f"{n}.csv")
    with open(path, "w") as file:
        file.write("item,title\\n")
        file.writelines(f"i{row},{'word ' * 40}\\n" for row in range(n))
    encode_rows(ItemTable(path, "item", ["title"]), encode, 250, Path(f"{n}_feat.npy"), "")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_rows():
    """25 times the rows, 23 MB more of features and 5 MB more of texts."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=300, check=True
    )
    small, large = (int(kilobytes) / 1024 for kilobytes in done.stdout.split())
    assert Path("25000_feat.npy").stat().st_size > 24 * 2**20
    assert large - small < 8


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_values_beyond_float16_are_refused(table, out, value):
    with pytest.raises(DataError, match="not finite in float16"):
        encode_rows(table, lambda v: (np.full((len(v), 2), value), Counter()), 8, out, "x")
    assert not out.exists()


# ---- texts ---------------------------------------------------------------------------------------

TEXTS = ["red shoe", "red shirt", "", "green shirt", "  ", "green shoe tall", "!!!"]


def test_tfidf(tmp_path):
    rows = encode_text(TEXTS, model="tfidf")
    assert rows.dtype == np.float16 and rows.shape == (7, 4)
    assert rows.any(axis=1).tolist() == [True, True, False, True, False, True, False]
    again = encode_text(TEXTS, model="tfidf", out=tmp_path / "a.npy")
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(again, rows)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.npy", "a_encoder.safetensors"]


def test_tfidf_learns_from_a_part_of_many(monkeypatch, tmp_path):
    """The rows are those of scikit-learn, fitted on that part, in blocks of any size."""
    texts = [f"w{n % 7} w{n % 11} v{n}" for n in range(300)]
    monkeypatch.setattr(encoders, "LEARNED_FROM", 100)
    monkeypatch.setattr(text.TfidfTexts, "size", 7)
    rows = encode_text(texts, model="tfidf")
    [part] = {tuple(encoders._sample(iter(texts), 100, seed=0)) for _ in range(2)}
    places = [texts.index(one) for one in part]
    assert places == sorted(set(places)) and len(part) == 100 and max(places) > 250
    words = TfidfVectorizer(sublinear_tf=True).fit(part)
    svd = TruncatedSVD(100, random_state=0).fit(words.transform(part))
    expected = svd.transform(words.transform(texts))
    rows = rows.astype(np.float64)  # directions of one singular value may be turned
    np.testing.assert_allclose(rows @ rows.T, expected @ expected.T, atol=5e-3)
    table = write_table(tmp_path / "items.csv", [(str(n), one, "") for n, one in enumerate(texts)])
    given = [f"--items={table}", "--id_column=item", "--columns=title,text", "--model=tfidf"]
    assert run_command("encode", "text", *given, f"--out={tmp_path}/text_feat.npy") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "text_feat.npy"), rows)


def test_blank_texts_take_no_place_in_what_is_learned(monkeypatch):
    monkeypatch.setattr(encoders, "LEARNED_FROM", 3)
    texts = ["", " "] * 500 + ["red shoe", "green shirt"]
    assert encode_text(texts, model="tfidf").any(axis=1).tolist() == [False] * 1000 + [True] * 2


def test_an_existing_file_is_refused_before_anything_is_learned(monkeypatch, tmp_path):
    monkeypatch.setattr(text.TfidfTexts, "learn", None)
    (tmp_path / "a.npy").touch()
    with pytest.raises(DataError, match="exists; move it away"):
        encode_text(TEXTS, model="tfidf", out=tmp_path / "a.npy")


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 9))
def test_a_sample_is_a_part_in_order(n, size, seed):
    sample = encoders._sample(map(str, range(n)), size, seed)
    assert sample == sorted(set(sample), key=int) and len(sample) == min(n, size)


def test_a_sample_is_uniform():
    """Each of 10 values is in a sample of 4 with probability .4: in 4000, within 4 deviations."""
    counts = Counter(one for seed in range(4000) for one in encoders._sample("abcdefghij", 4, seed))
    assert all(abs(count - 1600) < 4 * (4000 * 0.4 * 0.6) ** 0.5 for count in counts.values())


def test_without_the_library_tfidf_is_used_and_told(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(encode_text(TEXTS), encode_text(TEXTS, model="tfidf"))
    assert "TF-IDF and truncated SVD instead; for a sentence encoder: pip install" in caplog.text
    with pytest.raises(SIGRecError, match=r'pip install "recbole_sigrec\[text\]"'):
        encode_text(TEXTS, model="all-MiniLM-L6-v2")


class FakeModel:
    """A sentence encoder: how many characters, and how many words."""

    def __init__(self):
        self.given = []

    def encode(self, texts, batch_size, show_progress_bar):
        self.given.append(list(texts))
        return np.array([[len(t), len(t.split())] for t in texts], dtype=np.float32)


def test_texts_that_are_none_are_missing(monkeypatch):
    monkeypatch.setattr(text, "LONGEST", 12)
    model = FakeModel()
    encode = text.Sentences(model, 4, "fake").encode
    rows, missing = encode(["a b", "", "x" * 13, " \n", "y" * 12])
    assert rows.tolist() == [[3, 2], [0, 0], [0, 0], [0, 0], [12, 1]]
    assert missing == {"empty": 2, "over 12 characters": 1}
    assert model.given == [["", "a b", "y" * 12]]
    rows, missing = encode(["", ""])
    assert rows.tolist() == [[0, 0], [0, 0]] and missing == {"empty": 2}


def test_a_data_set_trains_with_encoded_texts(tmp_path, capsys):
    """The ids go with the rows: the table is in another order than the interactions."""
    folder = write_mmrec(tmp_path / "data", modalities={})
    order = np.random.default_rng(0).permutation(20)
    rows = [(str(item), f"word{item} all", "") for item in order]
    table = write_table(tmp_path / "items.csv", rows)
    given = [f"--items={table}", "--id_column=item", "--columns=title,text", "--model=tfidf"]
    assert run_command("encode", "text", *given, f"--out={folder}/text_feat.npy") == 0
    assert capsys.readouterr().out == f"{folder}/text_feat.npy: 20 items, 0 missing\n"
    dataset = load(folder)
    written = np.load(folder / "text_feat.npy", allow_pickle=False)
    tokens = dataset.field2id_token["item_id"].astype(str)
    for row, item in enumerate(order):
        [place] = np.flatnonzero(tokens == str(item))
        np.testing.assert_array_equal(dataset.modality_features["text"][place], written[row])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["audio"], "invalid choice: 'audio'"),
        (["text"], "required: --items, --id_column, --columns, --out"),
        (["image", "--out=a_feat.npy"], "one of the arguments --items --folder is required"),
        (["image", "--folder=.", "--items=a.csv", "--out=a_feat.npy"], "not allowed with"),
        (["image", "--items=a.csv", "--out=a_feat.npy"], "needs --id_column and --path_column"),
        (["image", "--folder=.", "--id_column=a", "--out=a_feat.npy"], "takes no --id_column"),
        (["image", "--folder=.", "--out=a.npy"], "name it <modality>_feat.npy"),
        (["image", "--folder=.", "--out=no/a_feat.npy"], "there is no folder [no]"),
        (["image", "--folder=.", "--out=a_feat.npy", "--batch_size=0"], "not a positive number"),
        (["text", "--folder=.", "--out=a_feat.npy"], "required: --items"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    assert run_command("encode", *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory) -> Path:
    """A folder with a sentence-transformers model of random weights."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "shoe", "shirt", "tall"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    config = transformers.BertConfig(
        **{"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32},
    )
    transformers.BertModel(config).save_pretrained(folder / "bert")
    sentence_transformers.SentenceTransformer(str(folder / "bert")).save(str(folder / "whole"))
    return folder / "whole"


def test_sentence_encoder(sentence_model, monkeypatch):
    from sentence_transformers import SentenceTransformer

    rows = encode_text(TEXTS, model=str(sentence_model), batch_size=1)
    expected = SentenceTransformer(str(sentence_model)).encode(TEXTS)
    assert rows.dtype == np.float16 and rows.shape == (7, 16)
    present = [0, 1, 3, 5, 6]  # "!!!" is a text to a tokenizer
    np.testing.assert_allclose(rows[present], expected[present], atol=2e-3)
    assert not rows[[2, 4]].any()
    monkeypatch.setattr(text, "DEFAULT_MODEL", str(sentence_model))
    np.testing.assert_array_equal(encode_text(TEXTS, batch_size=1), rows)
    cut = encode_text(["red green shoe tall"], max_tokens=4)  # two of them are [CLS] and [SEP]
    np.testing.assert_allclose(cut, encode_text(["red green"]), atol=2e-3)
    assert np.abs(cut - encode_text(["red green shoe tall"])).max() > 0.05


def test_a_sentence_encoder_is_used_again(sentence_model, tmp_path):
    given = {"model": str(sentence_model), "batch_size": 1}
    rows = encode_text(TEXTS, **given, max_tokens=4, out=tmp_path / "text_feat.npy")
    again = encode_text(TEXTS[::-1], batch_size=1, like=tmp_path / "text_feat.npy")
    np.testing.assert_allclose(again[::-1], rows, atol=2e-3)
    assert np.abs(rows - encode_text(TEXTS, **given)).max() > 0.05
    other = shutil.copytree(sentence_model, tmp_path / "other")
    np.testing.assert_array_equal(
        encode_text(TEXTS, str(other), 1, like=tmp_path / "text_feat.npy"), rows
    )
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(str(sentence_model))
    next(network.parameters()).data += 1e-3
    network.save(str(tmp_path / "tuned"))
    with pytest.raises(DataError, match=r"model \[.*/tuned\], .*: weights differ"):
        encode_text(TEXTS, str(tmp_path / "tuned"), like=tmp_path / "text_feat.npy")


def test_a_model_that_cannot_be_loaded(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(SIGRecError, match=r"model \[.*\] cannot be loaded: .* name a folder"):
        encode_text(TEXTS, model=str(tmp_path))
    with pytest.raises(SIGRecError, match="there is no such folder"):
        encode_text(TEXTS, model="./no")


def test_a_table_that_is_read_otherwise_is_another_source(tmp_path):
    """A killed run must not go on with rows of the other encoding."""
    path = tmp_path / "t.csv"
    path.write_bytes("id,title\n1,Größe\n".encode())
    digests = {
        ItemTable(path, "id", ["title"], form=TextForm(encoding=encoding)).digest()
        for encoding in (None, "utf-8", "latin-1")
    }
    assert len(digests) == 3
