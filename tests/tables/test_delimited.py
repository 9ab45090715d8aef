"""Tables of text as people have them: other separators, encodings and times, and parts."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from recbole_sigrec.cli import run_command
from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.importers import import_data
from recbole_sigrec.preparation.importers.table import Columns, read_table
from recbole_sigrec.tables.delimited import FOUND_OUT, TextForm, text_frames
from recbole_sigrec.tables.frames import frames
from recbole_sigrec.tables.item_columns import item_columns
from recbole_sigrec.tables.records import Skipped

ROWS = [("Größe", 'a,b;c "d"'), ("7", "x|y"), ("07", ""), ("é\tf", "line\nend")]


def written(path, separator=",", encoding="utf-8"):
    """ROWS as a table, values quoted where they need it."""
    frame = pd.DataFrame(ROWS, columns=["id", "text"])
    frame.to_csv(path, sep=separator, encoding=encoding, index=False)
    return path


def read(path, form=FOUND_OUT, names=("id", "text")):
    found = pd.concat(list(frames(path, list(names), Skipped(path), 3, form)))
    return [tuple(row) for row in found.itertuples(index=False)]


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_separator_and_encoding_are_found_out(tmp_path, separator, encoding, gz):
    path = written(tmp_path / "t.csv", separator, encoding)
    if gz:
        path = tmp_path / "t.csv.gz"
        path.write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    assert read(path) == ROWS


@pytest.mark.parametrize("separator", [",", ";", "tab", "\\t", "|", "~"])
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "UTF8"])
def test_separator_and_encoding_are_as_said(tmp_path, separator, encoding):
    form = TextForm(separator, encoding)
    path = written(tmp_path / "t.csv", form.separator, encoding)
    assert read(path, form) == ROWS


def test_a_given_separator_reads_any_suffix_without_quotes(tmp_path):
    path = tmp_path / "t.dat"
    path.write_text('id|text\n"a|b\n', "utf-8")
    assert read(path, TextForm("|")) == [('"a', "b")]
    with pytest.raises(DataError, match=r"suffix \[\.dat\].*--separator"):
        read(path)


def test_a_separator_is_not_guessed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id~text\na~b\n", "utf-8")
    with pytest.raises(DataError, match=r"no column \[id\].*--separator or --encoding"):
        read(path)
    path.write_text("id;id|x\na;b|c\n", "utf-8")
    assert read(path, names=["id"]) == [("a",)]  # only by the semicolon
    path.write_text("x;id|id;y\na;b|c;d\n", "utf-8")  # by neither
    with pytest.raises(DataError, match=r"no column \[id\]"):
        read(path, names=["id"])


def test_another_encoding_is_told(tmp_path):
    with pytest.raises(DataError, match=r"no text in UTF-8.*--encoding=cp1252"):
        read(written(tmp_path / "t.csv", encoding="cp1252"))
    with pytest.raises(DataError, match=r"no text in ascii.*--encoding"):
        read(written(tmp_path / "t.csv"), TextForm(encoding="ascii"))
    json = tmp_path / "t.jsonl"
    json.touch()
    with pytest.raises(DataError, match="separator and encoding are those of"):
        read(json, TextForm(encoding="ascii"))


@pytest.mark.parametrize("bad", ["", "::", '"', "\n", "§"])
def test_bad_separators(bad):
    with pytest.raises(DataError, match=r"(?s)separator .* must be one ASCII character"):
        TextForm(separator=bad)


@pytest.mark.parametrize("bad", ["utf-9", "rot13", "base64"])
def test_bad_encodings(bad):
    with pytest.raises(DataError, match=rf"encoding \[{bad}\] is unknown"):
        TextForm(encoding=bad)


def test_times_in_a_format(tmp_path):
    times = pd.to_datetime(["2014-07-23 10:05:00", "2014-08-01 00:00:00", "2013-12-31 23:59:59"])
    path, form = tmp_path / "t.csv", "%d.%m.%Y %H:%M:%S"
    frame = pd.DataFrame({"u": ["a"] * 3, "i": list("xyz"), "t": times.strftime(form)})
    frame.to_csv(path, index=False)
    columns = Columns("u", "i", timestamp="t", time_format=form)
    *_, places = next(read_table(path, columns).pairs.placed(per_user=True))
    assert places.tolist() == np.argsort(np.argsort(times)).tolist() == [1, 2, 0]
    with pytest.raises(DataError, match=r"\[t\].*row 1.*--time_format"):
        read_table(path, Columns("u", "i", timestamp="t"))
    frame.loc[1, "t"] = "2014-08-01"
    frame.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"\['2014-08-01'\] in row 2.*as %d\.%m"):
        read_table(path, columns)


@pytest.mark.parametrize("bad", ["dd.mm.yyyy", "", "%d.%Q", "ISO8601"])
def test_bad_formats_of_times(bad):
    with pytest.raises(DataError, match=r"time_format .* cannot be used"):
        Columns("u", "i", timestamp="t", time_format=bad)
    with pytest.raises(DataError, match="--timestamp"):
        Columns("u", "i", time_format="%d")


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("%d.%m", "no year"),
        ("%d.%m. %H:%M", "no year"),
        ("%%Y-%m-%d", "no year"),  # a percent sign and a Y
        ("%Y-%m-%d %H:%M %p", "%p counts only beside %I"),
    ],
)
def test_formats_of_times_that_would_mix_times_up(form, says):
    with pytest.raises(DataError, match=rf"time_format .* cannot be used \(.*{says}"):
        Columns("u", "i", timestamp="t", time_format=form)


@pytest.mark.parametrize(
    "form", ["%d.%m.%y", "%G-%V-%u", "%c", "%x", "%Y-%m-%d %I:%M %p", "%Y %%p"]
)
def test_formats_of_times_with_a_year(form):
    assert Columns("u", "i", timestamp="t", time_format=form).time_format == form


def test_a_folder_of_parquet_parts(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"u": list("aabbcc"), "i": list("xyxyxy"), "part": [0, 1, 2] * 2})
    (tmp_path / "parts").mkdir()
    frame[:4].to_parquet(tmp_path / "parts" / "part-00000.parquet")
    frame[4:].to_parquet(tmp_path / "parts" / "part-00001.parquet")
    (tmp_path / "parts" / "_SUCCESS").touch()
    (tmp_path / "parts" / "_metadata.parquet").touch()
    frame.to_parquet(tmp_path / "whole.parquet")
    columns = Columns("u", "i", split="part")
    whole = import_data(tmp_path / "whole.parquet", "whole", "table", "out", columns)
    parts = import_data(tmp_path / "parts", "parts", "table", "out", columns)
    assert whole["files"]["whole.inter"] == parts["files"]["parts.inter"]
    assert [file["file"].rpartition("/")[2] for file in parts["source"]["files"]] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert item_columns(tmp_path / "parts", "u", ["i"], ["c"]) == {"i": ["y"]}
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="without"):
        read_table(tmp_path / "none", columns)


def test_the_command_takes_the_form_of_a_table(tmp_path, capsys):
    lines = [f"u{u};Größe{i};{i}.1.2020\n" for u in range(4) for i in range(1, 6)]
    (tmp_path / "t.csv").write_bytes(("u;i;t\n" + "".join(lines)).encode("cp1252"))
    told = ["t.csv", "--format=table", "--name=made", "--user=u", "--item=i", "--timestamp=t"]
    assert run_command("import", *told) == 2
    assert "--encoding=cp1252" in capsys.readouterr().err
    told += ["--encoding=cp1252", "--time_format=%d.%m.%Y", "--split=leave-one-out"]
    assert run_command("import", *told) == 0
    made = (tmp_path / "dataset" / "made" / "made.inter").read_text("utf-8").splitlines()
    assert [line for line in made if line.endswith("\t2")] == [f"u{u}\tGröße5\t2" for u in range(4)]
    capsys.readouterr()
    assert run_command("import", "t.csv", "--format=table", "--name=x", "--time=t") == 2
    assert "--time=t. Did you mean '--timestamp'?" in capsys.readouterr().err


def test_the_texts_of_a_table_in_another_encoding(tmp_path, capsys):
    (tmp_path / "t.txt").write_bytes("id~text\na~grüne Schuhe\nb~rote Hosen\n".encode("cp1252"))
    told = ["text", "--items=t.txt", "--id_column=id", "--columns=text", "--model=tfidf"]
    told += ["--separator=~", "--out=text_feat.npy"]
    assert run_command("encode", *told) == 2
    assert "--encoding=cp1252" in capsys.readouterr().err
    assert run_command("encode", *told, "--encoding=cp1252") == 0
    assert (tmp_path / "text_ids.txt").read_text("utf-8") == "a\nb\n"


# ---- headers -------------------------------------------------------------------------------------


def test_a_column_that_is_named_twice_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("user,item,user\n1,2,3\n", "utf-8")
    with pytest.raises(DataError, match=r"t\.csv has 2 columns \[user\]; rename the others"):
        list(text_frames(path, ["user", "item"], 10, FOUND_OUT, ",", True))
    (frame,) = text_frames(path, ["item"], 10, FOUND_OUT, ",", True)
    assert frame["item"].tolist() == ["2"]
    path.write_text("user;user;item\n1;2;3\n", "utf-8")
    with pytest.raises(DataError, match=r"t\.csv has 2 columns \[user\]"):
        list(text_frames(path, ["user", "item"], 10, FOUND_OUT, ",", True))


@pytest.mark.parametrize("text", ["user,item\r1,2\r3,4\r", "\n\nuser,item\n1,2\n3,4\n"])
def test_old_line_ends_and_empty_lines(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    (frame,) = text_frames(path, ["item", "user"], 10, FOUND_OUT, ",", True)
    assert frame.to_numpy().tolist() == [["2", "1"], ["4", "3"]]


def test_a_first_line_of_megabytes_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("user,item," + "x," * 10**6, "utf-8")
    with pytest.raises(DataError, match=r"more than 131,072 characters in its first line"):
        list(text_frames(path, ["user", "item"], 10, FOUND_OUT, ",", True))


def test_a_table_of_many_columns_is_told_by_the_first(tmp_path):
    names = ["y" * 1000, *(f"c{number}" for number in range(10_000))]
    path = tmp_path / "t.csv"
    path.write_text(",".join(names) + "\n", "utf-8")
    with pytest.raises(DataError) as caught:
        read(path, names=["id"])
    told = f"It has: {'y' * 80}, c0, c1, c2, c3, … (10001 in all)"
    assert told in str(caught.value) and len(str(caught.value)) < 500
