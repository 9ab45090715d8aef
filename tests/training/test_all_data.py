"""Training without validation or test, on all interactions again, and on newer data."""

from __future__ import annotations

import shutil

import helpers_data
import numpy as np
import pandas as pd
import pytest
import torch
from helpers_data import write_atomic

from recbole_sigrec import Arm, Recommender, compare, export, load_data_and_model, run, tune
from recbole_sigrec.cli import run_command
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError
from recbole_sigrec.training.warm_start import made_anew


def read(folder):
    return pd.read_csv(folder / f"{folder.name}.inter", sep="\t", dtype=str)


def write(folder, frame):
    frame.to_csv(folder / f"{folder.name}.inter", sep="\t", index=False)


# ---- parts that are not there --------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SIGRec", "ContentEASE", "LightGCN", "ItemKNN"])
def test_without_validation_and_test(copied, run_on, model, tmp_path):
    frame = read(copied)
    write(copied, frame.assign(x_label="0"))
    result = run_on(copied, model, epochs=3, bundle=str(tmp_path / "x.rec"))
    assert result.split == {"train": len(frame), "valid": 0, "test": 0}
    assert result.best_valid_result == result.test_result == {}
    assert result.epochs == (3 if model in ("SIGRec", "LightGCN") else 1)
    loaded = load_data_and_model(result.checkpoint)
    assert loaded[4] is None and loaded[5] is None
    state = torch.load(result.checkpoint, weights_only=True)
    assert state["epoch"] == result.epochs - 1
    assert len(Recommender.load(tmp_path / "x.rec").recommend("3", 5)) == 5


@pytest.mark.parametrize(
    ("split", "sizes"),
    [  # RecBole's ways to leave a part out
        ("{RS: [0.8, 0.2, 0]}", (True, True, False)),
        ("{RS: [0.8, 0, 0.2]}", (True, False, True)),
        ("{LS: valid_only}", (True, True, False)),
        ("{LS: test_only}", (True, False, True)),
    ],
)
def test_splits_without_a_part(tmp_path, make_values, split, sizes, caplog):
    folder = write_atomic(tmp_path / "data")
    values = make_values(folder, topk=[5], valid_metric="Recall@5", eval_args=f"{{split: {split}}}")
    result = run("BPR", folder.name, config_dict=values)
    assert tuple(size > 0 for size in result.split.values()) == sizes
    assert sum(result.split.values()) == 24 * 6
    assert bool(result.best_valid_result) == sizes[1] and bool(result.test_result) == sizes[2]
    assert ("no validation part" in caplog.text) == (not sizes[1])
    assert ("no test part" in caplog.text) == (not sizes[2])


def test_many_runs_need_the_parts(copied, make_values, tmp_path):
    frame = read(copied)
    for label, missing in (("2", "test"), ("1", "valid")):
        write(copied, frame.replace({"x_label": {label: "0"}}))
        values = make_values(copied)
        with pytest.raises(DataError, match=f"the {missing} part of .planted. is empty"):
            out = tmp_path / f"without {missing}"
            compare([Arm("BPR", "BPR")], "planted", seeds=[1], out=out, config_dict=values)
    with pytest.raises(DataError, match="the valid part"):
        tune("BPR", "planted", config_dict=values, trials=1, out=tmp_path / "t")


# ---- refit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SIGRec", "ContentEASE", "BPR"])
def test_a_refit_is_a_training_on_all_interactions(copied, run_on, tmp_path, model):
    first = run_on(copied, model, epochs=4, missing_modality="neighbor")
    refit = run(config_dict={"refit": first.checkpoint, "bundle": str(tmp_path / "x.rec")})
    n = len(read(copied))
    assert (refit.model, refit.split) == (model, {"train": n, "valid": 0, "test": 0})
    assert refit.epochs == first.best_epoch + 1
    assert refit.best_valid_result == refit.test_result == {}
    differing = {k for k in first.config if first.config[k] != refit.config[k]}
    assert differing <= {"epochs", "refit", "bundle", "eval_batch_size"}
    # The same as a data set that says that all is for training.
    frame = read(copied).sort_values("x_label", kind="stable")
    whole = shutil.copytree(copied, tmp_path / "whole" / "planted")
    write(whole, frame.assign(x_label="0"))
    other = run_on(whole, model, epochs=refit.epochs, missing_modality="neighbor")
    one, two = (torch.load(r.checkpoint, weights_only=True)["state_dict"] for r in (refit, other))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    # It is loaded and exported as it was trained.
    assert len(load_data_and_model(refit.checkpoint)[3].dataset.inter_feat) == n
    export(refit.checkpoint, tmp_path / "y.rec")
    x, y = (Recommender.load(tmp_path / f"{name}.rec") for name in "xy")
    assert x.recommend("3").equals(y.recommend("3"))
    assert x.manifest["trained_on"] == "training, validation and test"
    taken = read(copied).query("userID == '3'").itemID
    assert not set(x.recommend("3", 20).item) & set(taken)


def test_what_a_refit_may_not_change(copied, run_on, tmp_path, capsys):
    first = run_on(copied, item_score_weight=0.0)
    for given, says in (
        ({"learning_rate": 0.1}, r"\[learning_rate\] may not be given"),
        ({"epochs": 7}, r"for 2 epochs; \[epochs\] may not be given"),
        ({"warm_start": first.checkpoint}, r"\[refit\] and \[warm_start\]: give one"),
        ({"resume": first.checkpoint}, r"leave out config key \[resume\]"),
    ):
        with pytest.raises(ConfigError, match=says):
            run(config_dict={"refit": first.checkpoint, **given})
    with pytest.raises(ConfigError, match=r"data set \[other\] may not be given"):
        run(dataset="other", config_dict={"refit": first.checkpoint})
    with pytest.raises(ConfigError, match=r"is of model \[SIGRec\], not \[BPR\]"):
        run("BPR", config_dict={"refit": first.checkpoint})
    (tmp_path / "c.yaml").write_text(f"refit: {first.checkpoint}\n", "utf-8")
    with pytest.raises(ConfigError, match=r"\[refit\]: give it as an argument, not in a file"):
        run(config_file_list=[str(tmp_path / "c.yaml")])
    assert run_command("run", f"--refit={tmp_path}/no.pth") == 2
    assert "no.pth] does not exist" in capsys.readouterr().err
    saved = f"--checkpoint_dir={tmp_path}/again"
    assert run_command("run", f"--refit={first.checkpoint}", saved, "--threads=1") == 0
    assert "no validation, no test" in capsys.readouterr().out


# ---- warm start ----------------------------------------------------------------------------------

WARM = [*helpers_data.LEARNED, "BPR", "LightGCN"]


def parameters(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.mark.parametrize("model", WARM)
def test_on_the_same_data_it_starts_where_the_model_was(copied, run_on, model):
    first = run_on(copied, model)
    frame = read(copied)
    write(copied, frame.sample(frac=1, random_state=3))  # other ids
    start = run(config_dict={"warm_start": first.checkpoint, "epochs": 0})
    one = load_data_and_model(first.checkpoint)[1].state_dict()
    # Loaded with the first run's order of tokens, both are the same.
    _, net, dataset, *_ = load_data_and_model(start.checkpoint)
    state = torch.load(first.checkpoint, weights_only=True)
    order = {}
    for kind, field in (("users", "user_id"), ("items", "item_id")):
        order[kind] = [0, *dataset.token2id(field, state["data"][kind]).tolist()]
    anew = made_anew(net)
    for name, value in net.state_dict().items():
        if name in anew:
            continue
        shape = len(value)
        rows = {len(order["users"]): order["users"], len(order["items"]): order["items"]}
        both = [*order["users"], *(len(order["users"]) + row for row in order["items"])]
        rows[len(both)] = both
        mine = value[rows[shape]] if shape in rows and "weight" in name else value
        if shape in rows and "weight" not in name and value.dim() > 1:
            mine = value[rows[shape]]
        assert torch.equal(mine, one[name]), name


def test_new_users_and_items_start_from_histories_and_content(copied, run_on, planted, caplog):
    frame = read(copied)
    new_users = {str(user) for user in range(0, planted.n_users - 1, 7)}
    new_items = {str(item) for item in range(0, planted.n_items, 6)}
    new_items -= {str(item) for item in planted.cold_items}
    old = frame[~frame["userID"].isin(new_users) & ~frame["itemID"].isin(new_items)]
    folder = shutil.copytree(copied, copied.parent / "yesterday" / "planted")
    write(folder, old)
    for name in ("image", "text"):
        rows = np.load(folder / f"{name}_feat.npy")
        kept = sorted(old["itemID"].unique(), key=int)
        np.save(folder / f"{name}_feat.npy", rows[[int(item) for item in kept]])
        (folder / f"{name}_ids.txt").write_text("\n".join(kept), "utf-8")
    first = run_on(folder, epochs=30, learning_rate=0.01, topk=[5, 20])
    how = {"warm_start": first.checkpoint, "data_path": str(copied.parent), "state": "INFO"}
    with caplog.at_level("INFO"):
        start = run(config_dict={**how, "epochs": 0})
    log = caplog.text
    known = read(copied)["userID"].nunique() - len(new_users)
    assert f"{known} users known, {len(new_users)} new ({len(new_users)} from their hist" in log
    assert f"{len(new_items)} new ({len(new_items)} from their content), 0 gone" in log
    _, net, dataset, *_ = load_data_and_model(start.checkpoint)
    _, before, earlier, *_ = load_data_and_model(first.checkpoint)
    for table, field in (("user_embedding", "user_id"), ("item_embedding", "item_id")):
        now, then = (getattr(m, table).weight.detach() for m in (net, before))
        tokens = earlier.field2id_token[field][1:]
        rows = dataset.token2id(field, tokens)
        assert torch.equal(now[rows], then[1:])
    # The planted groups: a new item's vector is nearest to its own group's, and so a new user's.
    users, items = net.representations()
    scores = users @ items.T
    hits = []
    for user in new_users:
        row = scores[dataset.token2id("user_id", user)]
        of_group = [
            row[dataset.token2id("item_id", str(i))].item()
            for i in np.flatnonzero(planted.item_group == planted.user_group[int(user)])
        ]
        hits.append(np.mean(of_group) > row[1:].mean().item())
    assert np.mean(hits) > 0.9
    for item in new_items:
        own = items[dataset.token2id("item_id", item)]
        means = []
        for group in range(4):
            of_group = [
                dataset.token2id("item_id", str(i))
                for i in np.flatnonzero(planted.item_group == group)
                if str(i) not in new_items
            ]
            means.append(torch.cosine_similarity(own, items[of_group].mean(dim=0), dim=0).item())
        assert int(np.argmax(means)) == planted.item_group[int(item)]
    # Other keys may be given, and training goes on.
    more = run(config_dict={**how, "epochs": 2, "learning_rate": 0.001})
    assert more.epochs == 2 and more.config["learning_rate"] == 0.001
    assert more.config["embedding_size"] == first.config["embedding_size"]


def test_what_cannot_be_started_from(copied, run_on):
    knn = run_on(copied, "ItemKNN")
    with pytest.raises(ConfigError, match="ItemKNN is computed from its data at once"):
        run(config_dict={"warm_start": knn.checkpoint})
    bpr = run_on(copied, "BPR")
    with pytest.raises(ConfigError, match=r"parameter \[user_embedding.weight\] .* does not fit"):
        run(config_dict={"warm_start": bpr.checkpoint, "embedding_size": 5})
    vae = run_on(copied, "MultiVAE")
    frame = read(copied)
    write(copied, frame[frame["itemID"] != frame["itemID"].iloc[0]])
    with pytest.raises(ConfigError, match="does not fit"):
        run(config_dict={"warm_start": vae.checkpoint, "strict_ids": False})


def test_as_many_users_as_items(tmp_path, make_values):
    """The name of a table tells then which it is."""
    frame = pd.DataFrame([(u, (u + n) % 20) for u in range(20) for n in range(6)])
    frame.columns = ["userID", "itemID"]
    folder = write_atomic(tmp_path / "data", frame=frame)
    values = make_values(folder, topk=[5], valid_metric="Recall@5")
    first = run("BPR", folder.name, config_dict=values)
    shuffled = frame.sample(frac=1, random_state=2)
    write_atomic(tmp_path / "data", frame=shuffled)
    start = run(config_dict={"warm_start": first.checkpoint, "epochs": 0})
    states = [torch.load(r.checkpoint, weights_only=True) for r in (first, start)]
    for kind, name in (("users", "user_embedding.weight"), ("items", "item_embedding.weight")):
        place = {token: row for row, token in enumerate(states[1]["data"][kind], start=1)}
        rows = [0, *(place[token] for token in states[0]["data"][kind])]
        assert torch.equal(states[1]["state_dict"][name][rows], states[0]["state_dict"][name])


# ---- what a checkpoint of such a run is ----------------------------------------------------------


def test_without_a_test_part_the_best_epoch_is_bundled(copied, run_on, tmp_path):
    frame = read(copied)
    write(copied, frame.replace({"x_label": {"2": "0"}}))
    how = {"epochs": 12, "learning_rate": 0.3, "stopping_step": 3}
    result = run_on(copied, "BPR", bundle=str(tmp_path / "x.rec"), **how)
    assert result.best_epoch < result.epochs - 1  # the last one is another
    export(result.checkpoint, tmp_path / "y.rec")
    x, y = (Recommender.load(tmp_path / f"{name}.rec") for name in "xy")
    assert x.recommend(x.users.names, 10).equals(y.recommend(x.users.names, 10))


def test_what_cannot_be_bundled_is_told_before_the_training(copied, run_on, tmp_path):
    with pytest.raises(SIGRecError, match=r"\[MultiVAE\] cannot be exported"):
        run_on(copied, "MultiVAE", bundle=str(tmp_path / "x.rec"))
    assert not (tmp_path / "saved").exists()


def test_a_warm_started_run_is_no_refit(copied, run_on):
    first = run_on(copied, "BPR")
    warm = run(config_dict={"warm_start": first.checkpoint, "epochs": 2})
    with pytest.raises(ConfigError, match="was itself trained on from"):
        run(config_dict={"refit": warm.checkpoint})
    # It is resumed as any other, and a refit is started from without becoming one.
    last = warm.checkpoint.replace(".pth", ".last.pth")
    values = {k: warm.config[k] for k in ("data_path", "epochs", "train_batch_size")}
    assert values["epochs"] == 2
    more = run_on(copied, "BPR", epochs=3, resume=last)
    assert more.epochs == 3
    refit = run(config_dict={"refit": first.checkpoint})
    again = run(config_dict={"warm_start": refit.checkpoint, "epochs": 1})
    assert again.split == first.split and again.test_result


def test_a_refit_says_that_the_data_has_changed(copied, run_on, caplog):
    first = run_on(copied, "BPR")
    frame = read(copied)
    write(copied, frame.drop(frame.index[frame["x_label"] == "0"][:3]))
    run(config_dict={"refit": first.checkpoint})
    assert "was trained on other data; now there are other training interactions" in caplog.text


def test_features_of_another_encoder_are_no_warm_start(copied, run_on, caplog):
    first = run_on(copied)
    rows = np.load(copied / "text_feat.npy")
    changed = rows.copy()
    changed[3] += 1
    np.save(copied / "text_feat.npy", changed)
    run(config_dict={"warm_start": first.checkpoint, "epochs": 1})
    assert "modality text: 1 of 56 known items have other features now" in caplog.text
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    np.save(copied / "text_feat.npy", (rows @ turn).astype(np.float32))
    with pytest.raises(DataError, match=r"\[text\] has other features .* of 56 of 56 items"):
        run(config_dict={"warm_start": first.checkpoint, "epochs": 1})


def test_where_nobody_is_known_nothing_is_told_to_follow(copied, run_on, caplog):
    first = run_on(copied, "BPR")
    frame = read(copied)
    write(copied, frame.assign(userID="1" + frame["userID"].str.zfill(4)))
    with caplog.at_level("INFO"):
        start = run(config_dict={"warm_start": first.checkpoint, "epochs": 0})
    assert "0 users known, 61 new (0 from their histories)" in caplog.text
    users = parameters(start.checkpoint)["user_embedding.weight"]
    assert (users[1:].abs().sum(dim=1) > 0).all()
