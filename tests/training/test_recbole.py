"""RecBole's own models and metrics on current libraries, through our entry point."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers_data import N_ITEMS, SMALL, interactions, load, run_on, snapshot, write_mmrec
from recbole.evaluator import Collector as RecBoleCollector
from recbole.evaluator.collector import DataStruct
from recbole.model.general_recommender import LightGCN as RecBoleLightGCN
from recbole.utils import FeatureType

from recbole_sigrec import Config, load_data_and_model, run, run_recbole
from recbole_sigrec.config.registry import recbole_models, resolve_model
from recbole_sigrec.data.parts import data_preparation
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model_names import REFUSED
from recbole_sigrec.parallel import distributed
from recbole_sigrec.recbole_repairs.atomic_files import fill_missing
from recbole_sigrec.recbole_repairs.collector import Collector
from recbole_sigrec.recbole_repairs.models import NormalizedAdjacency
from recbole_sigrec.recbole_repairs.numpy_names import numpy_aliases
from recbole_sigrec.training import checkpoint
from recbole_sigrec.training.run import build_model


@pytest.fixture
def folder(tmp_path):
    """A data set in MMRec's layout with a user and an item that are only in the test part."""
    frame = interactions()
    frame.loc[len(frame)] = [24, 20, 2]
    return write_mmrec(tmp_path / "data", frame=frame, modalities={})


def prepared(folder, model, **values):
    dataset = load(folder, model, **values)
    loaders = data_preparation(dataset.config, dataset)
    return build_model(dataset.config, loaders[0]), *loaders


# ---- the graphs of RecBole's models --------------------------------------------------------------


def dense_adjacency(train, n_users, n_items):
    """LightGCN (arXiv 2002.02126), Eq. 8, as it stands there, in float64."""
    r = np.zeros((n_users, n_items))
    r[train.inter_feat["user_id"].numpy(), train.inter_feat["item_id"].numpy()] = 1
    a = np.block([[np.zeros((n_users, n_users)), r], [r.T, np.zeros((n_items, n_items))]])
    degree = a.sum(axis=1)
    scale = np.array([d**-0.5 if d else 0.0 for d in degree])
    return scale[:, None] * a * scale[None, :]


@pytest.mark.parametrize("name", ["LightGCN", "NGCF"])
def test_adjacency_of_recboles_models(folder, name):
    model, train, *_ = prepared(folder, name)
    graph = model.norm_adj_matrix
    n_pairs = len(train.dataset)
    assert n_pairs == 96
    n_entries, matrix = (
        (graph.nnz, graph.matmul(torch.eye(graph.shape[0])))
        if name == "LightGCN"
        else (graph.coalesce().values().numel(), graph.to_dense())
    )
    assert n_entries == 2 * n_pairs
    dense = dense_adjacency(train.dataset, model.n_users, model.n_items)
    assert np.count_nonzero(dense) == 2 * n_pairs
    np.testing.assert_allclose(matrix.numpy(), dense, atol=1e-6)


def test_an_empty_graph_is_refused(folder):
    """The often copied repair of RecBole leaves one, and the model then trains in silence."""
    model, *_ = prepared(folder, "LightGCN")
    model.interaction_matrix = model.interaction_matrix.multiply(0).tocsr()
    model.interaction_matrix.eliminate_zeros()
    with pytest.raises(RuntimeError, match="0 entries for 0 training pairs"):
        model.get_norm_adj_mat()


def test_lightgcn_scores_are_those_of_the_dense_formula(folder):
    """Eq. 3-5: two layers here (RecBole's default), the mean over layers, the product."""
    model, train, *_ = prepared(folder, "LightGCN")
    model.eval()
    a = dense_adjacency(train.dataset, model.n_users, model.n_items)
    ego = torch.cat([model.user_embedding.weight, model.item_embedding.weight]).detach().numpy()
    final = sum(np.linalg.matrix_power(a, layer) @ ego for layer in range(3)) / 3
    users, items = final[: model.n_users], final[model.n_users :]
    with torch.no_grad():
        scores = model.full_sort_predict({"user_id": torch.arange(model.n_users)})
    np.testing.assert_allclose(scores.view(model.n_users, -1), users @ items.T, atol=1e-5)


@pytest.mark.parametrize("require_pow", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_lightgcn_loss_and_gradient_are_recboles(folder, require_pow, n_layers):
    model, *_ = prepared(folder, "LightGCN")
    model.require_pow, model.n_layers, model.reg_weight = require_pow, n_layers, 0.01
    batch = {
        "user_id": torch.tensor([1, 5, 1, 2, 1]),
        "item_id": torch.tensor([3, 3, 7, 1, N_ITEMS]),
        "neg_item_id": torch.tensor([7, 2, 9, N_ITEMS, 2]),  # 7 is a positive, too
    }
    tables = model.user_embedding.weight, model.item_embedding.weight
    got, expected = model.calculate_loss(batch), RecBoleLightGCN.calculate_loss(model, batch)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    for one, two in zip(torch.autograd.grad(got, tables), torch.autograd.grad(expected, tables)):
        assert two.abs().max() > 1e-4
        torch.testing.assert_close(one, two, atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_models_that_cannot_run_say_so(folder, name):
    assert name in recbole_models()
    with pytest.raises(ConfigError, match=rf"\[{name}\].*(SciPy 1.13|150 epochs)"):
        resolve_model(name)
    with pytest.raises(ConfigError, match=rf"\[{name}\]"):
        load(folder, name)


def test_names_of_models():
    assert {"LightGCN", "BPR", "Pop", "ItemKNN", "NGCF"} <= recbole_models()
    lightgcn = resolve_model("LightGCN")
    assert lightgcn.__name__ == "LightGCN"
    assert lightgcn.__module__ == "recbole_sigrec.model.lightgcn"
    assert resolve_model("NGCF").__mro__[1] is NormalizedAdjacency
    assert resolve_model("BPR").__module__.startswith("recbole.")
    with pytest.raises(ConfigError, match="Did you mean 'BPR'"):
        resolve_model("BPRR")


def test_ncl_trains(folder):
    pytest.importorskip("faiss")
    assert run_on(folder, "--model=NCL", "--epochs=2", "--num_clusters=4", "--warm_up_step=1") == 0


# ---- train, evaluate, save, load, resume ---------------------------------------------------------


@pytest.mark.parametrize("name", ["LightGCN", "BPR", "Pop", "ItemKNN", "NGCF"])
def test_recboles_model_from_run_to_reload(folder, tmp_path, name):
    """One epoch, then the saved model gives the same test result in a new object."""
    assert run_on(folder, f"--model={name}", "--result_file=r.json") == 0
    result = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert (result["model"], result["split"]) == (name, {"train": 96, "valid": 24, "test": 25})
    assert all(0 <= value <= 1 for value in result["test_result"].values())
    config, model, _, _, _, test = load_data_and_model(result["checkpoint"])
    from recbole_sigrec.training.trainer_kinds import trainer_class

    trainer = trainer_class(config["MODEL_TYPE"], name)(config, model)
    again = trainer.evaluate(test, load_best_model=False)
    assert dict(again) == result["test_result"]


@pytest.mark.parametrize("name", ["ItemKNN", "ContentEASE"])
def test_a_model_of_one_pass_is_validated_whatever_the_step(planted, make_values, name):
    values = make_values(planted.folder, epochs=4, eval_step=2)
    result = run(name, "planted", config_dict=values)
    assert (result["epochs"], result["best_epoch"]) == (1, 0)
    assert 0 <= result["best_valid_result"]["recall@20"] <= 1


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        *(("LightGCN", []), ("BPR", []), ("NGCF", [])),
        # … with a state beside the parameters, which is saved, too
        *((name, ["--total_anneal_steps=4"]) for name in ("MultiVAE", "MacridVAE")),
        *((name, ["--history_num_per_term=2"]) for name in ("DiffRec", "LDiffRec")),
    ],
)
def test_recboles_model_resumed_is_as_if_never_stopped(folder, tmp_path, name, keys):
    model = [f"--model={name}", "--learning_rate=0.01", *keys]
    assert run_on(folder, *model, "--epochs=3", "--result_file=whole.json") == 0
    first = "--checkpoint_dir=first"
    assert run_on(folder, *model, "--epochs=1", first) == 0
    (last,) = (tmp_path / "first").glob("*.last.pth")
    before = snapshot(tmp_path / "first")
    resume = f"--resume={last}"
    assert run_on(folder, *model, "--epochs=3", first, resume, "--result_file=two.json") == 0
    whole, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("whole", "two"))
    assert two["test_result"] == whole["test_result"]
    assert two["best_valid_result"] == whole["best_valid_result"]
    assert two["epochs"] == whole["epochs"] == 3
    assert before.items() <= snapshot(tmp_path / "first").items()
    parameters = [
        torch.load(r["checkpoint"], weights_only=True)["state_dict"] for r in (whole, two)
    ]
    for key, value in parameters[0].items():
        torch.testing.assert_close(parameters[1][key], value, atol=0, rtol=0)


def test_a_model_that_cannot_be_resumed_says_so(folder, tmp_path, capsys):
    """… and leaves nothing that a comparison would try to go on from."""
    assert run_on(folder, "--model=RecVAE", "--epochs=1", "--checkpoint_dir=first") == 0
    (best,) = (tmp_path / "first").iterdir()
    assert run_on(folder, "--model=RecVAE", "--epochs=2", f"--resume={best}") == 2
    assert "a run of RecVAE cannot be resumed: it has two optimizers" in capsys.readouterr().err


def test_arrays_of_a_checkpoint_are_on_the_cpu():
    """On a GPU a checkpoint is read there; RecBole's closed-form models have NumPy's arrays."""
    on_gpu = SimpleNamespace(cpu=lambda: torch.tensor([2.0]))
    assert checkpoint.decode({"__array__": on_gpu}).tolist() == [2.0]
    place = SimpleNamespace(cpu=lambda: torch.tensor([0]))
    parts = {"row": place, "col": place, "data": on_gpu}
    matrix = checkpoint.decode({"__sparse__": "csr", "shape": [1, 1], **parts})
    assert matrix.toarray().tolist() == [[2.0]]


# ---- metrics -------------------------------------------------------------------------------------

BEYOND = ["ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage", "ShannonEntropy"]


def test_metrics_that_recbole_breaks_on_the_cpu(folder, tmp_path):
    arguments = ["--metrics=[Recall, " + ", ".join(BEYOND) + "]", "--topk=[5]"]
    arguments += ["--model=LightGCN", "--valid_metric=Recall@5", "--result_file=r.json"]
    assert run_on(folder, *arguments) == 0
    found = json.loads((tmp_path / "r.json").read_text("utf-8"))["test_result"]
    assert set(found) == {f"{metric.lower()}@5" for metric in ["Recall", *BEYOND]}
    assert 0 < found["itemcoverage@5"] <= 1
    assert 0 <= found["giniindex@5"] < 1
    assert 0 <= found["tailpercentage@5"] <= 1
    assert 0 < found["shannonentropy@5"] <= np.log(N_ITEMS + 1) + 1e-6
    # Every item of the training part is in 4 or 5 of its 96 pairs; the cold one in none.
    assert 3.9 <= found["averagepopularity@5"] <= 6


def collected(kind):
    collector = kind.__new__(kind)
    collector.data_struct = DataStruct()
    collector.data_struct.set("rec.topk", torch.ones(2, 2))
    collector.data_struct.set("data.num_items", 7)
    collector.data_struct.set("data.count_items", {1: 2})
    return collector


def test_collector():
    with pytest.raises(AttributeError, match="cpu"):
        collected(RecBoleCollector).get_data_struct()  # what it repairs
    collector = collected(Collector)
    struct = collector.get_data_struct()
    assert struct.get("data.num_items") == 7
    assert struct.get("data.count_items") == {1: 2}
    assert torch.equal(struct.get("rec.topk"), torch.ones(2, 2))
    # What belongs to the data stays for the next evaluation; what belongs to the batches does not.
    assert collector.data_struct.get("data.num_items") == 7
    assert "rec.topk" not in collector.data_struct


# ---- NumPy and pandas ----------------------------------------------------------------------------


def test_numpy_has_the_names_that_recbole_uses(monkeypatch):
    for name in ("float", "int", "object", "str", "complex", "unicode"):
        monkeypatch.delattr(np, name, raising=False)
    assert not hasattr(np, "float")
    Config("BPR", "toy")
    assert np.float is np.float64
    assert np.int is np.int_
    assert np.object is np.object_
    assert np.str is np.str_
    assert np.complex is np.complex128
    assert np.unicode is np.str_


def test_numpy_names_that_exist_are_left_alone(monkeypatch):
    mine = object()
    monkeypatch.setattr(np, "float", mine, raising=False)
    numpy_aliases()
    assert np.float is mine


def test_importing_changes_nothing_of_numpy():
    """The names appear where a Config or a trainer is made, not when a module is imported."""
    code = (
        "import numpy as np; before = set(dir(np)); import recbole_sigrec.config.config, "
        "recbole_sigrec.training.trainer, recbole_sigrec.training.run, "
        "recbole_sigrec.data.dataset; "
        "print(sorted(set(dir(np)) - before & {'float', 'int', 'unicode'}), hasattr(np, 'float'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("False"), done.stdout + done.stderr


def test_fill_missing():
    frame = pd.DataFrame(
        {
            "token": [3.0, np.nan, 5.0],
            "number": [1.0, np.nan, 4.0],
            "tokens": [np.array([1, 2]), np.nan, np.array([3])],
            "numbers": [np.nan, np.array([0.5]), np.array([1.5])],
        }
    )
    kinds = {
        "token": FeatureType.TOKEN,
        "number": FeatureType.FLOAT,
        "tokens": FeatureType.TOKEN_SEQ,
        "numbers": FeatureType.FLOAT_SEQ,
    }
    filled = fill_missing(frame, kinds)
    assert filled["token"].tolist() == [3, 0, 5]
    assert filled["number"].tolist() == [1.0, 2.5, 4.0]
    assert [x.tolist() for x in filled["tokens"]] == [[1, 2], [], [3]]
    assert [x.tolist() for x in filled["numbers"]] == [[], [0.5], [1.5]]
    assert filled["tokens"][1].dtype == np.int64
    assert filled["numbers"][0].dtype == np.float64


def test_missing_values_of_atomic_files_are_filled(tmp_path):
    root = tmp_path / "holes"
    root.mkdir()
    lines = ["user_id:token\titem_id:token\trating:float"]
    lines += [
        f"u{u}\ti{i}\t{'' if (u + i) % 4 == 0 else u + i}" for u in range(8) for i in range(6)
    ]
    (root / "holes.inter").write_text("\n".join(lines) + "\n", "utf-8")
    items = ["item_id:token\tbrand:token\tgenre:token_seq", "i0\tx\ta b", "i1\t\t", "i2\ty\tb"]
    items += [f"i{n}\t\t" for n in (3, 4, 5)]
    (root / "holes.item").write_text("\n".join(items) + "\n", "utf-8")
    load_col = {"inter": ["user_id", "item_id", "rating"], "item": ["item_id", "brand", "genre"]}
    dataset = load(root, "BPR", load_col=load_col, normalize_all=False)
    known = [u + i for u in range(8) for i in range(6) if (u + i) % 4]
    ratings = dataset.inter_feat["rating"].to_numpy()
    assert np.isfinite(ratings).all()
    assert ratings.sum() == pytest.approx(48 * np.mean(known))
    ids = [dataset.field2token_id["item_id"][f"i{n}"] for n in range(6)]
    brands = dataset.item_feat["brand"].to_numpy()
    assert [brands[i] > 0 for i in ids] == [True, False, True, False, False, False]
    assert brands.min() == 0  # [PAD], not a wild number
    assert [len(dataset.item_feat["genre"][i]) for i in ids] == [2, 0, 1, 0, 0, 0]
    dataset.build()


def test_random_runs(run_on, planted):
    """It has no property file; it ranks at random: test recall@20 of 56 items is about 20/56."""
    result = run_on(planted.folder, "Random", topk=[20], metrics=["Recall"])
    assert abs(result.test_result["recall@20"] - 20 / 56) < 0.25
    assert "TRADITIONAL" in result.config["MODEL_TYPE"].upper()


@pytest.mark.parametrize(("ratio", "share"), [(1.0, 1.0), (1e6, 1.0), (None, 0.0)])
def test_rare_items_of_tail_percentage(run_on, planted, ratio, share):
    """Popular items are rare only where all are: by their share, or by their interactions."""
    keys = {"metrics": ["TailPercentage"], "topk": [5], "epochs": 1}
    result = run_on(planted.folder, "Pop", **keys, **({"tail_ratio": ratio} if ratio else {}))
    assert result.test_result == {"tailpercentage@5": share}


def test_diffrec_normalises_its_input(folder):
    assert not prepared(folder, "DiffRec")[0].mlp.norm
    assert prepared(folder, "DiffRec", norm=True)[0].mlp.norm


def test_run_takes_the_arguments_of_a_users_script(planted, make_values, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs=1", "--mine=5"])
    given = ("Pop", "planted", None, make_values(planted.folder))
    assert run(*given).config["epochs"] == 1
    assert run_recbole(*given)["valid_score_bigger"] is True
    assert run(*given, command_line=["--seed=4"]).config["epochs"] == 2
    sent = []
    monkeypatch.setattr(distributed, "spawn", lambda _, sent_on, *__: sent.append(sent_on) or {})
    with pytest.raises(TypeError):  # nothing came back
        run("BPR", *given[1:], nproc=2)
    assert sent[0][0][4] == ["--epochs=1"]  # processes are told, and read no arguments themselves


# ---- the program ---------------------------------------------------------------------------------


def test_evaluation_takes_as_many_users_as_memory_allows(folder):
    n_items = N_ITEMS + 2  # the cold item and the padding
    *_, test = prepared(folder, "BPR", eval_memory_mb=1)
    assert test.step == 2**20 // (16 * n_items)
    *_, test = prepared(folder, "BPR", eval_batch_size=5 * n_items)
    assert test.step == 5
    *_, test = prepared(folder, "BPR", eval_batch_size=1)
    assert test.step == 1


def test_recboles_models_get_their_config():
    """Our keys and checks stand in no way of RecBole's property files."""
    for name in ("NeuMF", "DMF", "ConvNCF", "SGL", "DGCF", "EASE", "MultiVAE", "ENMF", "SimpleX"):
        assert Config(name, "toy", config_dict=SMALL)["model"] == name


@pytest.mark.parametrize(
    ("name", "kind"), [("SASRec", "sequential"), ("KGAT", "knowledge"), ("DeepFM", "context")]
)
def test_other_kinds_of_models_are_refused(name, kind):
    with pytest.raises(ConfigError, match=rf"\[{name}\] is of type {kind}"):
        Config(name, "ml-100k")
    assert not torch.is_anomaly_enabled()  # which RecBole's SINE turns on for the whole process
