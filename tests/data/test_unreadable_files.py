"""Files that cannot be read: each reader names the file, and raises nothing else."""

from __future__ import annotations

import os

import numpy as np
import pytest

from recbole_sigrec.data.encoder_files import read_encoder
from recbole_sigrec.data.encoders import read_item_columns
from recbole_sigrec.data.features import read_ids
from recbole_sigrec.data.interactions import header, read_split_interactions
from recbole_sigrec.data.matrix_files import read_features
from recbole_sigrec.encode.sources import ItemTable
from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.importers.sparse_pickle import read_matrix
from recbole_sigrec.preparation.importers.table import Columns, read_table


def table(path):
    return read_table(path, Columns("u", "i"))


READERS = {
    "a_feat.npy": read_features,
    "a_feat.npz": read_features,
    "a_feat.safetensors": read_features,
    "a_ids.txt": read_ids,
    "a_ids.csv": read_ids,
    "a_ids.npy": read_ids,
    "a_encoder.safetensors": lambda path: read_encoder(path, "tfidf"),
    "a.inter": header,
    "b.inter": lambda path: read_split_interactions(path, "userID", "itemID", "x_label"),
    "a.item": lambda path: read_item_columns(path, "item_id", ["title"]),
    "a.pkl": read_matrix,
    "t.csv": table,
    "t.csv.gz": table,
    "t.tsv": table,
    "t.jsonl.gz": table,
    "t.parquet": table,
    "u.csv": lambda path: ItemTable(path, "i", ["u"]),
}
"""Name of a file → its reader."""


@pytest.mark.parametrize("what", ["absent", "a folder", "empty", "NUL bytes", "not to be read"])
@pytest.mark.parametrize("name", READERS)
def test_unreadable_files_are_named(tmp_path, name, what):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    if what == "a folder":
        path.mkdir()
    elif what == "not to be read":
        if os.geteuid() == 0:
            pytest.skip("root may read every file")
        path.write_text("u,i\na,b\n")
        path.chmod(0)
    elif what != "absent":
        path.write_bytes(b"\0" * 100 if what == "NUL bytes" else b"")
    with pytest.raises(DataError, match=rf"{name}"):
        READERS[name](path)


def test_ids_whose_text_is_broken(tmp_path):
    path = tmp_path / "a_ids.npy"
    np.save(path, np.array(["a", "b"]))
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(DataError, match=r"a_ids\.npy cannot be read"):
        read_ids(path)


def test_a_row_longer_than_the_header_of_interactions(tmp_path):
    path = tmp_path / "a.inter"
    path.write_text("userID\titemID\tt\tx_label\n\tu\ti\t0.5\t0\nu\tj\t0.5\t1\n")
    with pytest.raises(DataError, match=r"a\.inter: its first row has more values"):
        read_split_interactions(path, "userID", "itemID", "x_label")


@pytest.mark.parametrize("name", ["userID", "itemID", "x_label"])
def test_a_column_that_the_header_of_interactions_names_twice(tmp_path, name):
    path = tmp_path / "a.inter"
    path.write_text(f"userID\titemID\tx_label\t{name}\nu\ti\t0\t1\nv\tj\t0\t1\n")
    with pytest.raises(DataError, match=rf"a\.inter has 2 columns \[{name}\]; rename the others"):
        read_split_interactions(path, "userID", "itemID", "x_label")


def test_another_column_may_be_there_twice(tmp_path):
    path = tmp_path / "a.inter"
    path.write_text("userID\tt\titemID\tx_label\tt\nu\t1\ti\t0\t2\nv\t1\tj\t0\t2\n")
    frame, sizes = read_split_interactions(path, "userID", "itemID", "x_label")
    assert frame.values.tolist() == [["u", "i"], ["v", "j"]] and sizes == [2, 0, 0]


def test_the_header_of_interactions_has_a_limit(tmp_path):
    path = tmp_path / "a.inter"
    first = "userID\t"
    path.write_text(first + "x" * (2**17 - len(first)) + "\n")
    assert [len(column) for column in header(path)] == [6, 2**17 - len(first)]
    path.write_text(first + "x" * 2**20)
    with pytest.raises(DataError, match=r"a\.inter has more than 131,072 characters") as caught:
        header(path)
    assert len(str(caught.value)) < 500
