"""Pairs that occur more than once, and columns that could be taken for weights: what is said."""

from __future__ import annotations

import logging

import pytest

from recbole_sigrec.cli import run_command
from recbole_sigrec.data.dataset import interactions_of
from recbole_sigrec.data.parts import create_dataset
from recbole_sigrec.errors import DataError


@pytest.fixture
def repeated(tmp_path):
    """20 users with 6 items each, of which each user repeats the first three once."""
    pairs = [(f"u{u}", f"i{(u + n) % 10}") for u in range(20) for n in range(6)]
    pairs += [(f"u{u}", f"i{(u + n) % 10}") for u in range(20) for n in range(3)]
    folder = tmp_path / "data" / "twice"
    folder.mkdir(parents=True)
    lines = [f"{user}\t{item}\t{n % 5}\t{n}\n" for n, (user, item) in enumerate(pairs)]
    head = "user_id:token\titem_id:token\tweight:float\ttimestamp:float\n"
    (folder / "twice.inter").write_text(head + "".join(lines))
    (tmp_path / "t.csv").write_text("u,i,w,t\n" + "".join(lines).replace("\t", ","))
    return folder


def dataset(make_config, folder, **keys):
    return create_dataset(make_config("BPR", folder, state="INFO", **keys))


def test_weights_and_repeated_pairs_are_told(repeated, make_config, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(DataError, match=r"repeat 60 pair\(s\).*rm_dup_inter: first"):
        dataset(make_config, repeated)
    assert "twice.inter: weight: no weight, every interaction counts once" in caplog.text
    once = dataset(make_config, repeated, rm_dup_inter="first")
    assert len(once.inter_feat) == 120
    assert "60 interactions repeat a pair of user and item, and are left out" in caplog.text
    twice = dataset(make_config, repeated, repeatable=True, negative_items="all")
    assert len(twice.inter_feat) == 180
    assert "60 interactions repeat a pair of user and item (repeatable)" in caplog.text
    matrix = interactions_of(twice)
    assert matrix.nnz == 120 and set(matrix.data) == {1.0}


def test_nothing_is_told_of_a_file_without(planted, make_config, caplog):
    caplog.set_level(logging.INFO)
    dataset(make_config, planted.folder)
    assert "planted.inter: rating: no weight" in caplog.text and "repeat" not in caplog.text


@pytest.mark.parametrize("rating", [True, False])
def test_import_counts_repeated_pairs(repeated, capsys, rating):
    told = ["t.csv", "--format=table", "--name=made", "--user=u", "--item=i", "--timestamp=t"]
    assert run_command("import", *told, *["--rating=w"] * rating) == 0
    out = capsys.readouterr().out
    assert "60 interactions repeat a pair; each pair counts once\n" in out
    assert ("ratings are no weights" in out) == rating
