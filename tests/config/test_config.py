"""Config: where a value comes from, how it is read, and which keys there are."""

from __future__ import annotations

import pickle
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pydantic
import pytest
import yaml
from helpers_data import SMALL, write_mmrec
from hypothesis import example, given
from hypothesis import strategies as st
from recbole.config import configurator

import recbole_sigrec
from recbole_sigrec import Arm, Config
from recbole_sigrec.config import keys, property_files
from recbole_sigrec.config.property_files import property_root
from recbole_sigrec.config.registry import known_models, resolve_model
from recbole_sigrec.config.values import parse_command_line, parse_value
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model.base import MultimodalRecommender
from recbole_sigrec.model_names import MODELS


def make(model="SIGRec", dataset="toy", files=(), values=None, line=()):
    return Config(model, dataset, [str(file) for file in files], values, line)


@pytest.fixture
def write(tmp_path):
    """``write(text)``: a new yaml file with that text."""

    def new(text):
        file = tmp_path / f"{len(list(tmp_path.glob('*.yaml')))}.yaml"
        file.write_text(text, "utf-8")
        return file

    return new


# ---- precedence ----------------------------------------------------------------------------------


def test_defaults_are_those_of_the_property_files():
    found = make()
    assert (
        found["knn_k"]
        == yaml.safe_load((property_root() / "model/SIGRec.yaml").read_text("utf-8"))["knn_k"]
    )
    overall = yaml.safe_load((property_root() / "overall.yaml").read_text("utf-8"))
    assert found["valid_metric"] == overall["valid_metric"] == "Recall@20"
    assert found["learner"] == "adam"  # RecBole's
    assert (Config()["model"], Config()["dataset"]) == (overall["model"], overall["dataset"])


def test_command_line_over_dict_over_files_over_properties(write):
    files = [write("knn_k: 31\ncollab_knn_k: 31\nn_ui_layers: 3\nseed: 31"), write("seed: 32")]
    values = {"knn_k": 41, "collab_knn_k": 41}
    found = make(files=files, values=values, line=["--knn_k=51"])
    assert found["knn_k"] == 51
    assert found["collab_knn_k"] == 41
    assert found["n_ui_layers"] == 3
    assert found["seed"] == 32  # the later file
    assert found["n_semantic_layers"] == make()["n_semantic_layers"]


def test_model_and_data_set_by_argument_file_or_command_line(write):
    file = write("model: BM3\ndataset: baby")
    by_file = Config(config_file_list=[str(file)])
    assert (by_file["model"], by_file["dataset"]) == ("BM3", "baby")
    by_argument = Config("SIGRec", "toy", [str(file)])
    assert (by_argument["model"], by_argument["dataset"]) == ("SIGRec", "toy")
    by_line = Config(None, None, [str(file)], command_line=["--model=LightGCN", "--dataset=toy"])
    assert (by_line["model"], by_line["dataset"]) == ("LightGCN", "toy")


def properties(root, **files):
    """Property files of our own making: file (``__`` for ``/``) → its content."""
    for file in property_root().rglob("*.yaml"):
        copy = root / file.relative_to(property_root())
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    for name, values in files.items():
        (root / f"{name.replace('__', '/')}.yaml").write_text(yaml.safe_dump(values), "utf-8")
    return root


def test_data_set_properties_may_hold_values_of_one_model(tmp_path, monkeypatch):
    defaults = {
        "seed": 7,
        "model_defaults": {"SIGRec": {"knn_k": 17, "seed": 8}, "BM3": {"n_layers": 4}},
    }
    root = properties(tmp_path / "p", dataset__toy=defaults)
    monkeypatch.setattr(property_files, "property_root", lambda: root)
    sigrec, bm3, gcn, other = make(), make("BM3"), make("LightGCN"), make(dataset="other")
    assert (sigrec["knn_k"], sigrec["seed"], sigrec.model_keys.knn_k) == (17, 8, 17)
    assert (bm3["n_layers"], bm3["seed"], "knn_k" in bm3) == (4, 7, False)
    assert (gcn["seed"], gcn["n_layers"]) == (7, 2)
    assert other["knn_k"] != 17
    assert all("model_defaults" not in found for found in (sigrec, bm3, gcn, other))
    assert make(values={"knn_k": 3})["knn_k"] == 3  # what the user says comes first


def test_a_models_name_is_taken_in_any_case():
    """No two names are one but for their case."""
    assert len({name.lower() for name in known_models()}) == len(known_models())
    for written, name in (("mgcn", "MGCN"), ("sigrec", "SIGRec"), ("LIGHTGCN", "LightGCN")):
        config = Config(written, "toy", config_dict={"state": "ERROR"})
        assert config["model"] == name and config["knn_k" if name != "LightGCN" else "n_layers"]
        assert resolve_model(written) is resolve_model(name)
        assert Arm.from_model(written).label == name


def test_a_file_of_the_users_may_hold_values_of_one_model(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("model_defaults: {SIGRec: {knn_k: 17, n_ui_layers: 2}, Mine: {any: 1}}", "utf-8")
    two.write_text("knn_k: 5\nmodel_defaults: {SIGRec: {n_ui_layers: 4}}", "utf-8")

    def made(model, **values):
        return Config(model, "toy", [str(one), str(two)], values)

    sigrec, mgcn = made("SIGRec"), made("MGCN")
    assert (sigrec["knn_k"], sigrec["n_ui_layers"], mgcn["knn_k"]) == (17, 4, 5)
    assert made("SIGRec", knn_k=3)["knn_k"] == 3  # a dict comes before a file
    assert "model_defaults" not in sigrec and "any" not in sigrec
    one.write_text("model_defaults: {sigrec: {knn_k: 19}}", "utf-8")
    assert Config("SIGREC", "toy", [str(one)])["knn_k"] == 19
    wrong = {
        "model_defaults: {SIGRec: {knn_kk: 5}}": r"unknown config key \[knn_kk\]",
        "model_defaults: {LightGNC: {n_layers: 1}}": r"one.yaml.*LightGNC.*mean 'LightGCN'",
        "model_defaults: {BPR: {}, bpr: {}}": r"one.yaml.*names a model twice: BPR, bpr",
        "model_defaults: {SIGRec: 5}": r"one.yaml.*write it as {MODEL: {key: value}}",
        "model_defaults: 5": r"one.yaml.*write it as {MODEL: {key: value}}",
    }
    for text, says in wrong.items():
        one.write_text(text, "utf-8")
        with pytest.raises(ConfigError, match=says):
            made("SIGRec")


def test_our_overall_properties_come_after_recboles(tmp_path, monkeypatch):
    root = properties(tmp_path / "p", model__LightGCN={"embedding_size": 11})
    monkeypatch.setattr(property_files, "property_root", lambda: root)
    assert make("LightGCN")["embedding_size"] == 11
    assert make("LightGCN")["n_layers"] == 2  # RecBole's
    assert make("LightGCN")["metric_decimal_place"] == 6  # ours; RecBole's is 4


def test_the_arguments_of_a_test_runner_are_not_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--seed=77", "--knn_k=ten", "--no_such_key=1"])
    assert make()["seed"] == 2020


@pytest.mark.parametrize(
    "program",
    [
        "/opt/bin/py.test",
        "/x/lib/site-packages/ipykernel_launcher.py",
        str(Path(sysconfig.get_path("scripts")) / "uvicorn"),
    ],
)
def test_arguments_of_an_installed_program_are_not_read(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "--seed=77", "-f", "kernel.json"])
    assert Config("SIGRec", "toy")["seed"] == 2020


def test_the_arguments_of_a_users_script_are_taken(monkeypatch, caplog, write):
    given = ["train.py", "run", "--seed=77", "--learning_rate=.05", "--my_width=4", "--fast"]
    monkeypatch.setattr(sys, "argv", [*given, "--knn_kk=5", "--nproc=2", "--config_files=a.yaml"])
    found = Config("SIGRec", "toy", [str(write("seed: 1"))], {"seed": 2, "learning_rate": 0.1})
    assert (found["seed"], found["learning_rate"], found["knn_k"]) == (77, 0.05, 20)
    assert (
        "arguments of train.py that set no config key, so that only the script itself can read "
        "them: run --my_width --fast --knn_kk --nproc --config_files. "
        "Did you mean 'knn_k'?"
    ) in caplog.text
    assert Config(Foreign, "toy")["my_width"] == 4
    assert make(line=())["seed"] == 2020  # the caller says: none


# ---- values --------------------------------------------------------------------------------------

VALUES = {
    "1e-3": 1e-3,
    "1E5": 1e5,
    "-2.5e+3": -2500.0,
    ".5": 0.5,
    "5": 5,
    "True": True,
    "false": False,
    "None": None,
    "~": None,
    "": None,
    "[1, 2.5, a]": [1, 2.5, "a"],
    "['Recall', \"NDCG\"]": ["Recall", "NDCG"],
    "{'RS': [0.8, 0.1, 0.1]}": {"RS": [0.8, 0.1, 0.1]},
    "{distribution: uniform, alpha: 1e-1}": {"distribution": "uniform", "alpha": 0.1},
    "Recall@20": "Recall@20",
    "a=b": "a=b",
    "[5,inf)": "[5,inf)",
    "2024-01-02": "2024-01-02",
    "2024-13-45": "2024-13-45",
    "._": "._",
    "0b_": "0b_",
    "9" * 5000: "9" * 5000,
    "/data/x.json": "/data/x.json",
    "1e": "1e",
}


@pytest.mark.parametrize("text", VALUES, ids=lambda text: text[:30])
def test_value(text):
    value = parse_value(text)
    assert value == VALUES[text]
    assert type(value) is type(VALUES[text])
    assert parse_command_line([f"--key={text}"]) == {"key": VALUES[text]}


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').mkdir('owned')",
        "[__import__('os').mkdir('owned')]",
        "!!python/object/apply:os.mkdir [owned]",
        "{a: !!python/object/apply:os.mkdir [owned]}",
        "!!python/name:os.mkdir",
        "exec('import os; os.mkdir(\"owned\")')",
    ],
)
def test_values_are_not_evaluated(tmp_path, code):
    for value in (parse_value(code), parse_command_line([f"--k={code}"])["k"]):
        assert value in (code, [code[1:-1]])
    found = make(values={"wandb_project": code}, line=[f"--dataset_save_path={code}"])
    assert found["wandb_project"] in (code, [code[1:-1]])
    with pytest.raises(ConfigError, match="learning_rate"):
        make(line=[f"--learning_rate={code}"])
    assert not (tmp_path / "owned").exists()


@given(st.text())
@example("&a [*a]")
@example("? [a]")
@example("=")
@example("<<: 1")
@example("[" * 5000)
@example("!!bool x")
@example("!!int ''")
@example("!!timestamp x")
@example("!!binary x")
@example("!!set {a}")
@example("!!pairs [a: b]")
def test_every_text_is_some_value(text):
    value = parse_value(text)
    assert value is None or isinstance(value, bool | int | float | str | list | dict)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab_ 1"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("ab", min_size=1), inner),
        max_leaves=6,
    )
)
def test_values_written_as_yaml_come_back(value):
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    assert parse_value(text) == value


def test_values_of_a_dict_are_parsed_like_the_command_line():
    found = make(values={"topk": "[5, 20]", "learning_rate": "1e-2", "modalities": "None"})
    assert found["topk"] == [5, 20]
    assert found["learning_rate"] == 0.01
    assert found["modalities"] is None


def test_quoted_values_of_a_file_are_read_by_their_key(write):
    file = write('strict_ids: "False"\nknn_k: "7"\nknn_self: "yes"\ncollab_weight: "0.5"')
    found = make(files=[file])
    assert [found[key] for key in ("strict_ids", "knn_k", "knn_self", "collab_weight")] == [
        False,
        7,
        True,
        0.5,
    ]


def test_command_line_refuses_what_it_cannot_read():
    with pytest.raises(ConfigError, match=r"\[knn_k=5\].*--key=value"):
        parse_command_line(["knn_k=5"])
    with pytest.raises(ConfigError, match=r"\[--knn_k\].*--key=value"):
        parse_command_line(["--knn_k", "5"])
    with pytest.raises(ConfigError, match=r"\[knn_k\] is given twice"):
        parse_command_line(["--knn_k=5", "--knn_k=6"])
    assert parse_command_line(["--knn_k=5", "--knn_k=5"]) == {"knn_k": 5}


# ---- RecBole's habits ----------------------------------------------------------------------------


def test_recbole_settings():
    found = make(
        values={
            "train_neg_sample_args": {"distribution": "popularity", "sample_num": 2},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni100"},
            "metrics": "Recall",
            "topk": 20,
        },
        line=["--load_col={inter: [user_id, item_id, timestamp]}", "--val_interval=None"],
    )
    assert found["train_neg_sample_args"] == {
        "distribution": "popularity",
        "sample_num": 2,
        "alpha": 1.0,
        "dynamic": False,
        "candidate_num": 0,
    }
    assert found["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert found["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}
    assert found["valid_neg_sample_args"] == {"distribution": "uniform", "sample_num": 100}
    assert (found["metrics"], found["topk"]) == (["Recall"], [20])
    assert found["load_col"] == {"inter": ["user_id", "item_id", "timestamp"]}


@pytest.mark.parametrize("none", [None, "None", {"distribution": None}])
def test_no_negative_samples(none):
    found = make("BM3", values={"train_neg_sample_args": none})
    assert found["train_neg_sample_args"]["distribution"] == "none"


def test_data_path():
    assert make(values={"data_path": "data"})["data_path"] == str(Path("data/toy"))
    assert Path(make(dataset="ml-100k")["data_path"]).name == "ml-100k"
    assert (Path(make(dataset="ml-100k")["data_path"]) / "ml-100k.inter").is_file()
    Path("own/ml-100k").mkdir(parents=True)  # a user's own comes first
    for text in ("own", "'own'", ' "own" '):
        assert Path(make(dataset="ml-100k", values={"data_path": text})["data_path"]) == Path(
            "own/ml-100k"
        )
    assert make(values={"resume": "NULL", "result_file": "0755"})["resume"] is None
    own = make(dataset="ml-100k", values={"data_path": "own"})["data_path"]
    assert Path(own) == Path("own/ml-100k")


def test_the_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows's
    (tmp_path / "my.yaml").write_text("checkpoint_dir: ~/saved\nwandb_project: ~/x", "utf-8")
    found = Config(
        *("BPR", "toy", ["~/my.yaml"], {"data_path": "~/data", "result_file": "~"}),
        command_line=["--graph_cache_dir=~/graphs", "--bundle='~/b.rec'"],
    )
    places = {key: found[key] for key in ("checkpoint_dir", "graph_cache_dir", "bundle")}
    assert places == {
        "checkpoint_dir": str(tmp_path / "saved"),
        "graph_cache_dir": str(tmp_path / "graphs"),
        "bundle": str(tmp_path / "b.rec"),
    }
    assert Path(found["data_path"]) == tmp_path / "data/toy"
    assert (found["result_file"], found["wandb_project"]) == (None, "~/x")  # ~ alone is YAML's null


def test_foreign_keys_of_recbole_are_accepted():
    found = make(values={"mlp_hidden_size": [8], "kg_embedding_size": 8, "n_layers": 5})
    assert found["mlp_hidden_size"] == [8]


def test_program_reads_several_config_files(tmp_path, write):
    from recbole_sigrec.cli import run_command

    folder = write_mmrec(tmp_path / "data")
    small = write(yaml.safe_dump({**SMALL, "data_path": str(folder.parent)}))
    last = write("model: BM3\ndataset: toy\nseed: 5\nresult_file: r.json")
    assert run_command("run", "--config_files", f"{small} {last}", "--seed=6") == 0
    result = yaml.safe_load((tmp_path / "r.json").read_text("utf-8"))
    assert (result["model"], result["seed"], result["config"]["n_layers"]) == ("BM3", 6, 2)


@pytest.mark.parametrize(
    ("values", "selects"),
    [
        ({}, "Recall@20"),
        ({"topk": [10]}, "Recall@10"),
        ({"topk": 10}, "Recall@10"),
        ({"topk": [50, 7, 15]}, "Recall@15"),
        ({"topk": [100, 50]}, "Recall@50"),
        ({"metrics": ["NDCG", "MRR"]}, "NDCG@20"),
        ({"metrics": "recall", "topk": [3]}, "Recall@3"),
        ({"metrics": ["GAUC"], "eval_args": {"mode": "uni20"}}, "GAUC"),
        ({"metrics": ["AUC"], "eval_args": {"mode": "labeled"}}, "AUC"),
        ({"topk": [10, 20], "valid_metric": "NDCG@10"}, "NDCG@10"),
    ],
)
def test_the_metric_that_selects_is_one_that_is_computed(values, selects):
    assert make(values=values)["valid_metric"] == selects


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"topk": [10], "valid_metric": "Recall@20"},
            r"lacks its cutoff.*--valid_metric=Recall@10",
        ),
        ({"metrics": ["NDCG"], "valid_metric": "Recall@20"}, "--valid_metric=NDCG@20"),
        ({"valid_metric": "Recall"}, r"\[Recall\] lacks its cutoff; .*--valid_metric=Recall@20"),
        ({"valid_metric": "Recall@"}, "--valid_metric=Recall@20"),
        ({"topk": []}, r"\[topk\] = \[\[\]\]"),
        ({"metrics": ["AUC"]}, r"mode \[full\].*--eval_args=\{mode: labeled\}"),
        (
            {
                "metrics": ["AUC"],
                "valid_metric": "AUC@10",
                "eval_args": {"mode": {"valid": "labeled", "test": "labeled"}},
            },
            "write --valid_metric=AUC$",
        ),
    ],
)
def test_a_metric_that_the_user_names_is_never_changed(values, says):
    with pytest.raises(ConfigError, match=says):
        make(values=values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"train_neg_sample_args": {"uniform": 5}}, "{distribution: uniform, sample_num: 5}"),
        ({"train_neg_sample_args": {"sample_nun": 5}}, "no .sample_nun.*mean 'sample_num'.*alpha"),
        ({"train_neg_sample_args": {"alpha": "x"}}, r"\[alpha\] = \[x\]: .*number"),
        ({"train_neg_sample_args": {"dynamic": "yes"}}, r"\[dynamic\] = \[yes\].*True, False"),
        ({"eval_args": {"groupby": "user"}}, r"no \[groupby\].*mean 'group_by'"),
        ({"eval_args": {"group_by": "users"}}, r"\[group_by\] = \[users\].*'user'"),
        ({"eval_args": {"order": "OT"}}, r"\[order\] = \[OT\].*'RO', 'TO'"),
        ({"eval_args": {"mode": {"vaild": "full"}}}, r"\[mode\] has no \[vaild\].*'valid'"),
        ({"eval_args": {"mode": "uni0"}}, r"\[mode\].*at least 1"),
        ({"eval_args": {"split": {"XS": [8, 1, 1]}}}, r"\[split\] has no \[XS\].*RS, LS, TS"),
        ({"eval_args": {"split": {}}}, r"\[split\] = \[{}\]: give one way"),
        ({"eval_args": {"split": {"LS": "valid"}}}, r"\[LS\] = \[valid\].*'valid_and_test'"),
        ({"eval_args": {"split": {"RS": [0, 0.5, 0.5]}}}, r"\[RS\].*that of training is above 0"),
        ({"eval_args": {"split": {"TS": "all"}}}, r"\[TS\] = \[all\]: give the shares"),
        ({"clip_grad_norm": {"max_nrm": 5}}, r"no \[max_nrm\].*mean 'max_norm'"),
        ({"clip_grad_norm": {"norm_type": 2}}, r"needs \[max_norm\]"),
        ({"clip_grad_norm": {"max_norm": "x"}}, r"\[max_norm\] = \[x\]: .*number above 0"),
        ({"load_col": {"intr": ["user_id"]}}, r"\[load_col\] has no \[intr\].*'inter'"),
        ({"unload_col": {"users": ["age"]}}, r"\[unload_col\] has no \[users\].*'user'"),
        ({"discretization": {"age": {"methd": "LD"}}}, r"\[age\] has no \[methd\].*'method'"),
        ({"neg_sampling": {"uniform": 1}}, r"older RecBole.*train_neg_sample_args: {distribution"),
        ({"training_neg_sample_num": 5}, r"older RecBole.*train_neg_sample_args: {distribution"),
        ({"eval_setting": "RO_RS,full"}, r"older RecBole.*eval_args: {split"),
        ({"group_by_user": True}, r"older RecBole.*eval_args: {group_by"),
        ({"min_user_inter_num": 5}, r"older RecBole.*user_inter_num_interval"),
        ({"nproc": 2}, r"\[nproc\] would do nothing.*run\(…, nproc=2\)"),
        ({"local_rank": 0}, r"\[local_rank\] would do nothing.*--nproc=2"),
        ({"config_files": "a.yaml"}, r"\[config_files\] would do nothing.*--config_files"),
        ({"device": "cpu"}, r"\[device\] would do nothing.*use_gpu: False"),
        ({"valid_metric_bigger": False}, r"\[valid_metric_bigger\].*follows from other keys"),
    ],
)
def test_what_nothing_would_read_is_refused(values, says):
    with pytest.raises(ConfigError, match=says):
        make(values=values)


def test_every_sub_key_that_recbole_reads_is_accepted():
    values = {
        "train_neg_sample_args": {
            "distribution": "popularity",
            "sample_num": 2,
            "alpha": 0.5,
            "dynamic": True,
            "candidate_num": 3,
        },
        "eval_args": {
            "split": {"TS": [8, 1, 1]},
            "order": "TO",
            "group_by": None,
            "mode": {"valid": "uni5", "test": "full"},
        },
        "clip_grad_norm": {"max_norm": 5, "norm_type": 2, "error_if_nonfinite": True},
        "load_col": {"inter": ["user_id", "item_id"], "ent": ["ent_id"]},
        "additional_feat_suffix": ["ent"],
        "discretization": {"age": {"method": "ED", "bucket": 10}},
    }
    found = make(values=values)
    assert {key: found[key] for key in values} == values


# ---- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_properties_of_our_models_are_their_keys(model):
    """Each field has a default in the model's file, and the file has no other key of the model."""
    values = yaml.safe_load((property_root() / f"model/{model}.yaml").read_text("utf-8"))
    fields = set(resolve_model(model).Keys.model_fields)
    assert fields <= set(values)
    overall = yaml.safe_load((property_root() / "overall.yaml").read_text("utf-8"))
    shared = {
        *("learning_rate", "learner", "weight_decay", "train_batch_size"),
        *("stopping_step", "train_neg_sample_args"),
    } | property_files.PROPERTY_ONLY
    assert set(values) - fields <= shared | set(overall)
    assert not fields & set(overall)


def test_plugin_keys_have_their_defaults_in_overall_yaml():
    overall = yaml.safe_load((property_root() / "overall.yaml").read_text("utf-8"))
    assert set(keys.PluginKeys.model_fields) <= set(overall)
    assert make().plugin.model_dump().items() >= {"missing_modality": "mean"}.items()


@pytest.mark.parametrize("kind", [keys.PluginKeys, keys.RecBoleKeys])
def test_each_key_says_what_it_is(kind):
    for name, field in kind.model_fields.items():
        assert field.description, name


def test_property_files_are_found_and_readable():
    files = {str(file.relative_to(property_root())) for file in property_root().rglob("*.yaml")}
    data_sets = ("ml-100k", "baby", "sports", "microlens", "tiktok")
    assert {f"dataset/{name}.yaml" for name in data_sets} <= files
    assert {f"model/{name}.yaml" for name in MODELS} | {"overall.yaml"} <= files
    for name in data_sets:
        for model in MODELS:
            assert make(model, name)["dataset"] == name


def test_property_root_is_the_installed_package_or_beside_it(tmp_path, monkeypatch):
    package = Path(recbole_sigrec.__file__).resolve().parent
    assert property_root() in (package / "properties", package.parent / "properties")
    file = tmp_path / "pkg" / "config" / "property_files.py"
    monkeypatch.setattr(property_files, "__file__", str(file))
    with pytest.raises(FileNotFoundError, match="reinstall"):
        property_root()
    (tmp_path / "pkg/properties").mkdir(parents=True)
    (tmp_path / "pkg/properties/overall.yaml").write_text("", "utf-8")
    assert property_root() == tmp_path / "pkg/properties"


class Foreign(MultimodalRecommender):
    """A user's model with a typed key of its own."""

    class Keys(keys.Keys):
        my_width: int = keys.setting("the width", ge=1)


class Untyped:
    """A user's model as RecBole has them, with keys that nobody declares."""

    type = resolve_model("BPR").type
    input_type = resolve_model("BPR").input_type


def test_a_users_model_brings_its_keys():
    found = make(Foreign, values={"my_width": 3})
    assert (found["model"], found.model_keys.my_width) == ("Foreign", 3)
    with pytest.raises(ConfigError, match=r"\[my_width\] = \[0\].*the width"):
        make(Foreign, values={"my_width": 0})
    with pytest.raises(ConfigError, match=r"\[my_width\] = \[nothing\]"):
        make(Foreign)
    found = make(Untyped, values={"whatever_it_reads": 3})
    assert (found["whatever_it_reads"], found.model_keys) == (3, None)
    with pytest.raises(ConfigError, match=r"\[strict_id\].*'strict_ids'"):
        make(Untyped, values={"strict_id": False})  # nearly ours: a slip
    with pytest.raises(ConfigError, match=r"\[whatever_it_reads\]"):
        make("BPR", values={"whatever_it_reads": 3})


def test_keys_are_immutable():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        make().model_keys.knn_k = 5


def test_config_can_be_pickled():
    """Loader workers that are spawned get it so."""
    found = pickle.loads(pickle.dumps(make(values={"knn_k": 3})))
    assert (found["knn_k"], found.model_keys.knn_k, found["dataset"]) == (3, 3, "toy")


def test_configs_do_not_share_state(monkeypatch):
    """RecBole appends a data set's keys to a list that all its Configs print from."""
    shared = ["field_separator"]
    monkeypatch.setattr(configurator, "dataset_arguments", shared)
    first = make("LightGCN", "ml-100k")
    assert "load_col" in first.parameters["Dataset"]
    assert shared == ["field_separator"]
    make("SIGRec", "ml-100k", values={"load_col": None})
    assert make("LightGCN", "ml-100k")["load_col"] == first["load_col"]


def test_installed_code_of_the_users_is_told_that_its_arguments_are_not_taken(monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["/x/site-packages/mypkg/train.py", "--seed=77", "--token=s"])
    assert Config("SIGRec", "toy")["seed"] == 2020
    assert "/x/site-packages/mypkg/train.py are not taken as config keys: --seed. " in caplog.text
    assert "command_line=sys.argv[1:]" in caplog.text


def test_keys_of_a_users_own_model_are_taken(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--n_zonk=3", "--my_width=4", "--learning_rte=1"])
    found = Config(Foreign, "toy", config_dict={"n_zonk": 2})
    assert (found["n_zonk"], found["learning_rate"]) == (3, 0.001)


def test_numbers_of_numpy_are_numbers():
    split = {"RS": [np.float64(0.8), np.float64(0.1), np.float64(0.1)]}
    assert make(values={"eval_args": {"split": split}})["eval_args"]["split"] == split


def test_the_home_folder_itself():
    assert make(line=["--checkpoint_dir=~"])["checkpoint_dir"] == str(Path.home())
