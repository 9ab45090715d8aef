"""How long a user's or item's token may be."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_data import load

from recbole_sigrec.cli import run_command
from recbole_sigrec.errors import DataError
from recbole_sigrec.tables.tokens import LONGEST, is_token


def write(folder, token, typed, column):
    """20 users with 5 items each; one of the tokens is the given one."""
    folder.mkdir(parents=True)
    names = {"user": [f"u{n}" for n in range(20)], "item": [f"i{n}" for n in range(10)]}
    names[column][3] = token
    head = "user_id:token\titem_id:token\n" if typed else "userID\titemID\tx_label\n"
    lines = [
        f"{names['user'][u]}\t{names['item'][(u + k) % 10]}" + ("\n" if typed else f"\t{k % 3}\n")
        for u in range(20)
        for k in range(5)
    ]
    (folder / f"{folder.name}.inter").write_text(head + "".join(lines))
    return folder


@pytest.mark.parametrize("column", ["user", "item"])
@pytest.mark.parametrize("typed", [True, False])
def test_tokens_of_a_data_set(tmp_path, typed, column):
    folder = write(tmp_path / "data" / "fits", "x" * LONGEST, typed, column)
    dataset = load(folder)
    assert dataset.token2id(f"{column}_id", "x" * LONGEST) > 0
    folder = write(tmp_path / "data" / "long", "x" * (LONGEST + 1), typed, column)
    with pytest.raises(DataError, match=r"long\.inter has .* 501 characters, \[x+…\]; at most 500"):
        load(folder)


def test_tokens_of_tables(tmp_path, capsys):
    assert is_token("x" * LONGEST) and not is_token("x" * (LONGEST + 1))
    (tmp_path / "t.csv").write_text("u,i\na,b\na," + "x" * 10**6 + "\n")
    told = ["t.csv", "--format=table", "--name=made", "--user=u", "--item=i"]
    assert run_command("import", *told) == 2
    error = capsys.readouterr().err
    assert "in row 2" in error and "up to 500 characters" in error and len(error) < 1000


def test_tokens_of_cold_items(tmp_path):
    folder = write(tmp_path / "data" / "cold", "x", True, "item")
    (folder / "cold_items.txt").write_text("x" * 10**6 + "\n")
    with pytest.raises(DataError, match=r"cold_items\.txt has .*1,000,000 characters"):
        load(folder)
    (folder / "cold_items.txt").write_text("new\n")
    np.testing.assert_array_equal(load(folder).cold_items, ["new"])
