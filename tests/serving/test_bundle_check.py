"""Bundles of a stranger: their hashes fit, their parts do not fit each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers_bundles import random_bundle

from recbole_sigrec.errors import DataError
from recbole_sigrec.files import sha256
from recbole_sigrec.serving.bundle import read_bundle, write_bundle

WRONG_ARRAYS = {
    "users.vectors": lambda array: array[1:],
    "items.vectors": lambda array: array[:, 1:],
    "items.count": lambda array: array.astype(np.float32),
    "fold_in.map": lambda array: array[:, 0],
    "parts.behavior": lambda array: array[1:],
    "content.image": lambda array: array[1:],
    "has.image": lambda array: array.astype(np.int8),
    "mean.text": lambda array: array[1:],
    "graph.indptr": lambda array: array[::-1].copy(),
    "graph.indices": lambda array: array + 40,
    "graph.data": lambda array: array[1:],
    "training.indices": lambda array: array - 1,
    "validation.indptr": lambda array: array[1:],
}


@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_an_array_that_does_not_fit_the_others_is_named(tmp_path, name):
    bundle = random_bundle()
    bundle.arrays[name] = WRONG_ARRAYS[name](bundle.arrays[name])
    write_bundle(bundle, tmp_path / "shop.rec")
    told = "graph" if name == "graph.data" else name
    with pytest.raises(DataError, match=rf"cannot be read: {told}"):
        read_bundle(tmp_path / "shop.rec")


@pytest.mark.parametrize(
    "name", [*WRONG_ARRAYS, "parts.behavior", "training.indices", "validation.indices"]
)
def test_an_array_that_is_needed_and_not_there(tmp_path, name):
    bundle = random_bundle()
    bundle.manifest["scoring"]["history_parts"] = ["behavior"]
    del bundle.arrays[name]
    write_bundle(bundle, tmp_path / "shop.rec")
    if name in ("graph.indptr", "validation.indptr"):  # a model has a graph, or none
        assert name not in read_bundle(tmp_path / "shop.rec").arrays
        return
    with pytest.raises(DataError, match=f"cannot be read: {name} is not there"):
        read_bundle(tmp_path / "shop.rec")


@pytest.mark.parametrize("tokens", [[], {}, ["a"] * 50, [*"abc", 4, *map(str, range(46))]])
def test_tokens_are_distinct_texts(tmp_path, tokens):
    bundle = random_bundle()
    bundle.items = tokens
    write_bundle(bundle, tmp_path / "shop.rec")
    with pytest.raises(DataError, match=r"items\.json: it must be a list of distinct texts"):
        read_bundle(tmp_path / "shop.rec")


def test_a_column_has_a_value_for_each_item(tmp_path):
    bundle = random_bundle()
    bundle.columns["title"] = bundle.columns["title"][1:]
    write_bundle(bundle, tmp_path / "shop.rec")
    with pytest.raises(DataError, match=r"columns\.json: each column"):
        read_bundle(tmp_path / "shop.rec")


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (("files",), {"../users.json": "0"}, r"\[\.\./users\.json\] is no name of a file"),
        (("files",), None, r"\[files\]: input should be a valid dictionary"),
        (("scoring", "history_parts"), [1], r"\[scoring\.history_parts\.0\]"),
        (("scoring", "item_score_weight"), "much", r"\[scoring\.item_score_weight\]"),
        (("encoders",), ["audio"], "No such file or directory"),
        (("files", "a" * 5000), "0" * 64, "File name too long"),
        (("model",), ["SIGRec"], r"\[model\]: input should be a valid string"),
    ],
)
def test_a_manifest_that_lacks_what_is_read_of_it(tmp_path, where, value, told):
    shop = tmp_path / "shop.rec"
    write_bundle(random_bundle(), shop)
    manifest = json.loads((shop / "manifest.json").read_text("utf-8"))
    held = manifest
    for key in where[:-1]:
        held = held[key]
    held[where[-1]] = value
    seal(shop, json.dumps(manifest))
    with pytest.raises(DataError, match=told):
        read_bundle(shop)


def test_a_manifest_of_endless_brackets(tmp_path):
    shop = tmp_path / "shop.rec"
    write_bundle(random_bundle(), shop)
    seal(shop, "[" * 10**5)
    with pytest.raises(DataError, match=r"manifest\.json, \[model\]: field required"):
        read_bundle(shop)


def seal(shop, manifest):
    """Write a manifest, and the hash that fits it."""
    (shop / "manifest.json").write_text(manifest, "utf-8")
    (shop / "manifest.sha256").write_text(sha256(shop / "manifest.json"))
