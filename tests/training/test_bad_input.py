"""Bad input: one clear message, status 2, before training, and nothing of the user's changed."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_data import (
    N_ITEMS,
    N_USERS,
    SMALL,
    Payload,
    features,
    interactions,
    run_on,
    snapshot,
    write_atomic,
    write_mmrec,
)

from recbole_sigrec import Config
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model_names import MODELS
from recbole_sigrec.training import checkpoint


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def folder(tmp_path):
    """A sound data set in MMRec's layout, for a test to spoil."""
    return write_mmrec(tmp_path / "data")


@pytest.fixture
def atomic(tmp_path):
    """A sound data set of RecBole atomic files, without modalities."""
    return write_atomic(tmp_path / "data")


@pytest.fixture
def refused(tmp_path, capsys, caplog):
    """``refused(folder, *arguments, says=[...])``: the run is refused as it should be."""

    def check(folder, *arguments, says):
        before = snapshot(tmp_path)
        capsys.readouterr()
        caplog.clear()
        assert run_on(folder, *arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("error: ") == 1
        for words in says:
            assert words in message
        assert "epoch 0 training" not in caplog.text
        assert snapshot(tmp_path) == before

    return check


@pytest.fixture
def accepted(tmp_path, caplog):
    """``accepted(folder, *arguments)``: the run succeeds; returns (its result, its log)."""

    def check(folder, *arguments):
        file = tmp_path / "result.json"
        caplog.clear()
        assert run_on(folder, *arguments, f"--result_file={file}") == 0
        return json.loads(file.read_text("utf-8")), caplog.text

    return check


def test_sound_data_trains_and_leaves_a_trace(folder, tmp_path, accepted, capsys):
    """What the other tests assert to be absent is there when nothing is wrong."""
    before = snapshot(tmp_path)
    result, log = accepted(folder)
    assert "epoch 0 training" in log
    assert "error: " not in capsys.readouterr().err
    new = set(snapshot(tmp_path)) - set(before)
    assert {name.rpartition("/")[0] for name in new if name.endswith(".pth")} == {"saved"}
    assert result["split"] == {"train": 4 * N_USERS, "valid": N_USERS, "test": N_USERS}


def test_program_prints_one_message_and_no_traceback(folder):
    np.save(folder / "image_feat.npy", features(N_ITEMS - 1))
    small = [f"--{key}={value}" for key, value in SMALL.items()]
    program = [sys.executable, "-m", "recbole_sigrec.cli", "run", *small, "--dataset=toy"]
    done = subprocess.run(
        [*program, f"--data_path={folder.parent}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {folder / 'image_feat.npy'} has 19 rows"
    )
    assert "Traceback" not in done.stderr
    assert "epoch 0 training" not in done.stderr


# ---- feature files -------------------------------------------------------------------------------


def spoil(*rows, value=np.nan):
    array = features()
    array[list(rows), 1] = value
    return array


def save(name, array, **options):
    return lambda folder: np.save(folder / name, array, **options)


def cut(folder):
    path = folder / "image_feat.npy"
    path.write_bytes(path.read_bytes()[:-40])


def one_pickle(folder):
    (folder / "image_feat.npy").write_bytes(pickle.dumps(features()))


def two_files(folder):
    np.savez(folder / "image_feat.npz", features())


def many_arrays(folder):
    (folder / "image_feat.npy").unlink()
    np.savez(folder / "image_feat.npz", a=features(), b=features())


def broken_safetensors(folder):
    (folder / "image_feat.npy").unlink()
    (folder / "image_feat.safetensors").write_bytes(b"\x10" * 50)


FEATURE_FILES = {
    "fewer rows": (
        save("image_feat.npy", features(19)),
        ["19 rows", "20 rows exp", "image_ids.txt"],
    ),
    "more rows": (
        save("image_feat.npy", features(21)),
        ["21 rows", "20 rows exp", "image_ids.txt"],
    ),
    "NaN": (save("image_feat.npy", spoil(3, 17)), ["row(s) 3, 17 (counted from 0)", "to zero"]),
    "infinity": (save("image_feat.npy", spoil(5, value=-np.inf)), ["row(s) 5 (", "to zero"]),
    "many NaN": (save("image_feat.npy", spoil(*range(2, 9))), ["2, 3, 4, 5, 6, … (7 in all)"]),
    "beyond float32": (
        save("image_feat.npy", np.where(np.eye(N_ITEMS, 6), 1e300, 1.0)),
        ["row(s) 0, 1, 2, 3, 4"],
    ),
    "objects": (
        save("image_feat.npy", features().astype(object), allow_pickle=True),
        ["allow_pickle=False", "numpy.save"],
    ),
    "a pickle": (one_pickle, ["cannot be read as a numeric array", "numpy.save"]),
    "truncated": (cut, ["cannot be read as a numeric array", "numpy.save"]),
    "empty file": (
        lambda folder: (folder / "image_feat.npy").write_bytes(b""),
        ["cannot be read as a numeric array"],
    ),
    "one dimension": (save("image_feat.npy", features()[:, 0]), ["(20,)", "[rows, dimension]"]),
    "three dimensions": (save("image_feat.npy", features()[None]), ["(1, 20, 6)", "[rows, dim"]),
    "no columns": (save("image_feat.npy", features(d=0)), ["(20, 0)", "[rows, dimension]"]),
    "text": (save("image_feat.npy", features().astype(str)), ["type <U", "row of numbers"]),
    "complex": (save("image_feat.npy", features().astype(complex)), ["complex", "row of numbers"]),
    "two files": (two_files, ["image_feat.npz", "keep one"]),
    "several arrays": (many_arrays, ["image_feat.npz holds 2 arrays (a, b)", "'features'"]),
    "no safetensors": (broken_safetensors, ["image_feat.safetensors cannot be read"]),
}


@pytest.mark.parametrize("defect", FEATURE_FILES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_feature_file(folder, refused, defect):
    spoil_it, says = FEATURE_FILES[defect]
    spoil_it(folder)
    refused(folder, says=[str(folder / "image_feat"), *says])


@pytest.mark.parametrize("name", ["clip.vit", "type", "keys", "forward"])
def test_modality_name_that_torch_reserves(folder, refused, accepted, name):
    np.save(folder / f"{name}_feat.npy", features())
    refused(folder, says=[f"[{name}]", "Rename"])
    accepted(folder, "--modalities=[image, text]")


@pytest.mark.parametrize("name", ["image_feat.npy", "image_feat.npz", "image_ids.npy"])
def test_hostile_pickle_in_a_data_folder_does_not_run(folder, refused, tmp_path, name):
    target = tmp_path / "owned"
    hostile = pickle.dumps(Payload(target))
    pickle.loads(hostile)
    assert target.exists()  # it is hostile indeed
    target.unlink()
    if name.startswith("image_feat"):
        (folder / "image_feat.npy").unlink()
    (folder / name).write_bytes(hostile)
    refused(folder, says=[str(folder / name)])
    assert not target.exists()


def test_hostile_object_array_does_not_run(folder, refused, tmp_path):
    target = tmp_path / "owned"
    np.save(folder / "text_feat.npy", np.array([[Payload(target)]]), allow_pickle=True)
    np.load(folder / "text_feat.npy", allow_pickle=True)
    assert target.exists()
    target.unlink()
    refused(folder, says=[str(folder / "text_feat.npy")])
    assert not target.exists()


def test_zero_rows_count_as_missing(folder, accepted):
    array = features()
    array[[4, 11]] = 0.0
    np.save(folder / "image_feat.npy", array)
    _, log = accepted(folder)
    assert "image: 6 dimensions, 18 of 20 items (90.0 %), 2 zero row(s) counted as missing" in log
    assert "text: 6 dimensions, 20 of 20 items (100.0 %), from" in log


def test_a_feature_file_of_zeros_alone(folder, refused):
    np.save(folder / "image_feat.npy", np.zeros((N_ITEMS, 3)))
    refused(folder, says=[str(folder / "image_feat.npy"), "no row belongs"])


# ---- ids files -----------------------------------------------------------------------------------

IDS = [str(n) for n in range(N_ITEMS)]


def ids(lines, name="image_ids.txt"):
    return lambda folder: (folder / name).write_text("\n".join(lines) + "\n", "utf-8")


IDS_FILES = {
    "duplicates": (ids(["3", "7", *IDS[2:]]), ["image_ids.txt", "3, 7 more than once", "keep one"]),
    "unknown": (ids(["x9", *IDS[1:]]), ["1 row(s)", "does not know: x9", "strict_ids: False"]),
    "fewer than rows": (ids(IDS[1:]), ["image_ids.txt names 19", "20 rows", "in order"]),
    "more than rows": (ids([*IDS, "20"]), ["image_ids.txt names 21", "20 rows", "in order"]),
    "an empty line": (ids([*IDS[:5], "", *IDS[6:]]), ["line(s) 6", "one item token"]),
    "two columns": (
        ids([f"{n},{n}" for n in IDS], "image_ids.csv"),
        ["image_ids.csv", "line(s) 1, 2, 3, 4, 5, … (20 in all)", "one item token"],
    ),
    "empty": (ids([]), ["image_ids.txt", "line(s) 1"]),
    "objects": (
        save("image_ids.npy", np.array(IDS, dtype=object), allow_pickle=True),
        ["image_ids.npy", "strings or integers"],
    ),
    "a matrix": (save("image_ids.npy", np.array([IDS])), ["image_ids.npy", "(1, 20)", "per row"]),
    "not UTF-8": (
        lambda folder: (folder / "image_ids.txt").write_bytes(b"\xe9\n" * N_ITEMS),
        ["image_ids.txt", "save it as UTF-8"],
    ),
    "two of them": (
        lambda folder: [ids(IDS, f"image_ids.{kind}")(folder) for kind in ("txt", "csv")],
        ["image_ids.txt", "image_ids.csv", "keep one"],
    ),
}


@pytest.mark.parametrize("defect", IDS_FILES)
def test_ids_file(folder, refused, defect):
    spoil_it, says = IDS_FILES[defect]
    spoil_it(folder)
    refused(folder, says=[str(folder), *says])


def test_ids_file_without_some_items(folder, refused, accepted):
    np.save(folder / "image_feat.npy", features(18))
    ids(IDS[2:])(folder)
    refused(folder, says=[str(folder), "2 item(s) have no row", ": 0, 1.", "strict_ids: False"])
    _, log = accepted(folder, "--strict_ids=False")
    assert "image: 6 dimensions, 18 of 20 items (90.0 %), from" in log


def test_ids_file_with_unknown_items_may_be_accepted(folder, accepted):
    ids(["x9", *IDS[1:]])(folder)
    _, log = accepted(folder, "--strict_ids=False")
    assert "image: 6 dimensions, 19 of 20 items (95.0 %), from" in log


def test_ids_that_fit_no_item_are_refused_even_then(folder, refused):
    ids([f"x{n}" for n in IDS])(folder)
    refused(folder, "--strict_ids=False", says=[str(folder / "image_feat.npy"), "no row belongs"])


@pytest.mark.parametrize("token", ["07", "7.0", "i7", "-1", "7e0"])
def test_rows_are_positions_only_where_tokens_are_row_numbers(tmp_path, refused, token):
    frame = interactions().astype({"itemID": str}).replace({"itemID": {"7": token}})
    folder = write_mmrec(tmp_path / "data", frame=frame)
    says = [str(folder / "image_feat.npy"), f"item token [{token}]", "add image_ids.txt"]
    refused(folder, says=says)


# ---- modalities ----------------------------------------------------------------------------------


def test_modality_without_a_file(folder, refused):
    says = ["[imag]", str(folder / "imag_feat.npy"), "Did you mean 'image'?", "image, text"]
    refused(folder, "--modalities=[imag]", says=says)


@pytest.mark.parametrize("model", MODELS)
def test_data_set_without_modalities(tmp_path, refused, accepted, model):
    folder = write_mmrec(tmp_path / "data", modalities={})
    says = [model, "toy", str(folder), "<modality>_feat.npy", "item_modalities"]
    refused(folder, f"--model={model}", says=says)
    accepted(folder, "--model=LightGCN")


def test_item_columns_that_are_not_there(tmp_path, atomic, refused):
    columns = "--item_modalities={text: {columns: [titel]}}"
    refused(atomic, columns, says=[str(atomic / "atomic.item"), "does not exist"])
    write_atomic(tmp_path / "data", items={"title:token_seq": ["word"] * N_ITEMS})
    refused(atomic, columns, says=["atomic.item has no column [titel]", "Did you mean 'title'?"])
    columns = "--item_modalities={text: {columns: [title], encoder: bert}}"
    refused(atomic, columns, says=["item_modalities.text.encoder", "bert", "'tfidf'"])


def test_item_columns_without_content(tmp_path, refused):
    folder = write_atomic(tmp_path / "data", items={"title:token_seq": [""] * N_ITEMS})
    for encoder, says in (("tfidf", "hold text"), ("multi_hot", "hold no value")):
        columns = f"--item_modalities={{t: {{columns: [title], encoder: {encoder}}}}}"
        refused(folder, columns, says=[encoder, says])


# ---- interactions --------------------------------------------------------------------------------


def table(frame) -> str:
    return frame.to_csv(sep="\t", index=False)


def rename(**names):
    return table(interactions().rename(columns=names))


def relabel(value):
    """Line 4, user 0's third, gets another split label."""
    frame = interactions().astype({"x_label": object})
    frame.loc[2, "x_label"] = value
    return table(frame)


SOUND = table(interactions())
HEADER = "userID\titemID\tx_label\n"
INTER_FILES = {
    "no user column": (rename(userID="who"), ["no user column", "who, itemID", "USER_ID_FIELD"]),
    "no item column": (rename(itemID="what"), ["no item column", "userID, what", "ITEM_ID_FIELD"]),
    "no split column": (rename(x_label="x_labl"), ["no column [x_label]", "Did you mean 'x_labl'"]),
    "label 3": (relabel(3), ["must be 0, 1 or 2", "[3] on line 4", "1 such"]),
    "label -1": (relabel(-1), ["must be 0, 1 or 2", "[-1] on line 4"]),
    "label .5": (relabel(0.5), ["must be 0, 1 or 2", "[0.5] on line 4"]),
    "label text": (relabel("train"), ["must be 0, 1 or 2", "[train] on line 4"]),
    "label empty": (relabel(""), ["must be 0, 1 or 2", "[] on line 4"]),
    "a pair twice": (
        SOUND + "0\t0\t0\n0\t3\t0\n",
        ["user 0 and item 0", "2 times, in training", "2, 146", "2 line(s) repeat", "Remove them"],
    ),
    "a pair in training and test": (
        SOUND + "5\t5\t2\n",
        ["user 5 and item 5", "in training and test (lines 32, 146)", "Remove them"],
    ),
    "a pair in training and validation": (
        SOUND + "5\t5\t1\n",
        ["user 5 and item 5", "in training and validation (lines 32, 146)"],
    ),
    "empty": ("", ["is empty", "its first line must name the columns"]),
    "a header alone": (HEADER, ["holds no interactions"]),
    "no training part": (table(interactions().query("x_label > 0")), ["x_label 0, the training"]),
    "an empty user": (SOUND + "\t1\t0\n", ["column [userID] is empty on line(s) 146"]),
    "an empty item": (SOUND + "9\t \t0\n", ["column [itemID] is empty on line(s) 146"]),
    "a short line": (
        "x_label\tuserID\titemID\n0\t0\t0\n0\t5\n1\t0\t1\n2\t0\t2\n",
        ["column [itemID] is empty on line(s) 3"],
    ),
    "commas": (SOUND.replace("\t", ","), ["no user column", "userID,itemID,x_label"]),
    "a byte order mark": ("\ufeff" + SOUND, ["byte order mark", "UTF-8 without one"]),
}
TYPED = "user_id:token\titem_id:token"
ATOMIC_FILES = {
    "no user column": ("who:token\titem_id:token\na\tb\n", ["[user_id]", "who", "USER_ID_FIELD"]),
    "no item column": ("user_id:token\twhat:token\na\tb\n", ["[item_id]", "what", "ITEM_ID_FIELD"]),
    "an untyped column": (
        f"{TYPED}\tx_label\na\tb\t0\n",
        ["column [x_label] has no type", "token"],
    ),
    "a split that would be ignored": (
        f"{TYPED}\tx_label:float\na\tb\t0\n",
        ["split column [x_label]", "without types"],
    ),
    "an unknown type": ("user_id:token\titem_id:tokn\na\tb\n", ["column [item_id:tokn]", "token,"]),
    "empty": ("", ["is empty", "its first line must name the columns"]),
    "a header alone": (f"{TYPED}\n", ["holds no interactions"]),
}


@pytest.mark.parametrize("defect", INTER_FILES)
def test_inter_file(folder, refused, defect):
    text, says = INTER_FILES[defect]
    (folder / "toy.inter").write_text(text, "utf-8")
    refused(folder, says=[str(folder / "toy.inter"), *says])


@pytest.mark.parametrize("defect", ATOMIC_FILES)
def test_atomic_inter_file(atomic, refused, defect):
    text, says = ATOMIC_FILES[defect]
    (atomic / "atomic.inter").write_text(text, "utf-8")
    refused(atomic, "--model=BPR", says=[str(atomic / "atomic.inter"), *says])


def test_inter_file_that_is_no_text(folder, refused):
    (folder / "toy.inter").write_bytes(b"\x80\x02" + SOUND.encode())
    refused(folder, says=[str(folder / "toy.inter"), "UTF-8"])
    (folder / "toy.inter").write_bytes(SOUND.encode() + 20_000 * b"u\xe9\t1\t0\n")
    refused(folder, says=[str(folder / "toy.inter"), "utf-8"])


def test_inter_file_missing(folder, refused):
    (folder / "toy.inter").rename(folder / "toy.csv")
    refused(folder, says=[str(folder / "toy.inter"), "does not exist"])


def test_atomic_files_that_repeat_a_pair(tmp_path, refused, accepted):
    frame = interactions()
    repeated = frame.iloc[[0, 0, 8]]
    folder = write_atomic(tmp_path / "data", frame=frame._append(repeated))
    says = [str(folder), "repeat 3 pair(s)", "user u0 and item i0", "rm_dup_inter"]
    refused(folder, "--model=BPR", says=says)
    result, _ = accepted(folder, "--model=BPR", "--rm_dup_inter=first")
    assert sum(result["split"].values()) == len(frame)


def write_benchmark(root, frame):
    folder = root / "parts"
    folder.mkdir(parents=True)
    frame = frame.rename(columns={"userID": "user_id:token", "itemID": "item_id:token"})
    for label, part in enumerate(("train", "valid", "test")):
        table_ = frame[frame["x_label"] == label].drop(columns="x_label")
        table_.to_csv(folder / f"parts.{part}.inter", sep="\t", index=False)
    return folder


def test_benchmark_files(tmp_path, refused, accepted):
    frame = interactions()
    folder = write_benchmark(tmp_path / "a", frame)
    parts = "--benchmark_filename=[train, valid, test]"
    result, _ = accepted(folder, "--model=BPR", parts)
    assert result["split"] == {"train": 96, "valid": 24, "test": 24}
    (folder / "parts.valid.inter").unlink()
    refused(folder, "--model=BPR", parts, says=[str(folder / "parts.valid.inter")])

    frame.loc[len(frame)] = [5, 5, 2]
    folder = write_benchmark(tmp_path / "b", frame)
    says = [str(folder), "repeat 1 pair(s)", "user 5 and item 5", "Remove them"]
    refused(folder, "--model=BPR", parts, says=says)


UNUSABLE = {
    "--user_inter_num_interval=[50,inf)": ["atomic", "empty", "filter"],
    "--eval_args={split: {RS: [0.8, 0.2]}}": ["eval_args", "2 part(s)", "validation and test"],
    "--eval_args={split: {XX: [0.8, 0.1, 0.1]}}": ["eval_args", "[XX]", "It has: RS, LS, TS"],
    "--eval_args={order: XX}": ["eval_args", "[order] = [XX]", "'RO', 'TO'"],
    "--eval_args={order: TO}": ["atomic", "timestamp"],
    "--load_col={inter: [user_id]}": ["load_col", "leaves out [item_id]", "atomic.inter", "add it"],
}


@pytest.mark.parametrize("argument", UNUSABLE)
def test_settings_that_leave_no_usable_split(atomic, refused, argument):
    refused(atomic, "--model=BPR", argument, says=UNUSABLE[argument])


@pytest.mark.parametrize("model", [*MODELS, "LightGCN", "ItemKNN"])
def test_users_and_items_outside_training_are_common(tmp_path, accepted, model):
    """User 24 and item 20 are in the test part alone, user 25 and item 21 in the validation's."""
    frame = interactions()
    for row in ([24, 3, 2], [1, 20, 2], [25, 4, 1], [2, 21, 1], [24, 20, 2]):
        frame.loc[len(frame)] = row
    modalities = {"image": features(22), "text": features(22, seed=1)}
    folder = write_mmrec(tmp_path / "data", frame=frame, modalities=modalities)
    result, _ = accepted(folder, f"--model={model}")
    assert result["split"] == {"train": 96, "valid": 26, "test": 27}
    assert all(0 <= value <= 1 for value in result["test_result"].values())
    assert result["test_result"]["recall@20"] > 0


# ---- names, keys and values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("data/toy", "--data_path=data --dataset=toy"),
        ("./toy", "--data_path=. --dataset=toy"),
        ("../x", "--data_path=.. --dataset=x"),
        ("/tmp/x/", "--data_path=/tmp --dataset=x"),
        ("~/x", f"--data_path={Path.home()} --dataset=x"),
        (".", "--dataset="),
        ("..", "--dataset="),
        ("/", "is a path"),
        ("", "is no name of a folder"),
        ("a\0b", "is no name of a folder"),
        ("a" * 300, "is no name of a folder"),
    ],
)
def test_a_data_set_is_named_and_not_a_path(folder, refused, given, says):
    refused(folder, f"--dataset={given}", says=["dataset [", says])


def test_a_slash_after_a_data_sets_name_does_not_count(folder, accepted):
    assert accepted(folder, "--dataset=toy/")[0]["dataset"] == "toy"


def test_unknown_data_set(folder, refused):
    says = ["[toyy]", str(folder.parent / "toyy"), "Did you mean 'toy'?", "data_path"]
    refused(folder, "--dataset=toyy", says=says)


ARGUMENTS = {
    # a model that there is not, or that cannot run
    "--model=SigRecc": ["[SigRecc]", "Did you mean 'SIGRec'?"],
    "--model=LigthGCN": ["[LigthGCN]", "Did you mean 'LightGCN'?"],
    "--model=GCMC": ["[GCMC]", "SciPy 1.13"],
    "--model=RaCT": ["[RaCT]", "150 epochs"],
    # keys that nothing reads
    "--colab_weight=0.5": ["[colab_weight]", "Did you mean 'collab_weight'?"],
    "--learning_rat=0.5": ["[learning_rat]", "Did you mean 'learning_rate'?"],
    "--collab-weight=0.5": ["[collab-weight]", "Did you mean 'collab_weight'?"],
    "--model_defaults={SIGRec: {knn_k: 3}}": ["unknown config key [model_defaults]"],
    "--search_space={knn_k: [5, 10]}": ["unknown config key [search_space]"],
    # values of the wrong type or range
    "--collab_weight=2": ["[collab_weight] = [2]", "less than or equal to 1", "α"],
    "--collab_max_history=0": ["[collab_max_history] = [0]", "users with more items"],
    "--collab_weight=.nan": ["[collab_weight] = [nan]", "finite"],
    "--cl_weight=.inf": ["[cl_weight] = [inf]", "finite"],
    "--cl_temperature=0": ["[cl_temperature] = [0]", "greater than 0", "τ"],
    "--knn_k=ten": ["[knn_k] = [ten]", "integer", "k of the semantic graphs"],
    "--knn_k=2.5": ["[knn_k] = [2.5]", "integer"],
    "--knn_self=perhaps": ["[knn_self] = [perhaps]", "boolean"],
    "--perturbation=modulo": ["[perturbation] = [modulo]", "'modulus', 'uniform' or 'none'"],
    "--missing_modality=median": ["[missing_modality] = [median]", "'mean', 'zero' or 'neighbor'"],
    "--modalities=image": ["[modalities] = [image]", "list"],
    "--item_modalities={t: {colums: [a]}}": ["[item_modalities.t.", "columns: [...]"],
    "--strict_ids=5": ["[strict_ids] = [5]", "boolean"],
    "--threads=0": ["[threads] = [0]", "greater than or equal to 1"],
    # the same of RecBole's
    "--epochs=ten": ["[epochs] = [ten]", "integer"],
    "--epochs=-1": ["[epochs] = [-1]", "greater than or equal to 0"],
    "--train_batch_size=0": ["[train_batch_size] = [0]", "greater than or equal to 1"],
    "--learning_rate=fast": ["[learning_rate] = [fast]", "number"],
    "--learner=adem": ["[learner] = [adem]", "'adam'"],
    "--seed=abc": ["[seed] = [abc]", "integer"],
    "--stopping_step=x": ["[stopping_step] = [x]", "integer"],
    "--eval_batch_size=x": ["[eval_batch_size] = [x]", "integer"],
    "--topk=[0]": ["[topk.0] = [0]", "greater than 0"],
    "--topk=[5, 20, 21]": ["[topk] = [[5, 20, 21]]", "has 20 items"],
    "--topk=some": ["[topk.0] = [some]", "integer"],
    "--metrics=[Recal]": ["[metrics]", "[Recal]", "Did you mean 'recall'?"],
    "--metrics=[Recall, RMSE]": ["can not be used at the same time"],
    "--valid_metric=AUC": ["[valid_metric] = [AUC]", "metrics are ['Recall', 'NDCG'"],
    "--valid_metric=Recall@7": ["[valid_metric] = [Recall@7]", "topk [5, 20]"],
    "--valid_metric=5": ["[valid_metric] = [5]", "string"],
    "--eval_args=full": ["eval_args", "should be a dict"],
    "--eval_args={mode: fulll}": ["[eval_args]", "[fulll]"],
    "--eval_args={mode: unix}": ["[eval_args]", "'x'"],
    "--train_neg_sample_args=5": ["train_neg_sample_args", "should be a dict"],
    "--train_neg_sample_args={distribution: normal}": ["train_neg_sample_args", "[normal]"],
    "--train_neg_sample_args=~": ["[train_neg_sample_args] = [None]", "learns from negatives"],
    "--train_neg_sample_args={dynamic: True}": ["[candidate_num] = [0]", "at least 1"],
    "--train_neg_sample_args={sample_num: 0}": ["[sample_num] = [0]", "at least 1"],
    "--train_neg_sample_args={sample_num: x}": ["[sample_num] = [x]", "whole number"],
    "--clip_grad_norm=5.0": ["[clip_grad_norm] = [5.0]", "{max_norm: 5}"],
    "--learner=sparse_adam": ["[learner] = [sparse_adam]", "'adam'"],
    "--eval_args={mode: labeled}": ["[eval_args]", "full, uniN or popN"],
    "--repeatable=True": ["[repeatable] = [True]", "set negative_items: all"],
    "--data_path=": ["[data_path] = [None]", "string"],
    "--checkpoint_dir=null": ["[checkpoint_dir] = [None]", "string"],
    # pickled data sets
    "--save_dataset=True": ["[save_dataset] = [True]", "remove the key"],
    "--dataset_save_path=d.pth": ["[dataset_save_path] = [d.pth]", "remove the key"],
    "--save_dataloaders=True": ["[save_dataloaders] = [True]", "remove the key"],
    "--dataloaders_save_path=d.pth": ["[dataloaders_save_path] = [d.pth]", "remove the key"],
    # files
    "--config_files=absent.yaml": ["[absent.yaml]", "does not exist"],
    "--resume=absent.last.pth": ["[absent.last.pth]", "does not exist"],
    # the form of the command line
    "stray": ["[stray]", "--key=value"],
    "-k=5": ["[-k=5]", "--key=value"],
    "--nproc=two": ["--nproc", "two"],
    "--nproc=0": ["nproc = 0", "at least 1"],
    "--world_size=two": ["--world_size", "two"],
    "--port=x": ["--port", "x"],
    "--model": ["--model", "expected one argument"],
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_argument(folder, refused, argument):
    refused(folder, argument, says=ARGUMENTS[argument])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--knn_k", "5"], ["[--knn_k]", "--key=value"]),
        (["--seed=1", "--seed=2"], ["[seed]", "twice"]),
        (["--model=SIGRec", "--model=BM3"], ["--model", "twice"]),
        (["--model=ItemKNN", "--colab_weight=1"], ["Did you mean 'collab_weight'?"]),
        (
            ["--metrics=[AUC]", "--valid_metric=AUC", "--eval_args={mode: labeled}"],
            ["[toy] has no field [label]"],
        ),
    ],
)
def test_arguments(folder, refused, arguments, says):
    refused(folder, *arguments, says=says)


def test_an_argument_may_be_repeated_with_its_value(folder, accepted):
    result, _ = accepted(folder, "--seed=1", "--seed=1", "--model=BM3", "--model=BM3")
    assert (result["seed"], result["model"]) == (1, "BM3")


def laughs(levels):
    """A file of some hundred bytes that stands for 10 to the power of its levels."""
    first = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"
    more = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([first, *more]).encode()


CONFIG_FILES = {
    "not YAML": (b"knn_k: [3\n", ["is not YAML"]),
    "not UTF-8": (b"dataset: \xe9\n", ["is not YAML", "utf-8"]),
    "a list": (b"- knn_k\n", ["must hold `key: value` lines"]),
    "a tag that runs code": (b"x: !!python/object/apply:os.getcwd []\n", ["is not YAML"]),
    "a NUL byte": (b"seed: 1\0\n", ["is not YAML", "#x0000"]),
    "a wrong tag": (b"strict_ids: !!bool perhaps\n", ["is not YAML", "perhaps"]),
    "3,000 levels": (
        b"topk: " + b"[" * 3000 + b"]" * 3000,
        ["is not YAML", "more than 100 levels"],
    ),
    "nested anchors": (laughs(9), ["is not YAML", "more than 10,000 values"]),
    "a value in itself": (b"topk: &t [*t]\n", ["is not YAML", "holds itself"]),
    "a long list": (
        b"topk: [" + b"1, " * 50_000 + b"]",
        ["is not YAML", "more than 10,000 values"],
    ),
    "a large file": (b"# comment\n" * 30_000, ["more than 262,144 bytes"]),
}


@pytest.mark.parametrize("defect", CONFIG_FILES)
def test_config_file(folder, refused, tmp_path, defect):
    content, says = CONFIG_FILES[defect]
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    refused(folder, f"--config_files={file}", says=[f"[{file}]", *says])


def test_config_file_that_may_not_be_read(folder, refused, tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1", "utf-8")
    refused(folder, f"--config_files={folder}", says=[f"[{folder}] cannot be read"])

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(ConfigError, match=rf"{file}\] cannot be read: Permission denied"):
        Config("BPR", "toy", [str(file)])


def test_config_file_may_be_a_pipe(tmp_path):
    """As of a shell's ``--config_files=<(…)``."""
    read, write = os.pipe()
    os.write(write, b"seed: 41")
    os.close(write)
    assert Config("BPR", "toy", [f"/dev/fd/{read}"])["seed"] == 41
    os.close(read)


def test_config_file_is_checked_like_the_command_line(folder, refused, tmp_path):
    file = tmp_path / "mine.yaml"
    for line, says in {
        "colab_weight: 0.5": ["[colab_weight]", "Did you mean 'collab_weight'?"],
        "fusion: sum": ["[fusion] = [sum]", "'mean', 'attention'"],
        "model: 5": ["unknown model [5]"],
        "save_dataset: True": ["[save_dataset]", "remove the key"],
    }.items():
        file.write_text(line + "\n", "utf-8")
        refused(folder, f"--config_files={file}", says=says)


# ---- where results go ----------------------------------------------------------------------------


def test_unwritable_outputs(folder, refused, tmp_path):
    (tmp_path / "file").write_text("mine", "utf-8")
    (tmp_path / "folder").mkdir()
    says = ["[checkpoint_dir]", str(tmp_path / "file"), "cannot be written", "name another"]
    refused(folder, f"--checkpoint_dir={tmp_path / 'file'}", says=says)
    refused(folder, f"--checkpoint_dir={tmp_path / 'file' / 'below'}", says=says)
    says = ["[graph_cache_dir]", str(tmp_path / "file"), "cannot be written", "name another"]
    refused(folder, f"--graph_cache_dir={tmp_path / 'file'}", says=says)
    says = ["[result_file]", str(tmp_path / "file"), "cannot be written", "name another"]
    refused(folder, f"--result_file={tmp_path / 'file' / 'r.json'}", says=says)
    says = ["[result_file]", str(tmp_path / "folder"), "is a folder", "name a file"]
    refused(folder, f"--result_file={tmp_path / 'folder'}", says=says)


def test_outputs_in_new_folders(folder, tmp_path, accepted):
    assert run_on(folder, "--checkpoint_dir=a/b", "--result_file=c/d/r.json") == 0
    assert json.loads((tmp_path / "c/d/r.json").read_text("utf-8"))["epochs"] == 1
    assert len(list((tmp_path / "a/b").glob("*.last.pth"))) == 1


# ---- resuming ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(data set folder, best checkpoint, last checkpoint) of a SIGRec run."""
    root = tmp_path_factory.mktemp("trained")
    folder = write_mmrec(root / "data")
    assert run_on(folder, f"--checkpoint_dir={root / 'saved'}") == 0
    (last,) = (root / "saved").glob("*.last.pth")
    return folder, last.with_name(last.name.replace(".last", "")), last


def test_resume_goes_on_and_overwrites_nothing(trained, accepted):
    folder, best, last = trained
    before = snapshot(best.parent)
    result, log = accepted(folder, f"--resume={last}", "--epochs=2")
    assert result["epochs"] == 2
    assert "epoch 1 training" in log
    assert "epoch 0 training" not in log
    assert snapshot(best.parent) == before


def test_resume_from_the_wrong_checkpoint(trained, refused, tmp_path):
    folder, best, last = trained
    before = snapshot(best.parent)
    refused(folder, f"--resume={best}", says=[str(best), "best model alone", "*.last.pth"])
    refused(folder, f"--resume={last}", "--model=BM3", says=[str(last), "model SIGRec, not BM3"])
    other = write_mmrec(tmp_path / "data", "other")
    refused(other, f"--resume={last}", says=[str(last), "data", "toy, not other"])
    assert snapshot(best.parent) == before


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no checkpoint", id="text"),
        pytest.param(b"\x80\x02.", id="pickle"),
        pytest.param(b"PK\x03\x04" + b"\0" * 60, id="zip"),
    ],
)
def test_resume_from_a_damaged_file(trained, refused, tmp_path, content):
    file = tmp_path / "damaged.last.pth"
    file.write_bytes(content)
    refused(trained[0], f"--resume={file}", says=[str(file), "cannot be read", "damaged"])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_resume_from_a_truncated_checkpoint(trained, refused, tmp_path, share):
    content = trained[2].read_bytes()
    file = tmp_path / "cut.last.pth"
    file.write_bytes(content[: int(share * len(content))])
    refused(trained[0], f"--resume={file}", says=[str(file), "cannot be read", "damaged"])


@pytest.mark.parametrize("key", ["model", "dataset", "state_dict", "epoch", "random", "best"])
def test_resume_from_an_incomplete_checkpoint(trained, refused, tmp_path, key):
    state = checkpoint.load(trained[2])
    del state[key]
    file = tmp_path / "incomplete.last.pth"
    checkpoint.save(state, file)
    refused(trained[0], f"--resume={file}", says=[str(file)])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", {"state": {}, "param_groups": []}),
        ("optimizer", []),
        ("best", [1]),
        ("best", {"state_dict": [1]}),
        ("valid_result", {"recall@20": "x"}),
        ("best_valid_result", {"recall@20": 10**400}),
        ("best_valid_score", None),
        ("history", [{"epoch": 0, "train_loss": 1.0, "valid_score": 0.5}]),
        ("epoch_seconds", ["x"]),
        ("chosen", {"item_score_weight": "x"}),
        ("chosen", {"item_score_weight": -1.0}),
        ("chosen", {"item_score_weight": float("inf")}),
        ("chosen", {"weight": 1.0}),
        ("chosen", [1.0]),
    ],
)
def test_resume_from_a_checkpoint_with_a_part_of_another_kind(
    trained, refused, tmp_path, key, value
):
    state = checkpoint.load(trained[2])
    state[key] = value
    file = tmp_path / "changed.last.pth"
    checkpoint.save(state, file)
    refused(trained[0], f"--resume={file}", says=[str(file), "damaged"])


def test_resume_with_a_model_of_another_size(trained, refused):
    says = [str(trained[2]), "does not fit", "user_embedding"]
    refused(trained[0], f"--resume={trained[2]}", "--embedding_size=5", says=says)


def test_resume_from_a_foreign_checkpoint(trained, refused, tmp_path):
    file = tmp_path / "recbole.pth"
    torch.save({"state_dict": {}, "epoch": 1}, file)
    refused(trained[0], f"--resume={file}", says=[str(file), "not a checkpoint of recbole_sigrec"])


@pytest.mark.parametrize("dump", ["pickle", "torch"])
def test_hostile_checkpoint_does_not_run(trained, refused, tmp_path, dump):
    target, file = tmp_path / "owned", tmp_path / "hostile.last.pth"
    state = {"format": checkpoint.FORMAT, "model": "SIGRec", "epoch": Payload(target)}
    if dump == "pickle":
        file.write_bytes(pickle.dumps(state))
        pickle.loads(file.read_bytes())
    else:
        torch.save(state, file)
        torch.load(file, weights_only=False)
    assert target.exists()  # it is hostile indeed
    target.unlink()
    refused(trained[0], f"--resume={file}", says=[str(file), "cannot be read"])
    assert not target.exists()
