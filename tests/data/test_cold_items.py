"""Items that nobody has taken yet: they have ids, features and vectors, and are recommended."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from helpers_data import N_ITEMS, interactions, load, write_atomic, write_mmrec

from recbole_sigrec import Recommender, import_data, load_data_and_model, run
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.data.identity import identity
from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.importers.table import Columns

COLD = ["new", "007", "30"]


def with_ids(folder, tokens):
    """Name the items of a folder's feature rows, of which there are as many."""
    for modality in ("image", "text"):
        rows = np.random.default_rng(len(modality)).normal(size=(len(tokens), 3))
        np.save(folder / f"{modality}_feat.npy", rows.astype(np.float32))
        (folder / f"{modality}_ids.txt").write_text("\n".join(tokens), "utf-8")


@pytest.fixture
def folder(tmp_path):
    """MMRec's layout with three items that nobody has taken."""
    folder = write_mmrec(tmp_path / "data")
    with_ids(folder, [*COLD[::-1], *map(str, range(N_ITEMS))])
    (folder / "cold_items.txt").write_text("\n".join(COLD) + "\n", "utf-8")
    return folder


def test_they_have_the_last_ids_and_their_features(folder):
    dataset = load(folder)
    (folder / "cold_items.txt").unlink()
    before = load(folder, strict_ids=False)
    assert dataset.item_num == before.item_num + 3
    assert dataset.field2id_token["item_id"].tolist() == [
        *before.field2id_token["item_id"],
        *COLD,
    ]
    assert dataset.token2id("item_id", COLD).tolist() == [21, 22, 23]
    assert dataset.cold_items.tolist() == COLD and before.cold_items.tolist() == []
    pd.testing.assert_frame_equal(dataset.inter_feat, before.inter_feat)
    for modality, features in dataset.modality_features.items():
        assert dataset.modality_mask[modality].tolist() == [False, *[True] * 23]
        assert (features[:21] == before.modality_features[modality]).all()
        rows = np.load(folder / f"{modality}_feat.npy")
        np.testing.assert_array_equal(features[21:], rows[2::-1])


def test_rows_by_position_count_them(tmp_path):
    """The items are numbered 0 … 19, of which 3 and 19 were not taken."""
    frame = interactions()
    frame = frame[~frame["itemID"].isin([3, 19])]
    folder = write_mmrec(tmp_path / "data", frame=frame)
    (folder / "cold_items.txt").write_text("19\n3\n", "utf-8")
    dataset = load(folder)
    assert dataset.field2id_token["item_id"][-2:].tolist() == ["19", "3"]
    rows = np.load(folder / "image_feat.npy")
    np.testing.assert_array_equal(dataset.modality_features["image"][-2:], rows[[19, 3]])
    (folder / "cold_items.txt").unlink()
    with pytest.raises(DataError, match="20 rows but the items are numbered 0 … 18"):
        load(folder)


def test_with_recboles_files_and_filters(tmp_path):
    """Those in the .item file have its columns, and a filter by interactions leaves them in."""
    frame = interactions()
    frame = frame[frame["itemID"] != 7]
    items = {"price:float": [float(n) for n in range(N_ITEMS)]}
    folder = write_atomic(tmp_path / "data", frame=frame, items=items)
    (folder / "cold_items.txt").write_text("new\ni7\n", "utf-8")
    rare = frame["itemID"].value_counts()
    kept = rare.index[rare >= 7]
    assert 0 < len(kept) < len(rare)
    how = {"load_col": None, "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}}}
    dataset = load(folder, "BPR", item_inter_num_interval="[7,inf)", **how)
    tokens = dataset.field2id_token["item_id"]
    assert set(tokens) == {"[PAD]", *(f"i{n}" for n in kept), "i7", "new"}
    assert set(tokens[-2:]) == {"i7", "new"}
    assert len(dataset.item_feat) == dataset.item_num
    prices = dict(zip(tokens, dataset.item_feat["price"].tolist()))
    assert all(prices[f"i{n}"] == n for n in (*kept, 7))
    assert len(dataset.inter_feat) == rare[kept].sum()


def test_a_field_of_the_same_tokens_has_the_same_ids(tmp_path):
    items = {"next:token": [f"i{(n + 1) % N_ITEMS}" for n in range(N_ITEMS)]}
    folder = write_atomic(tmp_path / "data", items=items)
    (folder / "cold_items.txt").write_text("new\n", "utf-8")
    dataset = load(folder, "BPR", load_col=None, alias_of_item_id=["next"])
    assert dataset.field2id_token["next"].tolist() == dataset.field2id_token["item_id"].tolist()
    assert dataset.num("next") == dataset.item_num == N_ITEMS + 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"new\n4\n007\n", "item.s. 4, which have interactions; remove them"),
        (b"new\n007\nnew\n", "item.s. new more than once"),
        (b"new\n\n007\n", "line.s. 2 must hold one item token"),
        (b"", "line.s. 1 must hold one item token"),
        (b"new\n\xff\n", "is not UTF-8"),
    ],
)
def test_damage_is_told(folder, content, says):
    (folder / "cold_items.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"cold_items.txt.*{says}"):
        load(folder)


def test_the_identity_and_the_split_know_them(folder, make_config):
    split = Split.load(make_config("BPR", folder, topk=[5], valid_metric="Recall@5"))
    assert split.sizes["items"] == N_ITEMS + 3
    known = identity(split.parts[0], ["image"])
    assert known["items"][-3:] == COLD
    (folder / "cold_items.txt").write_text("\n".join(COLD[:2]), "utf-8")
    values = {"topk": [5], "valid_metric": "Recall@5", "strict_ids": False}
    other = Split.load(make_config("BPR", folder, **values))
    assert other.fingerprint != split.fingerprint


MODELS = ["ContentKNN", "ContentEASE", "SIGRec"]


@pytest.mark.parametrize("model", MODELS)
def test_they_are_recommended(planted, tmp_path, make_values, model):
    """From a table to a bundle; the new items belong to the groups of the planted data."""
    frame = pd.read_csv(planted.folder / "planted.inter", sep="\t", dtype=str)
    new = [str(item) for item in planted.cold_items]  # one per group, in the groups' order
    frame = frame[~frame["itemID"].isin(new)]
    frame.to_csv("t.csv", index=False)
    features = {}
    for modality in ("image", "text"):
        features[modality] = shutil.copy(planted.folder / f"{modality}_feat.npy", f"{modality}.npy")
        numbers = "\n".join(map(str, range(planted.n_items)))
        (tmp_path / f"{modality}_ids.txt").write_text(numbers, "utf-8")
    columns = Columns("userID", "itemID", split="x_label")
    made = import_data("t.csv", "made", "table", "out", columns, features, keep_cold_items=True)
    assert made["cold_items"] == 4
    folder = tmp_path / "out" / "made"
    values = make_values(folder, epochs=40, learning_rate=0.01, bundle="x.rec")
    if model == "SIGRec":
        values["item_score_weight"] = 0.0  # what the training items' graph adds, these lack
    result = run(model, "made", config_dict=values)
    _, net, dataset, *_ = load_data_and_model(result.checkpoint)
    assert net.n_items == dataset.item_num == planted.n_items + 1
    rows = dataset.token2id("item_id", new)
    assert (np.sort(rows) == np.arange(planted.n_items - 3, planted.n_items + 1)).all()
    recommender = Recommender.load("x.rec")
    users = [str(user) for user in range(planted.n_users - 1)]
    first = recommender.recommend(users, 1, candidates=new).set_index("user")["item"]
    own = [first[user] == new[planted.user_group[int(user)]] for user in users]
    assert np.mean(own) > 0.9  # chance: 0.25
    top = recommender.recommend(users, 10)
    found = [
        new[planted.user_group[int(user)]] in set(rows.item) for user, rows in top.groupby("user")
    ]
    assert np.mean(found) > 0.5
    # The model belongs to data with these items.
    (folder / "cold_items.txt").write_text("\n".join(new[1:]), "utf-8")
    with pytest.raises(DataError, match="0 items more, 1 missing"):
        load_data_and_model(result.checkpoint, strict_ids=False)
    (folder / "cold_items.txt").write_text("\n".join([*new, "later"]), "utf-8")
    for modality in features:  # rows by position would have to be one more
        shutil.copy(tmp_path / f"{modality}_ids.txt", folder)
    with pytest.raises(DataError, match="1 items more, 0 missing"):
        load_data_and_model(result.checkpoint)
    again = load_data_and_model(result.checkpoint, allow_changes=True)[2]
    assert again.field2id_token["item_id"].tolist() == dataset.field2id_token["item_id"].tolist()
