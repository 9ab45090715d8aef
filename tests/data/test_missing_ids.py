"""Rows of atomic files that lack a user or an item: they are left out, and no other row is."""

from __future__ import annotations

import logging

from helpers_data import interactions, load, write_atomic


def test_rows_without_an_id_are_left_out_and_told(tmp_path, caplog):
    """Once a row without a user is gone, RecBole drops others than those without an item."""
    folder = write_atomic(tmp_path, frame=interactions())
    file = folder / "atomic.inter"
    head, *rows = file.read_text("utf-8").splitlines()
    bad = {5: "\ti3", 40: "u3\t", 90: "u7\t", len(rows) + 2: "u1\t"}
    for place, row in sorted(bad.items()):
        rows.insert(place, row)
    file.write_text("\n".join([head, *rows]) + "\n", "utf-8")
    with caplog.at_level(logging.WARNING):
        dataset = load(folder, state="WARNING")
    users, items = (dataset.inter_feat[field].to_numpy() for field in ("user_id", "item_id"))
    found = {
        (dataset.id2token("user_id", u), dataset.id2token("item_id", i))
        for u, i in zip(users, items)
    }
    whole = {tuple(row.split("\t")) for place, row in enumerate(rows) if place not in bad}
    assert found == whole and len(users) == len(whole)
    assert "rows without [user_id] are left out: lines 7" in caplog.text
    assert "rows without [item_id] are left out: lines 42, 92, 148" in caplog.text
