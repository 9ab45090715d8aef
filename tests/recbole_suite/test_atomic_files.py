"""What RecBole's own tests of its data sets load, filter and convert, through our entry point."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_recbole import EACH, N_ITEMS, N_USERS, RATED, SHARED, table, write_rated

from recbole_sigrec import Config, create_dataset, data_preparation, run
from recbole_sigrec.errors import ConfigError, DataError

EVERYTHING = {"load_col": None}


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    return write_rated(tmp_path_factory.mktemp("data"))


def values_of(folder, **values):
    return {**SHARED, "data_path": str(folder.parent), "epochs": 1, **values}


def loaded(folder, **values):
    """The data set, before it is split."""
    return create_dataset(Config("BPR", folder.name, config_dict=values_of(folder, **values)))


def pairs(dataset) -> set[tuple[str, str]]:
    """The tokens of its interactions."""
    feat = dataset.inter_feat
    users, items = (
        dataset.id2token(field, np.asarray(feat[field])) for field in ("user_id", "item_id")
    )
    return set(zip(users, items, strict=True))


def expected(keep) -> set[tuple[str, str]]:
    """The tokens of the rows that a filter keeps."""
    return {(f"u{row[0]}", f"i{row[1]}") for row in table() if keep(*row)}


# ---- filters -------------------------------------------------------------------------------------

BY_VALUE = {
    "[3,inf)": lambda u, i, r, t: r >= 3,
    "(3,5]": lambda u, i, r, t: 3 < r <= 5,
    "(-inf,1];[4,5)": lambda u, i, r, t: r <= 1 or 4 <= r < 5,
}


@pytest.mark.parametrize("interval", BY_VALUE)
def test_val_interval_filters_interactions(rated, interval):
    found = loaded(rated, val_interval={"rating": interval}, **RATED)
    kept = expected(BY_VALUE[interval])
    assert pairs(found) == kept
    assert 0 < len(kept) < N_USERS * EACH


def test_val_interval_of_two_fields(rated):
    found = loaded(rated, val_interval={"rating": "[2,4]", "timestamp": "[100,inf)"}, **RATED)
    assert pairs(found) == expected(lambda u, i, r, t: 2 <= r <= 4 and t >= 100)


def test_users_and_items_are_filtered_with_their_interactions(rated):
    values = {**EVERYTHING, "val_interval": {"age": "[30,inf)", "year": "(-inf,2010)"}}
    assert pairs(loaded(rated, **values)) == expected(lambda u, i, r, t: u >= 10 and i < 20)
    kept = loaded(rated, **values, filter_inter_by_user_or_item=False)
    assert pairs(kept) == expected(lambda *row: True)


def test_inter_num_interval_is_applied_until_nothing_falls(rated):
    """Against a loop that drops users and items in turn (RecBole's k-core rule)."""
    rows = [row[:2] for row in table()]
    while True:
        users, items = (np.bincount(column) for column in np.array(rows).T)
        kept = [(u, i) for u, i in rows if 7 <= users[u] and 12 <= items[i] <= 20]
        if len(kept) == len(rows):
            break
        rows = kept
    interval = {"user_inter_num_interval": "[7,inf)", "item_inter_num_interval": "[12,20]"}
    assert len(rows) == 325  # in four rounds
    assert pairs(loaded(rated, **interval)) == {(f"u{u}", f"i{i}") for u, i in rows}


def test_filters_that_leave_nothing_are_an_error(rated):
    with pytest.raises(DataError, match=r"\[rated\].*empty, please check the filtering settings"):
        loaded(rated, user_inter_num_interval="[11,inf)")


def test_repeated_pairs_are_removed_or_kept(tmp_path):
    rows = table()
    again = [(user, item, 5, 1000 + n) for n, (user, item, *_) in enumerate(rows[:3])]
    folder = write_rated(tmp_path, "twice", rows + again)
    with pytest.raises(DataError, match=r"repeat 3 pair\(s\).*rm_dup_inter"):
        loaded(folder, **RATED)
    for keep, times in (("first", [row[3] for row in rows[:3]]), ("last", [1000, 1001, 1002])):
        found = loaded(folder, rm_dup_inter=keep, **RATED)
        assert len(found.inter_feat) == len(rows)
        assert set(times) <= set(np.asarray(found.inter_feat["timestamp"]).astype(int))
    assert len(loaded(folder, repeatable=True, **RATED).inter_feat) == len(rows) + 3
    result = run("BPR", "twice", config_dict=values_of(folder, repeatable=True))
    assert sum(result["split"].values()) == len(rows) + 3


# ---- columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, {"user_id", "item_id"}),
        (RATED, {"user_id", "item_id", "rating", "timestamp"}),
        ({**EVERYTHING, "unload_col": {"inter": ["timestamp"]}}, {"user_id", "item_id", "rating"}),
    ],
)
def test_load_col_and_unload_col(rated, values, fields):
    assert set(loaded(rated, **values).inter_feat.columns) == fields


def test_features_of_users_and_items(rated):
    found = loaded(rated, **EVERYTHING)
    found.build()
    items = found.item_feat
    ids = found.token2id("item_id", [f"i{n}" for n in range(N_ITEMS)])
    genre = found.field2id_token["genre"]
    assert [list(genre[row[row > 0]]) for row in items["genre"].numpy()[ids]] == [
        [f"a{n % 3}", f"b{n % 2}"] for n in range(N_ITEMS)
    ]
    users = found.token2id("user_id", ["u0", "u1"])
    assert list(found.id2token("gender", found.user_feat["gender"].numpy()[users])) == ["M", "F"]


def test_numbers_are_normalised_unless_told_otherwise(rated):
    found = loaded(rated, **EVERYTHING, normalize_all=True)
    ratings = np.asarray(found.inter_feat["rating"])
    assert sorted(set(ratings)) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    found = loaded(rated, **EVERYTHING, normalize_field=["age"])
    assert np.asarray(found.inter_feat["rating"]).max() == 5
    assert np.asarray(found.user_feat["age"])[1:] == pytest.approx(np.arange(N_USERS) / 39)


def test_labels_by_a_threshold(rated):
    found = loaded(rated, **RATED, threshold={"rating": 3})
    labels = np.asarray(found.inter_feat["label"])
    assert labels.sum() == sum(row[2] >= 3 for row in table())
    assert set(labels) == {0, 1}


def test_a_table_of_vectors_of_ones_own(rated):
    lines = [f"i{n}\t{n} {n + 1}" for n in range(N_ITEMS)]
    path = rated / "rated.vectors"
    path.write_text("\n".join(["vid:token\tvector:float_seq", *lines]) + "\n", "utf-8")
    found = loaded(
        rated,
        load_col={"inter": ["user_id", "item_id"], "vectors": ["vid", "vector"]},
        additional_feat_suffix=["vectors"],
        alias_of_item_id=["vid"],
        preload_weight={"vid": "vector"},
    )
    ids = found.token2id("vid", [f"i{n}" for n in range(N_ITEMS)])
    assert found.get_preload_weight("vid")[ids].tolist() == [[n, n + 1] for n in range(N_ITEMS)]


# ---- files ---------------------------------------------------------------------------------------


def test_benchmark_files_are_the_parts(tmp_path):
    folder = write_rated(tmp_path, "parted")
    rows = (folder / "parted.inter").read_text("utf-8").splitlines()
    (folder / "parted.inter").unlink()
    parts = {"train": rows[1:301], "valid": rows[301:351], "test": rows[351:]}
    for name, part in parts.items():
        (folder / f"parted.{name}.inter").write_text("\n".join([rows[0], *part]) + "\n", "utf-8")
    values = values_of(folder, benchmark_filename=[*parts])
    result = run("BPR", "parted", config_dict=values)
    assert result["split"] == {"train": 300, "valid": 50, "test": 50}
    config = Config("BPR", "parted", config_dict=values)
    loaders = data_preparation(config, create_dataset(config))
    for loader, part in zip(loaders, parts.values(), strict=True):
        assert pairs(loader.dataset) == {tuple(row.split("\t")[:2]) for row in part}
    with pytest.raises(DataError, match=r"parted.gone.inter not exist"):
        loaded(folder, benchmark_filename=["train", "valid", "gone"])


@pytest.mark.parametrize(
    ("separator", "name"), [(",", "Commas"), (";", "Semicolons"), ("|", "Bars")]
)
def test_another_field_separator_is_named_or_taken(tmp_path, separator, name):
    folder = write_rated(tmp_path, "other")
    for file in folder.iterdir():
        file.write_text(file.read_text("utf-8").replace("\t", separator), "utf-8")
    with pytest.raises(DataError, match=rf'\.inter: .*{name} .*field_separator: "\{separator}"'):
        loaded(folder)
    found = loaded(folder, field_separator=separator, **EVERYTHING)
    assert pairs(found) == expected(lambda *row: True)
    assert set(found.item_feat.columns) == {"item_id", "year", "genre", "vector"}


def test_one_file_of_another_separator_is_named(tmp_path):
    folder = write_rated(tmp_path, "mixed")
    file = folder / "mixed.item"
    file.write_text(file.read_text("utf-8").replace("\t", ","), "utf-8")
    with pytest.raises(DataError, match=r"mixed\.item: .*Commas separate it: set field_separator"):
        loaded(folder, **EVERYTHING)
    with pytest.raises(DataError, match=r"mixed\.inter: .*Tabs separate it"):
        loaded(folder, **EVERYTHING, field_separator=",")


def test_an_untyped_file_of_commas_too(tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    lines = [f"{row[0]},{row[1]},{(0, 0, 0, 1, 2)[n % 5]}" for n, row in enumerate(table())]
    (folder / "plain.inter").write_text("\n".join(["userID,itemID,x_label", *lines]) + "\n")
    with pytest.raises(DataError, match=r"plain\.inter .*Commas separate it: set field_sep"):
        loaded(folder)
    assert len(loaded(folder, field_separator=",").inter_feat) == len(lines)


def test_separators_are_text_as_it_stands(tmp_path):
    folder = write_rated(tmp_path, "bars")
    file = folder / "bars.item"
    file.write_text(file.read_text("utf-8").replace(" ", "|"), "utf-8")
    found = loaded(folder, **EVERYTHING, seq_separator="|")
    assert set(found.field2id_token["genre"][1:]) == {"a0", "a1", "a2", "b0", "b1"}
    for text, value in (("\\t", "\t"), ("\t", "\t"), ("' '", " "), (" ", " "), ("-", "-")):
        assert Config("BPR", "bars", config_dict={"seq_separator": text})["seq_separator"] == value
        line = [f"--seq_separator={text}"]
        assert Config("BPR", "bars", command_line=line)["seq_separator"] == value


@pytest.mark.parametrize(
    "key", ["save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path"]
)
def test_pickled_data_is_refused(rated, key):
    with pytest.raises(ConfigError, match=rf"\[{key}\] = \[data.pth\].*remove the key"):
        run("BPR", "rated", config_dict=values_of(rated, **{key: "data.pth"}))
