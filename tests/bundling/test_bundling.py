"""Every model's bundle ranks as the model does; what cannot be exported is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers_data import snapshot, write_atomic

from recbole_sigrec import Recommender, encode_text, export, load_data_and_model, run
from recbole_sigrec.bundling.make import make_bundle
from recbole_sigrec.cli import run_command
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError
from recbole_sigrec.model_names import MODELS
from recbole_sigrec.training.trainer_kinds import trainer_class

PRODUCTS = ["BPR", "DGCF", "ENMF", "LightGCN", "LINE", "NCEPLRec", "NCL", "NGCF", "SGL"]
MATRICES = ["ADMMSLIM", "EASE", "ItemKNN", "SLIMElastic"]
K = 20


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        *((name, {}) for name in [*MODELS, *PRODUCTS, *MATRICES]),
        *((name, {"item_score_weight": 0.5}) for name in ("SIGRec", "MGCN", "SMORE")),
        *(("SIGRec", {"fusion": kind}) for kind in ("attention", "behavior")),
        ("ADMMSLIM", {"center_columns": False}),
    ],
)
def test_the_bundle_ranks_as_the_model(planted, run_on, tmp_path, model, overrides):
    if model in ("NCL", "DGCF"):
        overrides = {"num_clusters": 5, "embedding_size": 16, **overrides}
    result = run_on(planted.folder, model, bundle=str(tmp_path / "x.rec"), **overrides)
    config, net, dataset, _, _, test = load_data_and_model(result.checkpoint)
    trainer = trainer_class(config["MODEL_TYPE"], config["model"])(config, net)
    trainer.evaluate(test, load_best_model=False)
    top = trainer.top_items(test, K).numpy()
    users = dataset.field2id_token["user_id"][test.uid_list.numpy()]
    recommender = Recommender.load(tmp_path / "x.rec")
    table = recommender.recommend(users, K)
    scores = _all_scores(net, test.uid_list)
    for row, user in enumerate(users):
        mine = recommender.items.find(table.item[table.user == user]) + 1
        # Equal but for ties: the scores of each rank are the same.
        noise = 2e-5 if model == "ADMMSLIM" else 1e-5  # it adds noise to its scores
        np.testing.assert_allclose(scores[row][mine], scores[row][top[row]], rtol=1e-4, atol=noise)
        if model != "ADMMSLIM":
            np.testing.assert_allclose(
                table.score[table.user == user], scores[row][mine], rtol=1e-4, atol=1e-5
            )
    manifest = recommender.manifest
    assert manifest["metrics"]["test"] == result.test_result
    assert manifest["model"] == model and manifest["versions"] == result.versions
    sums = recommender.explain(users[0], table.item[:K]).groupby("item").addend.sum()
    np.testing.assert_allclose(sums[table.item[:K]], table.score[:K], rtol=1e-4, atol=1e-5)


def _all_scores(model, users):
    with torch.no_grad():
        scores = model.full_sort_predict({"user_id": users})
    return torch.as_tensor(scores).reshape(len(users), -1).numpy()


def test_sigrecs_parts_are_the_models(planted, run_on, tmp_path):
    result = run_on(planted.folder, "SIGRec", bundle=str(tmp_path / "x.rec"), fusion="mean")
    model = load_data_and_model(result.checkpoint)[1]
    recommender = Recommender.load(tmp_path / "x.rec")
    with torch.no_grad():
        behavior, semantic, _ = model.forward()
        items = model.item_parts()
    assert list(items) == ["behavior", *model.modalities]
    torch.testing.assert_close(sum(items.values()), model.representations()[1])
    user = 3
    table = recommender.explain(recommender.users.names[user], recommender.items.names[:4])
    by = table.groupby(["item", "part", "source"]).addend.sum()
    for item in range(4):
        for part, rows in items.items():
            learned = by[recommender.items.names[item], part, "learned"]
            expected = float(behavior[user + 1] @ rows[item + 1])  # b of the user alone
            np.testing.assert_allclose(learned, expected, rtol=1e-3, atol=1e-5)
    assert semantic.shape[0] == len(model.modalities)


@pytest.mark.parametrize("model", ["MultiVAE", "Pop", "NeuMF"])
def test_a_model_without_such_a_form_is_refused(planted, run_on, tmp_path, model):
    result = run_on(planted.folder, model)
    with pytest.raises(SIGRecError, match=rf"\[{model}\] cannot be exported.*ADMMSLIM, BPR"):
        export(result.checkpoint, tmp_path / "x.rec")
    assert not (tmp_path / "x.rec").exists()


class Crooked(resolve_model("BPR")):
    """A model that scores otherwise than its vectors say."""

    def full_sort_predict(self, interaction):
        return super().full_sort_predict(interaction) ** 3


Crooked.__name__ = "BPR"


def test_what_scores_otherwise_is_refused(planted, prepare, make_config):
    ready = prepare(make_config(Crooked, planted.folder))
    with pytest.raises(SIGRecError, match=r"its own scores differ by .* from those of the vectors"):
        make_bundle(ready.config, ready.model, ready.train, ready.valid, {})


def test_user_based_knn_is_refused(planted, run_on, tmp_path):
    result = run_on(planted.folder, "ItemKNN", knn_method="user")
    with pytest.raises(SIGRecError, match="knn_method: user"):
        export(result.checkpoint, tmp_path / "x.rec")


def test_export_of_a_checkpoint(planted, run_on, tmp_path, capsys):
    bundle = str(tmp_path / "one.rec")
    result = run_on(planted.folder, "SIGRec", bundle=bundle, item_score_weight=0.0)
    table = pd.DataFrame({"id": range(planted.n_items), "title": "t", "price": 1.5})
    table["title"] += table["id"].astype(str)
    table.iloc[3:].to_csv(tmp_path / "items.csv", index=False)
    arguments = [result.checkpoint, "--out", str(tmp_path / "two.rec")]
    columns = ["--items", str(tmp_path / "items.csv"), "--id_column=id", "--columns=title,price"]
    assert run_command("export", *arguments, *columns) == 0
    one, two = (Recommender.load(tmp_path / f"{name}.rec") for name in ("one", "two"))
    assert one.recommend(one.users.names).equals(two.recommend(one.users.names))
    for token, title, price in zip(two.items.names, two.columns["title"], two.columns["price"]):
        known = int(token) >= 3
        assert (title, price) == ((f"t{token}", "1.5") if known else (None, None))
    assert two.manifest["metrics"]["valid"] == result.best_valid_result
    before = snapshot(tmp_path / "two.rec")
    assert run_command("export", *arguments) == 2
    assert "is there already, and is not overwritten" in capsys.readouterr().err
    assert snapshot(tmp_path / "two.rec") == before
    assert run_command("export", *arguments, "--force", "--without_histories") == 0
    assert snapshot(tmp_path / "two.rec") != before
    bare = Recommender.load(tmp_path / "two.rec")
    with pytest.raises(DataError, match="exported without histories"):
        bare.recommend("0")
    manifest = json.loads((tmp_path / "two.rec/manifest.json").read_text("utf-8"))
    state = torch.load(result.checkpoint, weights_only=True)
    assert manifest["data"]["training"] == state["data"]["training"]


def test_histories_that_the_model_scores_with_stay(planted, run_on, tmp_path):
    result = run_on(planted.folder, "SIGRec", item_score_weight=0.5)
    with pytest.raises(DataError, match="scores with the users' histories"):
        export(result.checkpoint, tmp_path / "x.rec", histories=False)


def test_a_target_that_exists_is_told_before_the_training(planted, run_on, tmp_path):
    (tmp_path / "x.rec").mkdir()
    with pytest.raises(DataError, match="is there already"):
        run_on(planted.folder, "BPR", bundle=str(tmp_path / "x.rec"))
    assert not (tmp_path / "saved").exists()


def test_columns_are_given_whole(planted, run_on, tmp_path):
    result = run_on(planted.folder, "BPR")
    with pytest.raises(ConfigError, match="items, id_column and columns are given together"):
        export(result.checkpoint, tmp_path / "x.rec", items="items.csv")
    (tmp_path / "items.csv").write_text("id,title\nzz,a\n", "utf-8")
    with pytest.raises(DataError, match=r"column \[id\] has none of the model's items"):
        export(result.checkpoint, tmp_path / "x.rec", tmp_path / "items.csv", "id", ["title"])


def test_recommend_writes_a_file(tmp_path, make_values, capsys):
    folder = write_atomic(tmp_path / "data")
    values = make_values(folder, topk=[5], valid_metric="Recall@5", bundle=str(tmp_path / "x.rec"))
    run("BPR", folder.name, config_dict=values)
    recommender = Recommender.load(tmp_path / "x.rec")
    expected = recommender.recommend(recommender.users.names, 4)
    pytest.importorskip("pyarrow")
    readers = {
        "csv": pd.read_csv,
        "jsonl": lambda file: pd.read_json(file, lines=True),
        "parquet": pd.read_parquet,
    }
    for suffix, read in readers.items():
        out = tmp_path / f"top.{suffix}"
        assert run_command("recommend", str(tmp_path / "x.rec"), "--k=4", f"--out={out}") == 0
        found = read(out)
        assert found[["user", "item"]].equals(expected[["user", "item"]].astype(found.user.dtype))
        assert found["rank"].tolist() == expected["rank"].tolist()
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-6)
        assert run_command("recommend", str(tmp_path / "x.rec"), f"--out={out}") == 2
        assert "is there already" in capsys.readouterr().err
        assert len(read(out)) == len(expected)
    (tmp_path / "some.txt").write_text("u3\nu1\n", "utf-8")
    some = ["--users", str(tmp_path / "some.txt"), "--out", str(tmp_path / "some.csv")]
    assert run_command("recommend", str(tmp_path / "x.rec"), *some) == 0
    assert pd.read_csv(tmp_path / "some.csv").user.unique().tolist() == ["u3", "u1"]
    (tmp_path / "wrong.txt").write_text("u3\nnobody\n", "utf-8")
    wrong = ["--users", str(tmp_path / "wrong.txt"), "--out", str(tmp_path / "wrong.csv")]
    assert run_command("recommend", str(tmp_path / "x.rec"), *wrong) == 2
    assert "unknown user(s): nobody" in capsys.readouterr().err
    assert not (tmp_path / "wrong.csv").exists()
    text = ["--out", str(tmp_path / "top.txt")]
    assert run_command("recommend", str(tmp_path / "x.rec"), *text) == 2


def test_the_encoders_go_with_the_model(tmp_path, make_values):
    """New items are encoded as those of the training were, and are ranked at once."""
    titles = [["red apple", "green pear", "blue sea", "grey steel"][n % 4] for n in range(20)]
    folder = write_atomic(tmp_path / "data", items={"title:token_seq": titles})
    encode_text(titles[:8], "tfidf", out=tmp_path / "other_feat.npy")  # has an encoder beside it
    values = make_values(
        folder,
        topk=[5],
        valid_metric="Recall@5",
        load_col=None,
        item_modalities={"text": {"columns": ["title"], "encoder": "tfidf", "dimension": 4}},
        bundle=str(tmp_path / "x.rec"),
        knn_k=3,
        collab_knn_k=3,
    )
    run("SIGRec", folder.name, config_dict=values)
    recommender = Recommender.load(tmp_path / "x.rec")
    rows = encode_text(
        ["green pear", "grey steel"], like=tmp_path / "x.rec/text_encoder.safetensors"
    )
    recommender.add_items(["new pear", "new steel"], {"text": rows})
    for token, kind in (("new pear", 1), ("new steel", 3)):
        table = recommender.similar(token, 5, by="text")
        assert {int(item[1:]) % 4 for item in table.similar} == {kind}
        np.testing.assert_allclose(table.score, 1.0, rtol=1e-3)
