"""Importing: every pair and feature row of a source arrives, by token; bad sources are refused."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from filelock import FileLock
from helpers_data import Payload, load, snapshot, write_mmrec
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_sigrec.cli import run_command
from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.importers import import_data, sparse_pickle
from recbole_sigrec.preparation.importers.folders import read_lattice
from recbole_sigrec.preparation.importers.table import Columns, read_table
from recbole_sigrec.preparation.writer import write_features

IDS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]),
        st.sampled_from("\"',0123456789"),
    ),
    min_size=1,
    max_size=6,
).filter(lambda text: text == text.strip())
PARTS = ("train", "valid", "test")


class Known:
    """A source whose content is known: (user, item, part) by token, and the row of each item."""

    def __init__(self, pairs, rows):
        self.pairs, self.rows = pairs, rows

    def check(self, folder):
        """What is loaded from a folder is exactly this."""
        dataset = load(folder)
        tokens = {field: dataset.field2id_token[field] for field in ("user_id", "item_id")}
        loaded = [
            (str(tokens["user_id"][user]), str(tokens["item_id"][item]), part)
            for part, data in enumerate(dataset.build())
            for user, item in zip(data.inter_feat["user_id"], data.inter_feat["item_id"])
        ]
        assert len(loaded) == len(self.pairs)
        assert set(loaded) == set(self.pairs)
        assert set(dataset.modality_features) == {"image", "text"}
        for modality, rows in self.rows.items():
            features = dataset.modality_features[modality].numpy()
            for number, token in enumerate(tokens["item_id"][1:], 1):
                np.testing.assert_array_equal(features[number], rows[str(token)])


@st.composite
def known(draw, numbered=False, last_item_used=False):
    """A small source; ids are numbers in a shuffled order, or any text."""
    n_users, n_items = draw(st.integers(2, 5)), draw(st.integers(2, 7))
    if numbered:
        users, items = (
            draw(st.permutations([str(n) for n in range(size)])) for size in (n_users, n_items)
        )
    else:
        users, items = (
            draw(st.lists(IDS, min_size=size, max_size=size, unique=True))
            for size in (n_users, n_items)
        )
    place = st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1))
    places = draw(st.lists(place, min_size=3, max_size=20, unique=True))
    pairs = [
        (users[user], items[item], n if n < 3 else draw(st.integers(0, 2)))
        for n, (user, item) in enumerate(places)
    ]
    if last_item_used and all(item != str(n_items - 1) for _, item, _ in pairs):
        pairs.append((users[0], str(n_items - 1), 0))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = {}
    for modality, kind in (("image", np.float16), ("text", np.float32)):
        values = rng.normal(size=(n_items, draw(st.integers(1, 4)))).astype(kind)
        rows[modality] = dict(zip(items, values))
    return Known(pairs, rows)


def save_by_number(folder, rows):
    for modality, of_item in rows.items():
        array = np.stack([of_item[str(n)] for n in range(len(of_item))])
        np.save(folder / f"{modality}_feat.npy", array)


def write_source(folder: Path, kind: str, source: Known) -> None:
    """The source in the layout of a toolbox."""
    folder.mkdir()
    save_by_number(folder, source.rows)
    if kind == "mmrec":
        lines = [f"{user}\t{item}\t1.0\t{part}\n" for user, item, part in source.pairs]
        header = "userID\titemID\trating\tx_label\n"
        (folder / "any.inter").write_text(header + "".join(lines), "utf-8")
        return
    of_part = [[(int(u), int(i)) for u, i, p in source.pairs if p == part] for part in range(3)]
    if kind == "lattice":
        (folder / "5-core").mkdir()
        for name, pairs in zip(("train", "val", "test"), of_part):
            lists: dict[str, list[int]] = {}
            for user, item in pairs:
                lists.setdefault(str(user), []).append(item)
            (folder / "5-core" / f"{name}.json").write_text(json.dumps(lists), "utf-8")
        return
    shape = (max(int(u) for u, _, _ in source.pairs) + 2, len(source.rows["image"]))
    layouts = (sp.csr_matrix, sp.coo_matrix, sp.csc_array)
    for name, pairs, layout in zip(("trnMat", "valMat", "tstMat"), of_part, layouts):
        matrix = sp.lil_matrix(shape, dtype=np.float32)
        for pair in pairs:
            matrix[pair] = 1
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(layout(matrix)))


@pytest.mark.parametrize("kind", ["mmrec", "lattice", "mmssl"])
def test_folders_arrive_whole(kind):
    @settings(max_examples=12)
    @given(known(numbered=True, last_item_used=kind != "mmssl"))
    def check(source):
        with tempfile.TemporaryDirectory() as root:
            root = Path(root)
            write_source(root / "source", kind, source)
            before = snapshot(root / "source")
            import_data(root / "source", "made", kind, root / "out")
            source.check(root / "out" / "made")
            assert snapshot(root / "source") == before

    check()


def write_table(path: Path, rows: list[dict]) -> None:
    """Rows in the kind of file that the name says; text is text, numbers are numbers."""
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path, row_group_size=2)
        return
    name = path.name.removesuffix(".gz")
    open_ = gzip.open if path.suffix == ".gz" else open
    with open_(path, "wt", encoding="utf-8", newline="") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps(row) + "\n" for row in rows)
        elif name.endswith(".csv"):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.write("\t".join(rows[0]) + "\n")
            file.writelines("\t".join(map(str, row.values())) + "\n" for row in rows)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "csv.gz", "jsonl.gz"])
def test_tables_arrive_whole(suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")

    @settings(max_examples=12)
    @given(known(), st.randoms(use_true_random=False))
    def check(source, random):
        with tempfile.TemporaryDirectory() as root:
            root = Path(root)
            rows = [
                {"n": 1, "who": user, "what": item, "part": PARTS[part]}
                for user, item, part in source.pairs
            ]
            write_table(root / f"table.{suffix}", rows)
            features = {}
            for modality, of_item in source.rows.items():
                items = random.sample(list(of_item), len(of_item))
                np.save(root / f"{modality}.npy", np.stack([of_item[item] for item in items]))
                ids = root / f"of_{modality}.txt"
                ids.write_text("".join(f"{item}\n" for item in items), "utf-8")
                features[modality] = (root / f"{modality}.npy", ids)
            columns = Columns("who", "what", split="part")
            table = root / f"table.{suffix}"
            import_data(table, "made", "table", root / "out", columns, features)
            source.check(root / "out" / "made")

    check()


def test_integers_of_parquet_and_json_are_ids(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [{"u": user, "i": 10**15 + item} for user in range(4) for item in range(5)]
    for suffix in ("parquet", "jsonl"):
        write_table(tmp_path / f"t.{suffix}", rows)
        import_data(tmp_path / f"t.{suffix}", suffix, "table", tmp_path, Columns("u", "i"))
        frame = pd.read_csv(tmp_path / suffix / f"{suffix}.inter", sep="\t", dtype=str)
        got = set(zip(frame["userID"], frame["itemID"]))
        assert got == {(str(row["u"]), str(row["i"])) for row in rows}


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = arrow.Table.from_arrays([arrow.array(["a"])] * 3, names=["u", "i", "u"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet has 2 columns \[u\]; rename the others"):
        read_table(tmp_path / "t.parquet", Columns("u", "i"))


def test_categories_of_parquet_are_ids(tmp_path):
    pytest.importorskip("pyarrow")
    rows = {"u": [7, 7, 7, 8], "i": ["a", "b", "a", "007"]}
    frame = pd.DataFrame(rows, dtype="category")
    frame.to_parquet(tmp_path / "t.parquet")
    made = read_table(tmp_path / "t.parquet", Columns("u", "i")).pairs
    assert (made.user_tokens, made.item_tokens) == (["7", "8"], ["a", "b", "007"])
    users, items, _ = next(made.batches())
    assert (users.tolist(), items.tolist()) == ([0, 0, 0, 1], [0, 1, 0, 2])
    frame.loc[1, "i"] = None
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"\[i\] is \[''\] in row 2 "):
        read_table(tmp_path / "t.parquet", Columns("u", "i"))


# ---- the command, the manifest -------------------------------------------------------------------


@pytest.fixture
def ratings(tmp_path):
    """A CSV of 12 users × 6 items, with ratings 1 … 5 and times."""
    rows = [
        {"user": f"{u:03d}", "item": f"i{i}", "rating": 1 + (u + i) % 5, "time": 100 * u - 7 * i}
        for u in range(12)
        for i in range(6)
    ]
    path = tmp_path / "ratings.csv"
    write_table(path, rows)
    return path


IMPORT = ("--format=table", "--user=user", "--item=item", "--name=made", "--out=out")


def test_the_command_filters_splits_and_tells(ratings, capsys, tmp_path):
    np.save(tmp_path / "clip.npy", np.ones((6, 3), np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"i{n}\n" for n in range(6)))
    more = ("--rating=rating", "--min_rating=2", "--rating_range=1:5", "--k_core=3")
    features = f"--features=image={tmp_path / 'clip.npy'},ids={tmp_path / 'ids.txt'}"
    arguments = (str(ratings), *IMPORT, *more, "--timestamp=time", "--split=temporal", features)
    assert run_command("import", *arguments) == 0
    told = capsys.readouterr().out
    manifest = json.loads(Path("out/made/manifest.json").read_text("utf-8"))
    low = sum((u + i) % 5 == 0 for u in range(12) for i in range(6))
    assert manifest["source"]["skipped"] == {"ratings.csv": {"rated below 2": low}}
    assert f"{low} rated below 2" in told and "image: 3 dimensions, 6 items" in told
    assert [step["step"] for step in manifest["steps"]] == [
        *("read", "repeated pairs dropped", "3-core"),
    ]
    assert manifest["steps"][-1] == {
        **{"step": "3-core", "users": 12, "items": 6, "interactions": 72 - low},
    }
    assert manifest["settings"] == {
        **{"split": "temporal", "ratios": [8, 1, 1], "k_core": 3, "seed": 2020},
        "keep_cold_items": False,
    }
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((Path("out/made") / name).read_bytes()).hexdigest() == digest
    assert set(manifest["files"]) == {"made.inter", "image_feat.npy", "image_ids.txt"}
    read = {Path(entry["file"]).name: entry for entry in manifest["source"]["files"]}
    assert set(read) == {"ratings.csv", "clip.npy", "ids.txt"}
    assert read["ratings.csv"]["sha256"] == hashlib.sha256(ratings.read_bytes()).hexdigest()
    frame = pd.read_csv("out/made/made.inter", sep="\t", dtype=str)
    times = pd.read_csv(ratings, dtype={"user": str}).set_index(["user", "item"])["time"]
    frame["time"] = [times[row] for row in zip(frame["userID"], frame["itemID"])]
    for _, rows in frame.groupby("userID"):  # the later, the higher the part
        assert rows.sort_values("time")["x_label"].is_monotonic_increasing
        assert set(rows["x_label"]) == {"0", "1", "2"}


def test_the_same_seed_gives_the_same_files(ratings):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        import_data(ratings, name, "table", "out", Columns("user", "item"), seed=seed)
    a, b, c = (Path(f"out/{name}/{name}.inter").read_bytes() for name in "abc")
    assert a == b != c


def test_the_earliest_of_repeated_pairs_stays(tmp_path):
    rows = [
        {"u": f"u{n}", "i": f"i{i}", "t": f"2014-07-{10 + i}"} for n in range(3) for i in range(5)
    ]
    rows += [{"u": "u0", "i": "i4", "t": "2014-07-01T00:00:00Z"}]  # now the first of u0
    write_table(tmp_path / "t.csv", rows)
    columns = Columns("u", "i", timestamp="t")
    made = import_data(tmp_path / "t.csv", "made", "table", "out", columns, split="temporal")
    assert [step["interactions"] for step in made["steps"]] == [16, 15]
    frame = pd.read_csv("out/made/made.inter", sep="\t", dtype=str).set_index(["userID", "itemID"])
    labels = frame["x_label"]["u0"].to_dict()
    assert labels == {"i0": "0", "i1": "0", "i2": "1", "i3": "2", "i4": "0"}


def test_rows_of_missing_and_unknown_items_are_counted(ratings, tmp_path, caplog):
    rows = np.ones((7, 2), np.float64)
    rows[1] = 0
    np.save(tmp_path / "image.npy", rows)
    (tmp_path / "image_ids.txt").write_text("i0\ni1\ni2\nx\ny\ni4\ni5\n")
    features = {"image": tmp_path / "image.npy"}
    made = import_data(ratings, "made", "table", "out", Columns("user", "item"), features)
    image = made["modalities"]["image"]
    assert (image["items"], image["missing"], image["unused"]) == (4, 2, 2)
    assert "2 of 6 items have no features" in caplog.text
    listed = [file["file"] for file in made["source"]["files"]]
    assert [Path(file).name for file in listed][1:] == ["image.npy", "image_ids.txt"]
    dataset = load(Path("out/made").absolute())
    mask = dict(zip(dataset.field2id_token["item_id"], dataset.modality_mask["image"].tolist()))
    assert {token for token, has in mask.items() if has} == {"i0", "i2", "i4", "i5"}


@pytest.fixture
def catalogue(ratings, tmp_path):
    """A table in which user 000 alone took i9; image features have x and y besides, audio x and z.

    Returns:
        The arguments of the command.
    """
    with open(ratings, "a", encoding="utf-8") as file:
        file.write("000,i9,5,1\n")
    given = []
    for name, items in (("image", "i0 x i1 i2 i3 i4 i5 i9 y"), ("audio", "z i5 x")):
        items = items.split()
        np.save(tmp_path / f"{name}.npy", 1 + np.arange(2.0 * len(items)).reshape(-1, 2))
        (tmp_path / f"{name}_ids.txt").write_text("\n".join(items), "utf-8")
        given.append(f"--features={name}={tmp_path / name}.npy")
    return [str(ratings), *IMPORT, *given, "--k_core=2"]


def test_rows_of_items_without_an_interaction_are_counted(catalogue, capsys):
    """i9, which the 2-core leaves out, had one."""
    assert run_command("import", *catalogue) == 0
    told = capsys.readouterr().out
    left = "rows of items without an interaction, left out (--keep_cold_items keeps them)"
    assert f"audio: 2 dimensions, 1 items, 5 missing; 2 {left}" in told
    assert f"image: 2 dimensions, 6 items, 0 missing; 2 {left}" in told
    made = json.loads(Path("out/made/manifest.json").read_text("utf-8"))
    image = made["modalities"]["image"]
    assert (image["unused"], image["cold"], made["cold_items"]) == (3, 2, 0)
    assert not Path("out/made/cold_items.txt").exists()


def test_items_without_an_interaction_are_kept(catalogue, capsys):
    assert run_command("import", *catalogue, "--keep_cold_items") == 0
    told = capsys.readouterr().out
    assert "items without an interaction: 3\n" in told
    kept = "2 rows of items without an interaction, kept"
    assert f"audio: 2 dimensions, 3 items, 6 missing; {kept}" in told
    assert f"image: 2 dimensions, 8 items, 1 missing; {kept}" in told
    assert sorted(Path("out/made/cold_items.txt").read_text("utf-8").splitlines()) == list("xyz")
    made = json.loads(Path("out/made/manifest.json").read_text("utf-8"))
    assert made["settings"]["keep_cold_items"] is True and made["cold_items"] == 3
    assert "cold_items.txt" in made["files"]
    dataset = load(Path("out/made").absolute())
    tokens = dataset.field2id_token["item_id"].tolist()
    assert set(tokens) == {"[PAD]", *(f"i{n}" for n in range(6)), *"xyz"}
    assert set(tokens[-3:]) == set("xyz")
    expected = {"image": {"x": [3, 4], "y": [17, 18]}, "audio": {"z": [1, 2], "x": [5, 6]}}
    for modality, rows in expected.items():
        features, mask = dataset.modality_features[modality], dataset.modality_mask[modality]
        for token in "xyz":
            row = dataset.token2id("item_id", token)
            assert mask[row] == (token in rows)
            if token in rows:
                assert features[row].tolist() == rows[token]
    # The interactions are those without the option.
    inter = Path("out/made/made.inter").read_bytes()
    arguments = [argument.replace("=made", "=other") for argument in catalogue]
    assert run_command("import", *arguments) == 0
    assert Path("out/other/other.inter").read_bytes() == inter


def test_numbered_items_without_an_interaction(tmp_path):
    """The matrices of MMSSL say how many items there are, and rows belong to them by position."""
    for name in ("trnMat", "valMat", "tstMat"):
        matrix = sp.lil_matrix((3, 6))
        matrix[0, {"trnMat": 1, "valMat": 2, "tstMat": 4}[name]] = 1
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(sp.csr_matrix(matrix)))
    rows = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    np.save(tmp_path / "image_feat.npy", rows)
    made = import_data(tmp_path, "made", "mmssl", "out", keep_cold_items=True)
    assert made["modalities"]["image"]["cold"] == made["cold_items"] == 3
    assert not Path("out/made/image_ids.txt").exists()
    np.testing.assert_array_equal(np.load("out/made/image_feat.npy"), rows)
    dataset = load(Path("out/made").absolute())
    tokens = dataset.field2id_token["item_id"].tolist()
    assert tokens == ["[PAD]", "1", "2", "4", "0", "3", "5"]
    for number, token in enumerate(tokens[1:], 1):
        assert dataset.modality_features["image"][number].tolist() == rows[int(token)].tolist()


def test_a_name_that_cannot_be_kept_is_told(catalogue, tmp_path, refused):
    np.save(tmp_path / "image_ids.npy", np.array([*(f"i{n}" for n in range(7)), "a\tb", "c"]))
    (tmp_path / "image_ids.txt").unlink()
    says = ["cannot be kept", r"'a\tb'", "tabs"]
    refused(*catalogue, "--keep_cold_items", says=says)
    assert run_command("import", *catalogue) == 0


def test_the_encoder_of_the_features_comes_with_them(tmp_path):
    """Of the file that the features are from, and of no other."""
    folder = write_mmrec(tmp_path / "raw", "toy")
    (folder / "image_encoder.safetensors").write_bytes(b"of image")
    (folder / "text_encoder.safetensors").write_bytes(b"of text")
    np.save(tmp_path / "titles.npy", np.load(folder / "text_feat.npy"))
    np.save(tmp_path / "songs.npy", np.load(folder / "text_feat.npy"))
    (tmp_path / "songs_encoder.safetensors").write_bytes(b"of songs")
    given = {"text": tmp_path / "titles.npy", "audio": tmp_path / "songs.npy"}
    made = import_data(folder, "made", "mmrec", "out", features=given)
    found = {path.name: path.read_bytes() for path in Path("out/made").glob("*encoder*")}
    assert found == {
        "image_encoder.safetensors": b"of image",
        "audio_encoder.safetensors": b"of songs",
    }
    assert set(found) < set(made["files"])
    read = {Path(entry["file"]).name for entry in made["source"]["files"]}
    assert {"image_encoder.safetensors", "songs_encoder.safetensors"} < read
    assert load(Path("out/made").absolute()).encoder_files == {
        modality: Path(f"out/made/{modality}_encoder.safetensors").absolute()
        for modality in ("audio", "image")
    }


@pytest.mark.parametrize("value", [0, np.inf])
def test_rows_that_are_all_zero_are_not_a_matter_of_ids(tmp_path, value):
    rows = np.full((3, 2), value)
    with pytest.raises(DataError, match="all items of the data set are zero, or not finite"):
        write_features(tmp_path, "image", ["a", "b"], [(["b", "a", "c"], rows)])
    with pytest.raises(DataError, match=r"Rows are of items x; .* Mend the ids"):
        write_features(tmp_path, "image", ["a", "b"], [(["x"], np.ones((1, 2)))])


# ---- without validation or test ------------------------------------------------------------------


def told_missing(text):
    """The parts that a command's output calls missing."""
    return [part for part in ("validation", "test") if f"there is no {part} part" in text]


@pytest.mark.parametrize(
    "ratios, sizes",
    [("1:0:0", (72, 0, 0)), ("8:2:0", (60, 12, 0)), ("8:0:2", (60, 0, 12))],
)
@pytest.mark.parametrize("split", ["random", "temporal", "temporal-global"])
def test_a_share_of_zero_leaves_a_part_out(ratings, capsys, split, ratios, sizes):
    if split == "temporal-global":
        sizes = tuple(72 * int(r) // sum(map(int, ratios.split(":"))) for r in ratios.split(":"))
        sizes = (72 - sum(sizes[1:]), *sizes[1:])
    given = "--timestamp=time", f"--split={split}", f"--ratios={ratios}"
    assert run_command("import", str(ratings), *IMPORT, *given) == 0
    expected = [part for part, n in zip(("validation", "test"), sizes[1:]) if n == 0]
    told = capsys.readouterr().out
    assert told_missing(told) == expected
    assert ("`run` trains all epochs" in told) == ("validation" in expected)
    parts = load(Path("out/made").absolute()).build()
    assert tuple(map(len, parts)) == sizes


@pytest.mark.parametrize("parts", ["train", "train valid", "train test"])
def test_a_split_of_the_source_may_lack_parts(tmp_path, capsys, parts):
    parts = parts.split()
    rows = [
        {"user": f"u{n % 4}", "item": f"i{n % 5}", "part": parts[n % len(parts)]} for n in range(20)
    ]
    write_table(tmp_path / "t.csv", rows)
    assert run_command("import", str(tmp_path / "t.csv"), *IMPORT, "--split_column=part") == 0
    missing = [
        long for long in ("validation", "test") if not any(long.startswith(p) for p in parts)
    ]
    assert told_missing(capsys.readouterr().out) == missing
    frame = pd.read_csv("out/made/made.inter", sep="\t", dtype=str)
    number = {"train": "0", "valid": "1", "test": "2"}
    assert set(zip(frame["userID"], frame["itemID"], frame["x_label"])) == {
        (row["user"], row["item"], number[row["part"]]) for row in rows
    }


def test_a_part_that_was_asked_for_may_not_be_empty(tmp_path, refused):
    rows = [{"user": f"u{n}", "item": "i", "part": "train"} for n in range(6)]
    rows += [{"user": f"u{n}", "item": "j", "part": "train"} for n in range(6)]
    path = tmp_path / "t.csv"
    write_table(path, rows)
    for how in ("--split=leave-one-out", "--ratios=8:1:1"):
        refused(path, *IMPORT, how, says=["validation part would be empty (12 interactions"])
    column = "--split_column=part"
    write_table(path, [*rows, {"user": "u0", "item": "rare", "part": "test"}])
    refused(path, *IMPORT, column, "--k_core=2", says=["the test part would be empty"])
    write_table(path, [{**row, "part": "valid"} for row in rows])
    refused(path, *IMPORT, column, says=["the training part would be empty"])


# ---- bad input -----------------------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path, capsys):
    """``refused(*arguments, says=[...])``: one message, status 2, and nothing is written."""

    def check(*arguments, says):
        before = snapshot(tmp_path)
        capsys.readouterr()
        assert run_command("import", *map(str, arguments)) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        for words in says:
            assert words in told
        after = snapshot(tmp_path)
        assert {name: after[name] for name in before} == before
        assert {Path(name).name for name in set(after) - set(before)} <= {".made.lock"}

    return check


@pytest.mark.parametrize(
    "text, says",
    [
        ("user,item\na\tb,i\n", ["[user]", "'a\\tb'", "row 1", "tabs"]),
        ('user,item\nu,i\nu,"i\n2"\n', ["[item]", "'i\\n2'", "row 2"]),
        ("user,item\nu,i\n,i\n", ["[user]", "['']", "row 2", "not empty"]),
        ("user,item\nu, i\n", ["[item]", "' i'", "space"]),
        ("user,item\nu,i,3\n", ["first row has more values"]),
        ("user,item\nu,i\nu,i,3\n", ["line 3", "saw 3"]),
        ("users,item\nu,i\n", ["no column [user]", "Did you mean 'users'?"]),
        ("user,item\n", ["training part would be empty", "0 interactions"]),
        ("", ["No columns"]),
        ("user,item\nu,i\n\xff\xfe,i\n".encode("latin-1"), ["utf-8"]),
    ],
)
def test_bad_tables(tmp_path, refused, text, says):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(path, *IMPORT, says=[str(path), *says] if "empty" not in says[0] else says)


@pytest.mark.parametrize(
    "column, value, arguments, says",
    [
        ("rating", "9", ["--rating_range=1:5"], ["[rating]", "'9'", "row 3", "from 1 to 5"]),
        ("rating", "-1", ["--rating_range=1:5"], ["[rating]", "'-1'"]),
        ("rating", "good", [], ["[rating]", "'good'", "must be a number"]),
        ("rating", "nan", [], ["[rating]", "'nan'"]),
        ("rating", "inf", [], ["[rating]", "'inf'"]),
        ("timestamp", "yesterday", [], ["[timestamp]", "'yesterday'", "2014-07-23"]),
        ("split_column", "learn", [], ["[split_column]", "'learn'", "train, training"]),
        ("split_column", "3", [], ["[split_column]", "'3'"]),
    ],
)
def test_bad_values(tmp_path, refused, column, value, arguments, says):
    good = {"rating": "3", "timestamp": "1400000000", "split_column": "Train"}
    rows = [{"user": f"u{n}", "item": "i", **good} for n in range(4)]
    rows[2][column] = value
    write_table(tmp_path / "t.tsv", rows)
    arguments = [f"--{column}={column}", *arguments]
    refused(tmp_path / "t.tsv", *IMPORT, *arguments, says=[str(tmp_path / "t.tsv"), *says])


def test_broken_json_lines_are_skipped_if_few(tmp_path, refused):
    lines = [b'{"user": "u%d", "item": "i%d"}' % (n // 5, n % 5) for n in range(300)]
    broken = [b'{"user": "u1", "it', b"[1, 2]", b'{"user": "\xff", "item": "i"}']
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join([*lines[:100], *broken, b"", *lines[100:]]))
    made = import_data(path, "ok", "table", "out", Columns("user", "item"))
    assert made["source"]["skipped"] == {"t.jsonl": {"not a JSON object": 3}}
    assert made["steps"][0]["interactions"] == 300
    path.write_bytes(b"\n".join([*lines[:100], *broken, *lines[100:290]]))
    refused(path, *IMPORT, says=["3 of 293 records", "more than 1%", "line 101"])


def test_a_gz_cut_short(tmp_path, refused):
    for name, text in (
        ("t.csv.gz", "user,item\n" + "".join(f"u{n * n},i{n}\n" for n in range(5000))),
        ("t.jsonl.gz", "".join(f'{{"user": "u{n * n}", "item": "i"}}\n' for n in range(5000))),
    ):
        whole = gzip.compress(text.encode())
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        refused(tmp_path / name, *IMPORT, says=[name, "cut short"])


def test_a_pickle_that_is_not_what_it_says(tmp_path, refused):
    target = tmp_path / "owned"
    arguments = ("--format=mmssl", "--name=made", "--out=out")
    hostile = pickle.dumps(Payload(target))
    pickle.loads(hostile)
    assert target.exists()  # it is hostile indeed
    target.unlink()
    matrix = sp.csr_matrix(np.eye(3))
    wrong = sp.csr_matrix(np.eye(3))
    wrong.indices[1] = 7  # beyond the shape
    for content, says in (
        (hostile, "names pathlib"),
        (pickle.dumps({"a": matrix}), "holds a dict"),
        (pickle.dumps(np.eye(3)), "holds a ndarray"),
        (pickle.dumps(wrong), "indices"),
        (pickle.dumps(matrix)[:-20], "not a pickled SciPy matrix"),
        (b"", "not a pickled SciPy matrix"),
        (b"cos\nsystem\n(S'true'\ntR.", "names os.system"),
    ):
        folder = tmp_path / "mmssl"
        folder.mkdir(exist_ok=True)
        for name in ("trnMat.pkl", "valMat.pkl", "tstMat.pkl"):
            (folder / name).write_bytes(pickle.dumps(matrix))
        (folder / "valMat.pkl").write_bytes(content)
        refused(folder, *arguments, says=[str(folder / "valMat.pkl"), says])
        assert not target.exists()


def read_matrix(path):
    """A pickled matrix as a dense one, 1 at the entries that are not zero."""
    matrix = sparse_pickle.read_matrix(path)
    dense = np.zeros(matrix.shape)
    np.add.at(dense, (matrix.rows, matrix.columns), 1)
    return dense


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("layout", ["csr", "csc", "coo"])
@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_matrices_of_all_layouts(tmp_path, layout, protocol, array, large):
    """``large``: arrays that the pickle holds outside of its frames."""
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 3, (150, 200)).astype(np.float64) if large else np.eye(2, 3)
    matrix = sp.csr_array(dense) if array else sp.csr_matrix(dense)
    matrix.data[::7] = 0.0  # stored, and no interaction
    if large:
        assert matrix.data.nbytes > 2**16
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(matrix.asformat(layout), protocol))
    np.testing.assert_array_equal(read_matrix(tmp_path / "m.pkl"), matrix.toarray() != 0)
    expected = matrix.asformat(layout).tocoo()
    expected.eliminate_zeros()
    _, *found = sparse_pickle.read_matrix(tmp_path / "m.pkl")
    np.testing.assert_array_equal(found, [expected.row, expected.col])  # in SciPy's order


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.uint16, np.int64, np.float32, ">f8", ">i4"])
def test_matrices_of_all_types(tmp_path, kind):
    matrix = sp.csr_matrix(np.eye(3))
    matrix.data = np.array([1, 0, 1]).astype(kind)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(matrix))
    np.testing.assert_array_equal(read_matrix(tmp_path / "m.pkl"), np.diag([1, 0, 1]))


def pickled(state, protocol=4, **changes):
    """A CSR matrix's pickle, with other attributes."""
    matrix = sp.csr_matrix(np.array([[0, 1, 0], [2, 0, 3.0]]))
    vars(matrix).update({**state, **changes})
    return pickle.dumps(matrix, protocol)


@pytest.mark.parametrize(
    "state, says",
    [
        ({"_shape": (2, 10**5000)}, "its shape is not two numbers"),
        ({"_shape": (2, -5)}, "its shape is not two numbers"),
        ({"_shape": (2, 3, 3)}, "its shape is not two numbers"),
        ({"_shape": (2.0, 3)}, "its shape is not two numbers"),
        ({"_shape": (3, 3)}, "its offsets do not fit"),
        ({"indices": np.array([1, -1, 2])}, "its indices are beyond its shape"),
        ({"indices": np.array([1, 3, 2])}, "its indices are beyond its shape"),
        ({"indices": np.array([1.0, 0, 2])}, "its indices are of type float64"),
        ({"indices": np.array([1, 0])}, "differ in number"),
        ({"indices": [1, 0, 2]}, "one of its arrays is a list"),
        ({"indptr": np.array([0, 2, 1])}, "its offsets do not fit"),
        ({"indptr": np.array([1, 2, 3])}, "its offsets do not fit"),
        ({"indptr": np.array([0, 1, 4])}, "its offsets do not fit"),
        ({"data": np.array([1, 2, 3], object)}, "an array is of type O8"),
        ({"data": np.array([1, 2, 3], complex)}, "an array is of type c16"),
    ],
)
def test_matrices_that_are_none(tmp_path, state, says):
    (tmp_path / "m.pkl").write_bytes(pickled(state))
    with pytest.raises(DataError) as error:
        read_matrix(tmp_path / "m.pkl")
    assert says in str(error.value) and str(tmp_path / "m.pkl") in str(error.value)


@pytest.mark.parametrize("order", ["<", ">"])
def test_indices_of_either_byte_order(tmp_path, order):
    state = {"indices": np.array([1, 0, 2]).astype(f"{order}i4")}
    (tmp_path / "m.pkl").write_bytes(pickled(state, indptr=np.array([0, 1, 3], f"{order}i8")))
    np.testing.assert_array_equal(read_matrix(tmp_path / "m.pkl"), [[0, 1, 0], [1, 0, 1]])


def test_a_large_matrix_that_is_cut_short_or_in_a_frame(tmp_path):
    whole = pickle.dumps(sp.csr_matrix(np.ones((200, 200))), 4)
    path = tmp_path / "m.pkl"
    for cut in (len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="is not a pickled SciPy matrix"):
            read_matrix(path)
    body = pickle.dumps(sp.csr_matrix(np.ones((200, 200))), 3)[2:]  # which has no frames
    path.write_bytes(b"\x80\x04\x95" + len(body).to_bytes(8, "little") + body)
    assert read_matrix(path).all()


def reduced(*operations: bytes) -> bytes:
    return b"\x80\x04" + b"".join(operations) + b"."


def test_a_pickle_cannot_change_the_reader_or_swell(tmp_path):
    encode = b"c_codecs\nencode\n"
    text = b"X" + (2**20).to_bytes(4, "little") + b"a" * 2**20 + b"q\x00"
    again = encode + b"h\x00X\x06\x00\x00\x00latin1\x86R0"
    for content, says in (
        (reduced(encode, b"N}X\x01\x00\x00\x00aK\x01s\x86b"), "sets the state of something else"),
        (reduced(b"cscipy.sparse\ncsr_matrix\n", b"}b"), "sets the state of something else"),
        (reduced(text, again * 20_000), "characters as latin1"),
        (reduced(b"\x8e" + (2**62).to_bytes(8, "little")), "cut short"),
        (reduced(b"\x96" + (2**40).to_bytes(8, "little")), "cut short"),
        (reduced(b"\x96" + (2**63 + 5).to_bytes(8, "little")), "cut short"),
    ):
        (tmp_path / "m.pkl").write_bytes(content)
        with pytest.raises(DataError, match=says):
            read_matrix(tmp_path / "m.pkl")


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_empty_matrix(tmp_path, protocol, refused):
    for name in ("trnMat.pkl", "valMat.pkl", "tstMat.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(sp.csr_matrix((2, 3)), protocol))
    arguments = ("--format=mmssl", "--name=made", "--out=out")
    refused(tmp_path, *arguments, says=["training part would be empty"])


def test_old_names_of_modules_are_known(tmp_path):
    """As SciPy < 1.8 and NumPy < 2 wrote them."""
    content = pickle.dumps(sp.csr_matrix(np.eye(2)), 2)
    content = content.replace(b"scipy.sparse._csr", b"scipy.sparse.csr")
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "m.pkl").write_bytes(content)
    np.testing.assert_array_equal(read_matrix(tmp_path / "m.pkl"), np.eye(2))


@pytest.mark.parametrize(
    "content, says",
    [
        ("{", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ('{"7": [0],}', "line 1 column 1"),  # at the comma or after it, by the version of Python
        ('{"7": [0] "8": [0]}', "Expecting ',' delimiter: line 1 column 11 (char 10)"),
        ('{"7": [0]} {}', "Extra data: line 1 column 12 (char 11)"),
        ('{"7": [0', "Expecting ',' delimiter: line 1 column 9 (char 8)"),
        ('{"7": [0], "8": nan}', "Expecting value: line 1 column 17 (char 16)"),
        ("\\udcff", "cannot be read as JSON"),
        ('{"7": [0], "8": [0], "7": [1]}', "[7] is there more than once"),
        ('{"7": [0], "07": [1]}', "user [07]"),
        ("[]", "must be an object"),
        ('{"0": 1}', "user [0]"),
        ('{"0": [1.5]}', "user [0]"),
        ('{"a": [1]}', "user [a]"),
        ('{"0": [-1]}', "user [0]"),
        ('{"0": [true]}', "user [0]"),
        ('{"0": [99999999999999]}', "user [0]"),
    ],
)
def test_bad_lists(tmp_path, refused, content, says):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.json").write_text('{"0": [0]}')
    (tmp_path / "val.json").write_text(content)
    says = [str(tmp_path / "val.json"), says]
    refused(tmp_path, "--format=lattice", "--name=made", "--out=out", says=says)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_lists_in_every_encoding_of_json(tmp_path, encoding):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.json").write_text('{"7": [1, 0], "8": [1]}', encoding)
    pairs = read_lattice(tmp_path).pairs
    assert (pairs.user_tokens, pairs.item_tokens) == (["7", "8"], ["0", "1"])
    users, items, labels = next(pairs.batches())
    assert (users.tolist(), items.tolist()) == (3 * [0, 0, 1], 3 * [1, 0, 1])
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_lists_longer_than_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_sigrec.preparation.importers.folders.ROWS", 7)
    lists = {str(user): [user, user + 1, user + 2] for user in range(30)}
    (tmp_path / "train.json").write_text(json.dumps(lists))
    for name, items in (("val", [40]), ("test", [41])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"0": items}))
    made = import_data(tmp_path, "made", "lattice", "out")
    assert made["split"] == {"train": 90, "valid": 1, "test": 1}
    lines = Path("out/made/made.inter").read_text().splitlines()[1:91]
    assert lines == [f"{u}\t{i}\t0" for u, items in lists.items() for i in items]


def test_a_pair_in_two_parts_and_rows_that_do_not_fit(tmp_path, refused):
    arguments = ("--format=lattice", "--name=made", "--out=out")
    for name, items in (("train", [0, 1]), ("val", [2]), ("test", [1])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"7": items}))
    refused(tmp_path, *arguments, says=["(7, 1)", "two parts", "--split random"])
    made = import_data(tmp_path, "anew", "lattice", "out", split="random")
    assert made["split"] == {"train": 1, "valid": 1, "test": 1}
    np.save(tmp_path / "image_feat.npy", np.ones((5, 2)))
    refused(tmp_path, *arguments, says=["image_feat.npy has 5 rows", "0 … 2"])


def test_wrong_arguments(ratings, refused, tmp_path):
    refused(ratings, *IMPORT, "--split=radnom", says=["[radnom]", "Did you mean 'random'?"])
    refused(ratings, *IMPORT, "--split=temporal", says=["--timestamp"])
    refused(ratings, *IMPORT, "--split=given", says=["--split_column"])
    refused(ratings, *IMPORT, "--ratios=8:2", says=["[8:2]", "8:1:1"])
    refused(ratings, *IMPORT, "--k_core=-1", says=["k_core [-1]"])
    refused(ratings, *IMPORT, "--k_core=50", says=["50-core", "lower"])
    refused(ratings, *IMPORT, "--min_rating=3", says=["--rating"])
    refused(ratings, *IMPORT, "--features=image", says=["[image]", "MODALITY=FILE"])
    refused(ratings, *IMPORT, "--features=a/b=f.npy", says=["[a/b]"])
    twice = ("--features=a=x.npy", "--features=b=x.npy", "--features=a=y.npy")
    refused(ratings, *IMPORT, *twice, says=["modality [a] is given twice"])
    of_table = ("--user=u", "--min_rating=4")
    given = ("--format=lattice", "--name=made")
    refused(tmp_path, *given, *of_table, says=["--user, --min_rating: only a table"])
    refused(ratings, *IMPORT, "--features=a=no.npy", says=["no.npy does not exist"])
    refused(tmp_path / "no.csv", *IMPORT, says=["no.csv does not exist"])
    refused(ratings, "--format=table", "--name=made", says=["--user"])
    refused(ratings, "--format=tabel", "--name=made", says=["Did you mean 'table'?"])
    refused(ratings, *IMPORT[:3], "--name=../made", says=["[../made]", "plain folder name"])
    (tmp_path / "t.xlsx").write_bytes(b"")
    refused(tmp_path / "t.xlsx", *IMPORT, says=["[.xlsx]", ".csv"])


# ---- whole or not at all -------------------------------------------------------------------------


def test_nothing_is_overwritten(ratings, refused):
    write_mmrec(Path("out"), "made")
    refused(ratings, *IMPORT, says=["out/made is there already", "another name"])


def test_a_full_disk_leaves_nothing(ratings, tmp_path, capsys):
    """A limit on the size of files stands in for the disk's: the write fails in the same way."""
    np.save(tmp_path / "image.npy", np.ones((6, 50_000), np.float32))
    (tmp_path / "image_ids.txt").write_text("".join(f"i{n}\n" for n in range(6)))
    arguments = (str(ratings), *IMPORT, f"--features=image={tmp_path / 'image.npy'}")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        assert run_command("import", *arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capsys.readouterr().err
    assert "out/made was not written: File too large" in told
    assert [path.name for path in Path("out").iterdir() if path.is_dir()] == []
    assert run_command("import", *arguments) == 0
    assert load(Path("out/made").absolute()).modality_features["image"].shape == (7, 50_000)


KILLED = """
import os, signal, sys
from recbole_sigrec.preparation import build
from recbole_sigrec.cli import main
build.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def test_a_killed_import_leaves_no_data_set_and_is_made_good(ratings):
    command = [sys.executable, "-c", KILLED, "import", str(ratings), *IMPORT]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert os.listdir("out/.made.part") == ["made.inter"]
    assert not Path("out/made").exists()
    assert run_command("import", str(ratings), *IMPORT) == 0
    assert sorted(os.listdir("out/made")) == ["made.inter", "manifest.json"]
    assert not Path("out/.made.part").exists()


def test_two_at_once_are_refused(ratings, refused):
    Path("out").mkdir()
    with FileLock("out/.made.lock"):
        refused(ratings, *IMPORT, says=["another process is writing out/made"])


def test_a_table_larger_than_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_sigrec.preparation.importers.table.ROWS", 7)
    rows = [{"u": f"u{n % 9}", "i": f"i{n}"} for n in range(100)]
    for suffix in ("csv", "jsonl"):
        write_table(tmp_path / f"t.{suffix}", rows)
        import_data(tmp_path / f"t.{suffix}", suffix, "table", "out", Columns("u", "i"))
        frame = pd.read_csv(f"out/{suffix}/{suffix}.inter", sep="\t", dtype=str)
        assert list(zip(frame["userID"], frame["itemID"])) == [(r["u"], r["i"]) for r in rows]
    for n, row in enumerate(rows):
        row["t"] = str(n) if n < 70 else "2014-07-23"  # each batch of one kind
    write_table(tmp_path / "bad.csv", rows)
    with pytest.raises(DataError, match=r"\[t\] is \['2014-07-23'\] in row 71 "):
        read_table(tmp_path / "bad.csv", Columns("u", "i", timestamp="t"))
    rows[40]["u"] = ""
    write_table(tmp_path / "bad.csv", rows)
    with pytest.raises(DataError, match=r"row 41 "):
        import_data(tmp_path / "bad.csv", "bad", "table", "out", Columns("u", "i"))
