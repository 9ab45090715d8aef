"""A checkpoint knows its data: rows go by token, and other data is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from helpers_data import interactions, snapshot, write_atomic, write_mmrec

from recbole_sigrec import load_data_and_model, run
from recbole_sigrec.data.identity import differences, identity
from recbole_sigrec.errors import ConfigError, DataError
from recbole_sigrec.training.trainer_kinds import trainer_class

MODELS = ["SIGRec", "FREEDOM", "ContentEASE", "LightGCN", "ItemKNN"]


def read(folder):
    return pd.read_csv(folder / f"{folder.name}.inter", sep="\t", dtype=str)


def write(folder, frame):
    frame.to_csv(folder / f"{folder.name}.inter", sep="\t", index=False)


def shuffle(folder, seed=5):
    """Other lines first, so that RecBole's ids of users and items are others."""
    frame = read(folder)
    write(folder, frame.sample(frac=1, random_state=seed))
    assert not read(folder).equals(frame)


def test_figures(model_file, **how):
    config, model, _, _, _, test = load_data_and_model(model_file, **how)
    trainer = trainer_class(config["MODEL_TYPE"], config["model"])(config, model)
    return trainer.evaluate(test, load_best_model=False)


test_figures.__test__ = False


@pytest.mark.parametrize("model", MODELS)
def test_shuffled_lines_change_no_figure(copied, run_on, model):
    result = run_on(copied, model)
    before = load_data_and_model(result.checkpoint)[2].field2id_token["item_id"]
    shuffle(copied)
    assert test_figures(result.checkpoint) == result.test_result
    after = load_data_and_model(result.checkpoint)[2].field2id_token["item_id"]
    assert before.tolist() == after.tolist()


def test_a_run_is_resumed_on_shuffled_lines(copied, run_on, capsys):
    half = run_on(copied)
    shuffle(copied)
    last = half.checkpoint.replace(".pth", ".last.pth")
    both = run_on(copied, epochs=3, resume=last)
    assert both.epochs == 3
    # What is best of the first half is known as it was, with its rows' tokens.
    one, two = (torch.load(f, weights_only=True) for f in (half.checkpoint, both.checkpoint))
    assert one["data"] == two["data"]
    assert test_figures(both.checkpoint) == both.test_result


@pytest.mark.parametrize("model", ["SIGRec", "LightGCN"])
def test_more_interactions_of_known_users_are_refused(copied, run_on, model, caplog):
    result = run_on(copied, model)
    frame = read(copied)
    pairs = set(zip(frame["userID"], frame["itemID"]))
    train = frame[frame["x_label"] == "0"]
    more = [
        (user, item)
        for user in train["userID"].unique()[:9]
        for item in train["itemID"].unique()[:20]
        if (user, item) not in pairs
    ][:31]
    added = pd.DataFrame(more, columns=["userID", "itemID"]).assign(
        rating="1.0", timestamp="0", x_label="0"
    )
    write(copied, pd.concat([added, frame]))
    said = rf"other training interactions \({len(train) + 31}; it was trained on {len(train)}\)"
    with pytest.raises(DataError, match=said + r"\. Load it with .*allow_changes=True"):
        load_data_and_model(result.checkpoint)
    last = result.checkpoint.replace(".pth", ".last.pth")
    before = snapshot(copied.parent.parent)
    with pytest.raises(DataError, match=f"cannot be resumed.*{said}"):
        run_on(copied, model, epochs=3, resume=last)
    assert snapshot(copied.parent.parent) == before  # nothing was written
    _, net, dataset, train_data, *_ = load_data_and_model(result.checkpoint, allow_changes=True)
    assert len(train_data.dataset.inter_feat) == len(train) + 31
    assert f"{len(train) + 31}; it was trained on {len(train)}" in caplog.text
    state = torch.load(result.checkpoint, weights_only=True)
    assert dataset.field2id_token["user_id"][1:].tolist() == state["data"]["users"]
    for key, value in net.state_dict().items():
        assert torch.equal(value, state["state_dict"][key])


def test_unknown_and_vanished_tokens_are_counted_and_left_out(copied, run_on, caplog):
    result = run_on(copied, missing_modality="zero")
    frame = read(copied)
    gone = frame["userID"].iloc[0]
    frame = frame[frame["userID"] != gone]
    known = len(frame)
    new = pd.DataFrame({"userID": ["500", "500", "501"], "itemID": ["3", "4", "5"]})
    write(copied, pd.concat([new.assign(rating="1", timestamp="1", x_label="0"), frame]))
    with pytest.raises(DataError, match=r"2 users more, 1 missing; other training interactions"):
        load_data_and_model(result.checkpoint)
    parts = load_data_and_model(result.checkpoint, allow_changes=True)
    assert "left out 3 interactions of users or items that the model does not know" in caplog.text
    dataset, loaders = parts[2], parts[3:]
    assert sum(len(loader.dataset.inter_feat) for loader in loaders) == known
    # Each part is what it was, without the user who is gone.
    for label, loader in enumerate(loaders):
        feat, part = loader.dataset.inter_feat, frame[frame["x_label"] == str(label)]
        users, items = (
            dataset.field2id_token[field][feat[field].numpy()] for field in ("user_id", "item_id")
        )
        assert sorted(zip(users, items)) == sorted(zip(part["userID"], part["itemID"]))
    assert gone in dataset.field2id_token["user_id"]


def test_an_interaction_of_the_test_part_with_an_unknown_item(copied, run_on):
    """The training part is the same; the item is told all the same."""
    result = run_on(copied)
    frame = read(copied)
    extra = {"userID": "0", "itemID": "56", "rating": "1", "timestamp": "1", "x_label": "2"}
    write(copied, pd.concat([frame, pd.DataFrame([extra])]))
    for name in ("image", "text"):
        rows = np.load(copied / f"{name}_feat.npy")
        np.save(copied / f"{name}_feat.npy", np.concatenate([rows, rows[:1]]))
    last = result.checkpoint.replace(".pth", ".last.pth")
    for refused in (
        lambda: load_data_and_model(result.checkpoint),
        lambda: run_on(copied, epochs=3, resume=last),
    ):
        with pytest.raises(DataError, match=r"has 1 items more, 0 missing"):
            refused()


def test_other_features_are_refused(copied, run_on):
    result, plain = run_on(copied), run_on(copied, "LightGCN")
    rows = np.load(copied / "text_feat.npy")
    rows[3] += 0.5
    np.save(copied / "text_feat.npy", rows)
    with pytest.raises(DataError, match=r"has other features of modality \[text\]\. Load"):
        load_data_and_model(result.checkpoint)
    assert load_data_and_model(result.checkpoint, allow_changes=True)
    # LightGCN reads no features.
    assert test_figures(plain.checkpoint) == plain.test_result


def test_a_split_that_is_drawn_anew_is_refused(tmp_path, make_values):
    """Where the split is drawn, other lines first give another training part."""
    folder = write_atomic(tmp_path / "data")
    values = make_values(folder, topk=[5], valid_metric="Recall@5")
    result = run("BPR", folder.name, config_dict=values)
    assert test_figures(result.checkpoint) == result.test_result
    path = folder / f"{folder.name}.inter"
    head, *lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([head, *lines[::-1]]) + "\n", "utf-8")
    with pytest.raises(DataError, match="other training interactions"):
        load_data_and_model(result.checkpoint)


def test_filtered_users_and_items_are_no_difference(tmp_path, make_values):
    frame = pd.concat([interactions(), pd.DataFrame({"userID": [77], "itemID": [3]})])
    folder = write_atomic(tmp_path / "data", frame=frame)
    values = make_values(folder, topk=[5], valid_metric="Recall@5")
    result = run("BPR", folder.name, config_dict={**values, "user_inter_num_interval": "[2,inf)"})
    dataset = load_data_and_model(result.checkpoint)[2]
    assert "u77" not in dataset.field2id_token["user_id"]
    assert test_figures(result.checkpoint) == result.test_result


def test_the_checkpoint_is_found_from_another_folder(tmp_path, make_values, monkeypatch):
    write_mmrec(tmp_path / "data")
    values = make_values(tmp_path / "data/toy", topk=[5], valid_metric="Recall@5")
    monkeypatch.chdir(tmp_path)
    result = run("BPR", "toy", config_dict={**values, "data_path": "data", "checkpoint_dir": "out"})
    assert result.checkpoint == str(tmp_path / "out" / result.checkpoint.rpartition("/")[2])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert test_figures(result.checkpoint) == result.test_result
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=rf"trained on the data in {tmp_path}/data/toy, which is"):
        load_data_and_model(result.checkpoint)
    with pytest.raises(DataError, match=r"holds \[toy\]: data_path="):
        load_data_and_model(result.checkpoint)
    where = str(tmp_path / "moved")
    assert test_figures(result.checkpoint, data_path=where) == result.test_result


def test_a_loaded_model_is_for_use_until_it_is_trained(copied, run_on):
    result = run_on(copied)
    model = load_data_and_model(result.checkpoint)[1]
    assert not model.training
    users, items = model.representations()
    assert users.numpy().shape == (model.n_users, 16) and items.numpy().shape[1] == 16
    model.train()
    assert all(part.requires_grad for part in model.representations())


def test_an_earlier_format_is_named(tmp_path):
    file = tmp_path / "old.pth"
    torch.save({"format": "recbole_sigrec checkpoint 1", "model": "BPR"}, file)
    with pytest.raises(DataError, match=r"another version of recbole_sigrec \(\[.*checkpoint 1\]"):
        load_data_and_model(str(file))


def test_identity_against_the_obvious(copied, prepare, make_config):
    """The digest follows the set of training pairs, and nothing else."""
    parts = [prepare(make_config("BPR", copied))]
    shuffle(copied)
    parts.append(prepare(make_config("BPR", copied)))
    one, two = (identity(p.train.dataset, ["image", "text"]) for p in parts)
    assert one["users"] != two["users"] and sorted(one["users"]) == sorted(two["users"])
    assert (one["training"], one["features"]) == (two["training"], two["features"])
    assert differences(one, parts[1].train.dataset) == []
    frame = read(copied)
    frame = frame.drop(frame.index[frame["x_label"] == "0"][0])
    write(copied, frame)
    less = prepare(make_config("BPR", copied)).train.dataset
    (told,) = differences(one, less)
    assert told == (
        f"other training interactions ({one['n_training'] - 1}; it was trained on "
        f"{one['n_training']})"
    )


def test_a_file_of_another_kind_is_no_checkpoint_of_this_model(copied, run_on):
    result = run_on(copied, "BPR")
    with pytest.raises(ConfigError, match=r"is of model \[BPR\], not \[LightGCN\]"):
        load_data_and_model(result.checkpoint, model=type("LightGCN", (), {}))
