"""Data: features follow their item's token; the split is the file's; checkpoints come back."""

from __future__ import annotations

import itertools
import logging
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from helpers_data import N_ITEMS, features, interactions, load, snapshot, write_atomic, write_mmrec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from recbole_sigrec.data import encoders, matrix_files
from recbole_sigrec.data.features import align, impute, read_ids
from recbole_sigrec.data.interactions import read_split_interactions
from recbole_sigrec.data.matrix_files import find_modalities, read_features
from recbole_sigrec.errors import DataError
from recbole_sigrec.training import checkpoint

# What may stand in a tab-separated file and be one item's name; csv has its quotes apart.
TOKENS = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters='",'), min_size=1, max_size=6
)


def id_tokens(dataset, field="item_id"):
    """The token of each id; entry 0 is the padding's."""
    return list(dataset.field2id_token[field])


def write_ids(folder, modality, tokens, kind):
    path = folder / f"{modality}_ids.{kind}"
    if kind == "npy":
        np.save(path, np.array(tokens))
    else:
        head = "item_id\n" if kind == "csv" else ""
        path.write_text(head + "\n".join(tokens) + "\n", "utf-8")


def write_features(folder, modality, array, kind):
    path = folder / f"{modality}_feat.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez(path, array)
    else:
        save_file({"features": array, "other": np.zeros(1)}, path)


def check_aligned(dataset, modality, tokens, source):
    """The features of each item are exactly its row; returns the tokens of items without one.

    Args:
        tokens, source: the item token of each row, and the rows.
    """
    rows = dict(zip(tokens, source, strict=True))
    found = dataset.modality_features[modality]
    mask = dataset.modality_mask[modality]
    assert found.dtype == torch.float32
    assert found.shape == (dataset.item_num, source.shape[1])
    assert mask.shape == (dataset.item_num,)
    assert not found[0].any()
    assert not mask[0]
    missing = set()
    for number, token in enumerate(id_tokens(dataset)[1:], 1):
        row = rows.get(token, np.zeros(1))
        assert bool(mask[number]) == bool(row.any())
        if row.any():
            np.testing.assert_array_equal(found[number].numpy(), row)
        else:
            missing.add(token)
    return missing


# ---- alignment -----------------------------------------------------------------------------------


@st.composite
def token_sets(draw):
    """Item tokens, their order in a feature file, those without a row and those with a zero row."""
    tokens = draw(st.lists(TOKENS, min_size=5, max_size=12, unique=True))
    order = draw(st.permutations(tokens))
    absent = draw(st.sets(st.sampled_from(tokens), max_size=2))
    zero = draw(st.sets(st.sampled_from(tokens), max_size=2))
    return tokens, order, absent, zero


@pytest.mark.parametrize(
    ("features_kind", "ids_kind"),
    list(itertools.product(("npy", "npz", "safetensors"), ("txt", "csv", "npy"))),
)
@settings(max_examples=12)
@given(token_sets(), st.sampled_from(["mean", "zero"]))
@example((["1", "10", "2", "01"], ["10", "01", "2", "1"], {"2"}, set()), "mean")
@example((["NA", "nan", "None", "null"], ["null", "None", "nan", "NA"], set(), {"nan"}), "mean")
def test_features_follow_their_token(features_kind, ids_kind, case, how):
    tokens, order, absent, zero = case
    rows = [(user, token, (user + n) % 3) for user in range(3) for n, token in enumerate(tokens)]
    frame = pd.DataFrame(rows, columns=["userID", "itemID", "x_label"])
    order = [token for token in order if token not in absent]
    array = features(len(order), d=3)
    array[[token in zero for token in order]] = 0.0
    with tempfile.TemporaryDirectory() as root:
        folder = write_mmrec(Path(root), frame=frame, modalities={})
        write_features(folder, "image", array, features_kind)
        write_ids(folder, "image", order, ids_kind)
        dataset = load(folder, strict_ids=False, missing_modality=how)
    assert set(id_tokens(dataset)[1:]) == set(tokens)
    assert check_aligned(dataset, "image", order, array) == absent | zero
    values, mask = dataset.modality_features["image"], dataset.modality_mask["image"]
    fill = values[mask].mean(dim=0) if how == "mean" else torch.zeros(3)
    torch.testing.assert_close(values[1:][~mask[1:]], fill.expand(len(absent | zero), 3))


def test_positional_rows_follow_their_token(tmp_path):
    """RecBole numbers items as they occur; here the last item of the file occurs first."""
    frame = interactions().sample(frac=1.0, random_state=3)
    dataset = load(write_mmrec(tmp_path, frame=frame))
    tokens = [str(n) for n in range(N_ITEMS)]
    assert id_tokens(dataset)[1:] != tokens
    assert not check_aligned(dataset, "image", tokens, features())
    assert not check_aligned(dataset, "text", tokens, features(seed=1))


def test_float16_and_integer_features_are_widened(tmp_path):
    half, whole = features().astype(np.float16), np.arange(1, 41).reshape(20, 2)
    dataset = load(write_mmrec(tmp_path, modalities={"floats": half, "integers": whole}))
    tokens = [str(n) for n in range(N_ITEMS)]
    check_aligned(dataset, "floats", tokens, half.astype(np.float32))
    check_aligned(dataset, "integers", tokens, whole.astype(np.float32))


def test_atomic_files_with_shuffled_ids(tmp_path):
    folder = write_atomic(tmp_path)
    order = np.random.default_rng(5).permutation(N_ITEMS)
    tokens = [f"i{n}" for n in order]
    write_features(folder, "image", features(), "npy")
    write_ids(folder, "image", tokens, "txt")
    dataset = load(folder)
    assert not check_aligned(dataset, "image", tokens, features())
    parts = dataset.build()
    assert [len(part) for part in parts] == [24 * 4, 24, 24]  # RecBole's 8:1:1 of 6 per user
    for part in parts:
        assert part.modality_features["image"] is dataset.modality_features["image"]


def test_filtered_atomic_files_stay_aligned(tmp_path):
    """Items below the k-core lose their id; their rows are no mistake, and move nobody else's."""
    frame = interactions()[["userID", "itemID"]]
    frame = frame[~((frame["itemID"] < 5) & (frame["userID"] > 3))]
    frame.loc[len(frame) + 1000] = [99, 7]  # a user with one interaction
    folder = write_atomic(tmp_path, frame=frame)
    tokens = [f"i{n}" for n in np.random.default_rng(5).permutation(N_ITEMS)]
    write_features(folder, "image", features(), "npy")
    write_ids(folder, "image", tokens, "npy")
    whole = load(folder)
    assert (whole.user_num, whole.item_num) == (26, 21)
    core = load(folder, user_inter_num_interval="[3,inf)", item_inter_num_interval="[4,inf)")
    assert core.user_num < 26
    assert core.item_num < 21
    for dataset in (whole, core):
        assert not check_aligned(dataset, "image", tokens, features())
    parts = core.build()
    assert sum(map(len, parts)) == core.inter_num


def test_items_of_the_item_file_alone_are_items(tmp_path):
    """RecBole gives them an id, so a strict feature file must have their row."""
    frame = interactions()[["userID", "itemID"]].query("itemID != 4")
    folder = write_atomic(tmp_path, frame=frame, items={"title:token": ["t"] * N_ITEMS})
    write_features(folder, "image", features(), "npy")
    write_ids(folder, "image", [f"i{n}" for n in range(N_ITEMS)], "txt")
    values = {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "title"]}}
    dataset = load(folder, **values)
    assert "i4" in id_tokens(dataset)
    assert not check_aligned(dataset, "image", [f"i{n}" for n in range(N_ITEMS)], features())
    with pytest.raises(DataError, match="does not know: i4"):
        load(folder)  # RecBole reads the columns in load_col, by default no item file
    assert "i4" not in id_tokens(load(folder, strict_ids=False))


@given(
    hnp.arrays(np.float32, (7, 3), elements=st.floats(-5, 5, width=32)),
    hnp.arrays(bool, 7),
    st.sampled_from(["mean", "zero"]),
)
def test_impute(values, mask, how):
    mask[0], mask[1] = False, True
    values[~mask] = 0.0
    before = values.copy()
    filled = impute(values, mask, how)
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(filled[mask], values[mask])
    assert not filled[0].any()
    expected = values[mask].mean(axis=0) if how == "mean" else np.zeros(3)
    for row in np.flatnonzero(~mask)[1:]:
        np.testing.assert_allclose(filled[row], expected, rtol=1e-6, atol=1e-7)


def test_impute_in_place():
    values = np.array([[0, 0], [1, 2], [0, 0], [3, 4]], dtype=np.float32)
    mask = np.array([False, True, False, True])
    filled = impute(values, mask, "mean", out=values)
    assert filled is values
    np.testing.assert_array_equal(values, [[0, 0], [1, 2], [2, 3], [3, 4]])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_a_npy_file_is_read_in_blocks_through_a_map(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(matrix_files, "_BLOCK", 6)  # two rows
    path = tmp_path / "a_feat.npy"
    matrix = np.arange(21).reshape(7, 3).astype(dtype)
    np.save(path, matrix)
    array = read_features(path)
    assert isinstance(array, np.memmap) and not array.flags.writeable
    rows = np.array(list("gfedcba"))
    aligned = align(array, rows, np.array(["[PAD]", *"abcdefg"]), rows, "x").features
    assert aligned.dtype == np.float32 and not isinstance(aligned, np.memmap)
    np.testing.assert_array_equal(aligned, np.vstack([np.zeros(3), matrix[::-1]]))
    if dtype != "int64":
        matrix[[1, 6], 2] = np.nan
        np.save(path, matrix)
        with pytest.raises(DataError, match=r"row\(s\) 1, 6 "):
            read_features(path)


def test_align_is_strict_about_both_sides():
    id2token = np.array(["[PAD]", "a", "b", "c"])
    known = np.array(["a", "b", "c", "filtered"])
    rows = np.array(["filtered", "c", "b", "a"])
    matrix = np.arange(1.0, 9.0, dtype=np.float32).reshape(4, 2)
    aligned = align(matrix, rows, id2token, known, "x")
    np.testing.assert_array_equal(aligned.features, [[0, 0], [7, 8], [5, 6], [3, 4]])
    np.testing.assert_array_equal(aligned.mask, [False, True, True, True])
    with pytest.raises(DataError, match=r"1 row\(s\) .* does not know: z"):
        align(matrix, np.array(["z", "c", "b", "a"]), id2token, known, "x")
    with pytest.raises(DataError, match=r"1 item\(s\) have no row: c"):
        align(matrix[:3], np.array(["filtered", "b", "a"]), id2token, known, "x")
    loose = align(matrix[:2], np.array(["z", "b"]), id2token, known, "x", strict=False)
    np.testing.assert_array_equal(loose.mask, [False, False, True, False])


def test_a_row_named_like_the_padding_item_does_not_reach_it():
    id2token = np.array(["[PAD]", "a"])
    rows = np.array(["[PAD]", "a"])
    aligned = align(np.ones((2, 1), np.float32), rows, id2token, rows, "x", strict=False)
    np.testing.assert_array_equal(aligned.features, [[0], [1]])


# ---- reading files -------------------------------------------------------------------------------


def test_find_modalities(tmp_path):
    for name in ("b_feat.npy", "a_feat.npz", "c_feat.safetensors", "a_ids.txt", "x.npy", "d.csv"):
        (tmp_path / name).write_bytes(b"")
    found = find_modalities(tmp_path)
    assert {name: path.name for name, path in found.items()} == {
        "a": "a_feat.npz",
        "b": "b_feat.npy",
        "c": "c_feat.safetensors",
    }
    assert list(found) == ["a", "b", "c"]
    assert find_modalities(tmp_path / "absent") == {}


def test_npz_with_several_arrays_needs_one_named_features(tmp_path):
    path = tmp_path / "a_feat.npz"
    np.savez(path, other=np.zeros(3), features=features())
    np.testing.assert_array_equal(read_features(path), features())
    np.savez(path, only=features())
    np.testing.assert_array_equal(read_features(path), features())


@pytest.mark.parametrize(
    ("name", "content", "tokens"),
    [
        ("x_ids.txt", "a\n b \nc\n\n\n", ["a", "b", "c"]),
        ("x_ids.txt", "item_id\nb\n", ["item_id", "b"]),
        ("x_ids.txt", "\ufeffa\nb\n", ["a", "b"]),
        ("x_ids.csv", "\ufeffitem_id\na\nb\n", ["a", "b"]),
        ("x_ids.txt", '5"\n"q"\n', ['5"', '"q"']),
        ("x_ids.csv", "item_id\na\nb\n", ["a", "b"]),
        ("x_ids.csv", "itemID:token\r\na\r\nb\r\n", ["a", "b"]),
        ("x_ids.csv", '"a"\n"b,c"\n"d""e"\n', ["a", "b,c", 'd"e']),
    ],
)
def test_read_ids(tmp_path, name, content, tokens):
    (tmp_path / name).write_text(content, "utf-8", newline="")
    assert read_ids(tmp_path / name).tolist() == tokens


def test_one_long_id_does_not_make_all_as_long(tmp_path):
    (tmp_path / "x_ids.txt").write_text("\n".join([*"abc", "u" * 10**5]), "utf-8")
    assert read_ids(tmp_path / "x_ids.txt").nbytes < 100


def test_hidden_files_are_no_modalities(tmp_path):
    for name in ("image_feat.npy", "._image_feat.npy"):
        np.save(tmp_path / name, features())
    assert list(find_modalities(tmp_path)) == ["image"]


def test_ids_of_atomic_files_are_text(tmp_path):
    """Quotation marks join no lines, and NA is an item."""
    tokens = ['"12 inch', '15"', "NA", "None", "null", "nan", '"Heroes"', "i7"]
    rows = [f"u{user}\t{tokens[(user + n) % 8]}" for user in range(8) for n in range(5)]
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "odd.inter").write_text("user_id:token\titem_id:token\n" + "\n".join(rows), "utf-8")
    titles = [f"{token}\tword {token}\t{n}" for n, token in enumerate(tokens)]
    head = "item_id:token\ttitle:token_seq\tyear:float\n"
    (folder / "odd.item").write_text(head + "\n".join(titles), "utf-8")
    columns = {"words": {"columns": ["title"], "encoder": "multi_hot"}}
    dataset = load(folder, item_modalities=columns, load_col=None)
    assert sorted(dataset.field2id_token["item_id"][1:]) == sorted(tokens)
    assert len(dataset.inter_feat) == len(rows)
    assert dataset.modality_mask["words"][1:].all()
    assert np.isnan(dataset.item_feat["year"]).sum() == 0
    quoted = re.sub(r"[^\t\n]+", r'"\g<0>"', "\n".join(rows))
    (folder / "odd.inter").write_text("user_id:token\titem_id:token\n" + quoted, "utf-8")
    with pytest.raises(DataError, match=r"column \[user_id:token\].*in quotation marks.*remove"):
        load(folder, load_col={"inter": ["user_id", "item_id"]})
    (folder / "odd.inter").write_text("user_id:token\titem_id:token\n" + "\n".join(rows), "utf-8")
    text = (folder / "odd.item").read_text("utf-8").replace("title:token_seq", "title")
    (folder / "odd.item").write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"odd\.item: column \[title\] has no type"):
        load(folder, load_col=None)


def test_atomic_files_of_another_separator_may_be_quoted(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    rows = [f'u{user},"i{(user + n) % 8}, x"' for user in range(8) for n in range(5)]
    head = "user_id:token,item_id:token\n"
    (folder / "a.inter").write_text(head + "\n".join(rows), "utf-8")
    dataset = load(folder, "BPR", field_separator=",", load_col=None)
    assert "i3, x" in dataset.field2id_token["item_id"]
    assert len(dataset.inter_feat) == len(rows)


@pytest.mark.parametrize("array", [np.array([3, 1, 2]), np.array([b"3", b"1", b"2"])])
def test_read_ids_of_numbers_and_bytes(tmp_path, array):
    np.save(tmp_path / "x_ids.npy", array)
    assert read_ids(tmp_path / "x_ids.npy").tolist() == ["3", "1", "2"]


# ---- the split -----------------------------------------------------------------------------------


@st.composite
def split_frames(draw):
    """Distinct pairs of tokens with their labels, each label at least once, in any order."""
    pairs = draw(st.lists(st.tuples(TOKENS, TOKENS), min_size=3, max_size=20, unique=True))
    n_more = len(pairs) - 3
    more = draw(st.lists(st.sampled_from([0, 1, 2]), min_size=n_more, max_size=n_more))
    labels = draw(st.permutations([0, 1, 2, *more]))
    rows = [(*pair, label) for pair, label in zip(pairs, labels)]
    return pd.DataFrame(rows, columns=["userID", "itemID", "x_label"])


@given(split_frames(), st.permutations(["userID", "itemID", "x_label", "rating", "timestamp"]))
def test_split_column_is_respected_exactly(frame, columns):
    table = frame.assign(rating=1.0, timestamp=7)[columns]
    with tempfile.TemporaryDirectory() as root:
        folder = write_mmrec(Path(root), frame=table, modalities={})
        dataset = load(folder, "BPR")
    parts = dataset.build()
    users, items = (np.array(id_tokens(dataset, f)) for f in ("user_id", "item_id"))
    for label, part in enumerate(parts):
        mine = frame[frame["x_label"] == label]
        found = list(
            zip(
                users[part.inter_feat["user_id"].numpy()].tolist(),
                items[part.inter_feat["item_id"].numpy()].tolist(),
                strict=True,
            )
        )
        assert found == list(zip(mine["userID"], mine["itemID"], strict=True))
    assert dataset.user_num == frame["userID"].nunique() + 1
    assert dataset.item_num == frame["itemID"].nunique() + 1


def test_quotes_in_a_table_swallow_nothing(tmp_path):
    path = tmp_path / "x.inter"
    path.write_text('userID\titemID\tx_label\n"a\t1\t0\n5"\t1\t1\n"b\t1\t2\n"c"\t2\t0\n', "utf-8")
    frame, sizes = read_split_interactions(path, "userID", "itemID", "x_label")
    assert frame["user"].tolist() == ['"a', '"c"', '5"', '"b']
    assert sizes == [2, 1, 1]


def test_names_of_columns_and_of_the_split(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    frame = interactions().rename(columns={"userID": "who", "itemID": "what", "x_label": "fold"})
    folder = write_mmrec(tmp_path, frame=frame)
    values = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "what", "split_field": "fold"}
    parts = load(folder, **values).build()
    assert [len(part) for part in parts] == [96, 24, 24]
    assert "split by column fold of toy.inter" in caplog.text
    assert "split: train 96, valid 24, test 24" in caplog.text


def test_filters_leave_a_given_split_alone(tmp_path):
    folder = write_mmrec(tmp_path)
    dataset = load(folder, user_inter_num_interval="[50,inf)", eval_args={"order": "TO"})
    assert [len(part) for part in dataset.build()] == [96, 24, 24]


def test_data_set_reads_and_writes_nothing_else(tmp_path):
    folder = write_mmrec(tmp_path / "data")
    before = snapshot(tmp_path)
    load(folder).build()
    assert snapshot(tmp_path) == before


# ---- item columns --------------------------------------------------------------------------------


@pytest.fixture
def titled(tmp_path):
    """Atomic files whose items have a title (item i3 an empty one) and genres (i5 none)."""
    words = ["red", "green", "blue", "warm", "cold"]
    titles = [f"{words[n % 5]} {words[(n // 2) % 5]} number{n % 3}" for n in range(N_ITEMS)]
    genres = [" ".join(sorted({"ab"[n % 2], "cde"[n % 3]})) for n in range(N_ITEMS)]
    titles[3], genres[5] = "", ""
    items = {"title:token_seq": titles, "genres:token_seq": genres, "year:float": range(N_ITEMS)}
    return write_atomic(tmp_path, items=items), titles, genres


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "i8", "i2", "i1", "u4", "u1", "?"])
def test_safetensors_are_mapped(tmp_path, kind):
    """The tensor that is asked for, among others."""
    array = np.arange(-12, 12).reshape(8, 3).astype(kind)
    path = tmp_path / "a.safetensors"
    save_file({"z": np.ones(5), "features": array, "a": np.ones(7, np.float16)}, path)
    found = read_features(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype and isinstance(found, np.memmap)
    save_file({"a": np.ones((2, 2)), "b": np.ones((2, 2))}, path)
    with pytest.raises(DataError, match="holds 2 arrays"):
        read_features(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="cannot be read"):
        read_features(path)


@pytest.mark.parametrize(
    "name, content, tokens",
    [
        ("a_ids.txt", "x\ny\n", ["x", "y"]),
        ("a_ids.txt", "x\r\ny\r\n\r\n", ["x", "y"]),
        ("a_ids.txt", "x\ny\n\n \n", ["x", "y"]),
        ("a_ids.txt", "x\n\ny\n", "line(s) 2 must"),
        ("a_ids.txt", "", "line(s) 1 must"),
        ("a_ids.csv", "item_id\nx\ny\n\n", ["x", "y"]),
        ("a_ids.csv", 'x\r\n"y"\r\n \r\n', ["x", "y"]),
        ("a_ids.csv", "x\ny\n,\n", "line(s) 3 must"),
        ("a_ids.csv", 'x\ny\n""\n', "line(s) 3 must"),
        ("a_ids.csv", "x\ny,z\n", "line(s) 2 must"),
        ("a_ids.csv", "x" * 200_000, "cannot be read as CSV"),
    ],
)
def test_ids_of_rows(tmp_path, name, content, tokens):
    path = tmp_path / name
    path.write_bytes(content.encode())
    if isinstance(tokens, list):
        assert read_ids(path).tolist() == tokens
    else:
        with pytest.raises(DataError, match=re.escape(tokens)):
            read_ids(path)


def tfidf(columns, dimension):
    return encoders.Tfidf.learn(columns, dimension).encode(columns)


def multi_hot(columns, separator=" "):
    return encoders.MultiHot.learn(columns, separator).encode(columns)


def test_tfidf_columns(titled):
    folder, titles, _ = titled
    columns = {"text": {"columns": ["title"], "encoder": "tfidf", "dimension": 4}}
    dataset = load(folder, item_modalities=columns)
    expected = tfidf([titles], 4)
    tokens = [f"i{n}" for n in range(N_ITEMS)]
    assert expected.shape == (N_ITEMS, 4)
    assert check_aligned(dataset, "text", tokens, expected) == {"i3"}
    assert dataset.modality_features["text"][id_tokens(dataset).index("i3")].any()  # imputed


def test_tfidf_of_similar_texts_is_similar():
    texts = ["green apple pie", "green apple cake", "steel bolt", "steel nut", ""]
    x = tfidf([texts], 64)
    assert not x[4].any()
    x = x[:4] / np.linalg.norm(x[:4], axis=1, keepdims=True)
    cosine = x @ x.T - 2 * np.eye(4)
    assert cosine.argmax(axis=1).tolist() == [1, 0, 3, 2]
    np.testing.assert_array_equal(tfidf([texts], 64), tfidf([texts], 64))
    joined = tfidf([["green", "steel", ""], ["apple", "", ""]], 64)
    assert joined[:2].any(axis=1).all()
    assert not joined[2].any()


def test_multi_hot_columns(titled):
    folder, _, genres = titled
    dataset = load(
        folder, item_modalities={"genre": {"columns": ["genres"], "encoder": "multi_hot"}}
    )
    tokens = [f"i{n}" for n in range(N_ITEMS)]
    expected = np.array([[float(g in genre.split()) for g in "abcde"] for genre in genres])
    assert check_aligned(dataset, "genre", tokens, expected.astype(np.float32)) == {"i5"}


def test_multi_hot_keeps_columns_apart():
    encoded = multi_hot([["x y", "x", ""], ["", "y", "y"]])
    np.testing.assert_array_equal(encoded, [[1, 1, 0], [1, 0, 1], [0, 0, 1]])
    encoded = multi_hot([["x,y", "y"]], separator=",")
    np.testing.assert_array_equal(encoded, [[1, 1], [0, 1]])


def test_item_columns_beside_feature_files(titled):
    folder, _, _ = titled
    write_features(folder, "image", features(), "npy")
    write_ids(folder, "image", [f"i{n}" for n in range(N_ITEMS)], "txt")
    columns = {"genre": {"columns": ["genres"], "encoder": "multi_hot"}}
    both = load(folder, item_modalities=columns)
    assert list(both.modality_features) == ["image", "genre"]
    one = load(folder, item_modalities=columns, modalities=["genre"])
    assert list(one.modality_features) == ["genre"]
    turned = load(folder, item_modalities=columns, modalities=["genre", "image"])
    assert list(turned.modality_features) == ["genre", "image"]


def test_lines_with_more_values_than_columns_shift_nothing(tmp_path):
    path = tmp_path / "x.item"
    path.write_text("item_id:token\ttitle:token_seq\n1\ta b\tz\n2\tNA\tz\n3\n", "utf-8")
    tokens, (titles,) = encoders.read_item_columns(path, "item_id", ["title"])
    assert tokens.tolist() == ["1", "2", "3"]
    assert titles[:2] == ["a b", "NA"]


def test_the_default_data_set_has_text_and_genres(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    dataset = load(tmp_path / "ml-100k")
    assert (dataset.user_num - 1, dataset.item_num - 1, dataset.inter_num) == (943, 1682, 100_000)
    text, genre = (dataset.modality_features[name] for name in ("text", "genre"))
    assert (text.shape, genre.shape) == ((1683, 64), (1683, 19))
    assert dataset.modality_mask["text"].sum() == 1682
    assert dataset.modality_mask["genre"][1:].float().mean() > 0.99
    ids = dataset.field2token_id["item_id"]
    assert genre[ids["1"]].sum() == 3  # Toy Story: Animation, Children's, Comedy
    assert torch.equal(genre[ids["1"]], genre[ids["422"]])  # Aladdin's are the same
    assert genre[ids["172"]].sum() == 6  # The Empire Strikes Back
    unit = torch.nn.functional.normalize(text, dim=1)
    films = unit[[ids[n] for n in ("222", "227", "228", "229", "230", "380", "449", "450")]]
    assert (films @ films.T).mean() > 3 * (films @ unit.T).mean()  # eight of Star Trek
    parts = dataset.build()
    assert sum(map(len, parts)) == 100_000


# ---- checkpoints ---------------------------------------------------------------------------------

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.int32, bool]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
)
LEAVES = SCALARS | ARRAYS | ARRAYS.map(torch.from_numpy)
STATES = st.dictionaries(
    st.text(max_size=4).filter(lambda key: key != "format"),
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    ),
    max_size=4,
)


def same(a, b):
    """Equal, of the same types all the way down."""
    assert type(a) is type(b)
    if sp.issparse(a):  # first: a dok_matrix is a dict too
        assert (a.format, a.shape, a.dtype) == (b.format, b.shape, b.dtype)
        assert (a != b).nnz == 0
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


@given(STATES)
def test_checkpoints_come_back_as_they_were(state):
    with tempfile.TemporaryDirectory() as root:
        checkpoint.save(state, Path(root) / "new" / "x.pth")
        found = checkpoint.load(Path(root) / "new" / "x.pth")
        assert os.listdir(Path(root) / "new") == ["x.pth"]
    assert found.pop("format") == checkpoint.FORMAT
    same(found, state)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok"])
def test_sparse_matrices_come_back(tmp_path, kind):
    """RecBole's ItemKNN keeps its weights so."""
    matrix = sp.random(5, 7, 0.3, format=kind, random_state=1, dtype=np.float32)
    checkpoint.save({"w": [matrix, {"deep": matrix}]}, tmp_path / "x.pth")
    found = checkpoint.load(tmp_path / "x.pth")["w"]
    same(found[0], matrix)
    same(found[1]["deep"], matrix)


def test_numbers_and_tuples_become_plain(tmp_path):
    checkpoint.save({"x": (np.float32(0.5), np.int64(3), np.bool_(True))}, tmp_path / "x.pth")
    assert checkpoint.load(tmp_path / "x.pth")["x"] == [0.5, 3, True]


class Unsaveable:
    pass


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    checkpoint.save({"epoch": 1}, path)
    before = snapshot(tmp_path)
    with pytest.raises(TypeError, match="Unsaveable"):
        checkpoint.save({"epoch": Unsaveable()}, path)
    assert snapshot(tmp_path) == before

    def half(state, file):
        file.write(b"half a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save({"epoch": 2}, path)
    assert snapshot(tmp_path) == before
    monkeypatch.undo()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({"epoch": 2}, path)
    assert snapshot(tmp_path) == before
    monkeypatch.undo()
    checkpoint.save({"epoch": 2}, path)
    assert checkpoint.load(path)["epoch"] == 2


# ---- real data -----------------------------------------------------------------------------------

# Users and items, the parts' sizes, the modalities' widths, rows of the feature files. 40 of
# microlens' rows, among them its 36 items without text, belong to items without any interaction.
REAL = {
    "tiktok": ((9308, 6710), (59541, 3051, 6130), {"image": 128, "audio": 128}, 6710),
    "baby": ((19445, 7050), (118551, 21682, 20559), {"image": 128, "text": 128}, 7050),
    "microlens": ((49075, 17188), (251559, 50543, 50543), {"image": 128, "text": 384}, 17228),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name):
    """Set RECBOLE_SIGREC_DATA to the folder that holds tiktok/, baby/ or microlens/."""
    folder = Path(os.environ.get("RECBOLE_SIGREC_DATA", "")) / name
    if "RECBOLE_SIGREC_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("RECBOLE_SIGREC_DATA names no folder with this data set")
    (n_users, n_items), sizes, widths, n_rows = REAL[name]
    dataset = load(folder)
    assert (dataset.user_num - 1, dataset.item_num - 1) == (n_users, n_items)
    assert tuple(map(len, dataset.build())) == sizes
    assert {m: x.shape[1] for m, x in dataset.modality_features.items()} == widths
    for modality in widths:
        source = np.load(folder / f"{modality}_feat.npy").astype(np.float32)
        assert not check_aligned(dataset, modality, [str(n) for n in range(n_rows)], source)
