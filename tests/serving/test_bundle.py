"""Bundles on the disk: whole or not there, and refused where a byte is another."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from helpers_bundles import random_bundle
from safetensors import SafetensorError

from recbole_sigrec.errors import DataError
from recbole_sigrec.serving import bundle as bundles
from recbole_sigrec.serving.bundle import read_bundle, sha256, write_bundle

FILES = ["arrays.safetensors", "columns.json", "items.json", "users.json", "manifest.json"]


@pytest.fixture
def shop(tmp_path):
    write_bundle(random_bundle(), tmp_path / "shop.rec")
    return tmp_path / "shop.rec"


def test_what_is_written_is_read(shop, tmp_path):
    bundle, again = random_bundle(), read_bundle(shop)
    assert (again.users, again.items, again.columns) == (
        bundle.users,
        bundle.items,
        bundle.columns,
    )
    assert set(again.arrays) == set(bundle.arrays)
    for name, array in bundle.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
        assert again.arrays[name].dtype == array.dtype
    assert again.manifest["model"] == "SIGRec" and again.manifest["format"] == bundles.FORMAT
    assert sorted(again.manifest["files"]) == sorted(set(FILES) - {"manifest.json"})
    assert sorted(os.listdir(tmp_path)) == [".shop.rec.lock", "shop.rec"]
    write_bundle(again, tmp_path / "copy.rec")
    assert sha256(tmp_path / "copy.rec/users.json") == sha256(shop / "users.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_refused(shop, name, where):
    content = bytearray((shop / name).read_bytes())
    place = min(int(where * len(content)), len(content) - 1)
    content[place] ^= 1
    (shop / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} was changed"):
        read_bundle(shop)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_refused(shop, name):
    content = (shop / name).read_bytes()
    (shop / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=f"{name} was changed"):
        read_bundle(shop)


@pytest.mark.parametrize("name", [*FILES, "manifest.sha256"])
def test_a_missing_file_is_named(shop, name):
    (shop / name).unlink()
    with pytest.raises(DataError, match=f"lacks (its file )?{name}"):
        read_bundle(shop)


def test_a_newer_format_names_the_remedy(shop):
    manifest = json.loads((shop / "manifest.json").read_text("utf-8"))
    manifest["format"] = 99
    (shop / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(DataError, match=r"is of format 99, .* up to 1; update recbole_sigrec"):
        read_bundle(shop)


def test_no_bundle(tmp_path):
    with pytest.raises(DataError, match=r"bundle \[.*nothing\] does not exist"):
        read_bundle(tmp_path / "nothing")
    with pytest.raises(
        DataError, match=r"is no bundle, or not a whole one: it lacks manifest\.json"
    ):
        read_bundle(tmp_path)


def test_nothing_is_overwritten_but_a_bundle_and_by_force(shop, tmp_path):
    before = {name: sha256(shop / name) for name in FILES}
    with pytest.raises(DataError, match=r"is there already, and is not overwritten.*--force"):
        write_bundle(random_bundle("graph", seed=1), shop)
    assert {name: sha256(shop / name) for name in FILES} == before
    write_bundle(random_bundle("graph", seed=1), shop, force=True)
    assert "users.vectors" not in read_bundle(shop).arrays
    other = tmp_path / "photos"
    other.mkdir()
    (other / "one.jpg").write_text("x")
    with pytest.raises(DataError, match="is no bundle, and so is not replaced"):
        write_bundle(random_bundle(), other, force=True)
    assert os.listdir(other) == ["one.jpg"]


def test_a_failed_export_leaves_the_earlier_bundle(shop, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundles, "sha256", full)
    for target in (shop, tmp_path / "new.rec"):
        with pytest.raises(DataError, match="No space left on device"):
            write_bundle(random_bundle("graph"), target, force=True)
    monkeypatch.undo()
    assert "users.vectors" in read_bundle(shop).arrays
    assert {name for name in os.listdir(tmp_path) if not name.endswith(".lock")} == {"shop.rec"}


def test_a_full_disk_is_told_by_the_arrays_too(tmp_path, monkeypatch):
    def full(arrays, path):
        raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(DataError, match=r"new\.rec was not written: .*File too large"):
        write_bundle(random_bundle(), tmp_path / "new.rec")
    assert {name for name in os.listdir(tmp_path) if not name.endswith(".lock")} == set()


def test_a_bundle_may_be_moved(shop, tmp_path):
    shutil.move(shop, tmp_path / "else where.rec")
    assert read_bundle(tmp_path / "else where.rec").users == random_bundle().users


def test_hostile_tokens_survive(tmp_path):
    bundle = random_bundle()
    hostile = ["</script><b>", 'a "quoted" one', "x" * 10_000, "été 🎬", "line\nbreak", "null", " "]
    bundle.items[: len(hostile)] = hostile
    write_bundle(bundle, tmp_path / "shop.rec")
    assert read_bundle(tmp_path / "shop.rec").items == bundle.items


def test_a_folder_with_a_manifest_of_something_else_stays(tmp_path, shop):
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text('{"name": "an app"}', "utf-8")
    with pytest.raises(DataError, match="is no bundle, and so is not replaced"):
        write_bundle(random_bundle(), site, force=True)
    (shop / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(DataError, match=r"files that are no bundle's, notes\.txt, and is not repl"):
        write_bundle(random_bundle(), shop, force=True)
    assert (shop / "notes.txt").read_text("utf-8") == "mine"


def test_a_bundle_behind_a_link_is_replaced(tmp_path, shop):
    link = tmp_path / "current.rec"
    link.symlink_to(shop)
    write_bundle(random_bundle("graph"), link, force=True)
    assert link.is_symlink() and "users.vectors" not in read_bundle(link).arrays
    assert "users.vectors" not in read_bundle(shop).arrays


def test_a_rename_that_fails_leaves_the_earlier_bundle(shop, monkeypatch):
    rename = type(shop).rename

    def fails(path, target):
        if path.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(type(shop), "rename", fails)
    with pytest.raises(DataError, match="Input/output error"):
        write_bundle(random_bundle("graph"), shop, force=True)
    monkeypatch.undo()
    assert "users.vectors" in read_bundle(shop).arrays
