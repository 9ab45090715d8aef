"""docs/running.md: RecBole's recipe step by step, as it stands there, has the figures of run."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import recbole.data
import torch

from recbole_sigrec import Config, create_dataset, data_preparation, get_model, get_trainer, run
from recbole_sigrec.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "running.md"


@pytest.fixture(autouse=True)
def _handlers():
    """RecBole's init_logger gives the root logger handlers of a folder that goes."""
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before


@pytest.fixture
def values(make_values, planted):
    return make_values(planted.folder, epochs=3, learning_rate=0.01, eval_step=1)


def recipe(model: str, values: dict, **replaced: str) -> dict:
    """What the page's code leaves behind, with another model, data set and values."""
    (code,) = (
        piece
        for piece in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
        if "init_seed" in piece
    )
    replaced = {
        'model="SIGRec"': f"model={model!r}",
        'dataset="mine"': 'dataset="planted"',
        '{"data_path": "dataset"}': "VALUES",
        **replaced,
    }
    for old, new in replaced.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    found = {"VALUES": values}
    exec(compile(code, str(PAGE), "exec"), found)
    return found


@pytest.mark.skipif(not PAGE.is_file(), reason="the page is in the repository alone")
@pytest.mark.parametrize("model", ["SIGRec", "LightGCN", "BPR", "MultiVAE", "RecVAE", "ItemKNN"])
def test_the_recipe_has_the_figures_of_run(values, model):
    result, found = run(model, "planted", config_dict=values), recipe(model, values)
    assert found["test_result"] == result["test_result"]
    assert found["best_valid_result"] == result["best_valid_result"]
    assert found["best_valid_score"] == result["best_valid_result"]["recall@20"]
    assert found["trainer"].best_epoch == result["best_epoch"]
    best = torch.load(result["checkpoint"], weights_only=True)["state_dict"]
    own = found["trainer"].model.state_dict()
    assert best.keys() == own.keys()
    assert all(torch.equal(best[name], own[name]) for name in best)


@pytest.mark.skipif(not PAGE.is_file(), reason="the page is in the repository alone")
def test_with_a_seed_of_the_splits_own(values):
    values = {**values, "seed": 5, "split_seed": 6, "eval_args": {"mode": "full"}}
    result, found = run("BPR", "planted", config_dict=values), recipe("BPR", values)
    assert found["test_result"] == result["test_result"]


def test_an_empty_part_is_none(planted, values, tmp_path):
    lines = planted.folder.joinpath("planted.inter").read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.endswith("\t1")]
    (tmp_path / "data/planted").mkdir(parents=True)
    (tmp_path / "data/planted/planted.inter").write_text("\n".join(kept) + "\n", "utf-8")
    config = Config("BPR", "planted", config_dict={**values, "data_path": str(tmp_path / "data")})
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    assert valid_data is None
    model = get_model("BPR")(config, train_data.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, model)
    trainer.fit(train_data, valid_data)
    assert trainer.evaluate(valid_data) == {}
    assert 0 < trainer.evaluate(test_data)["recall@20"] <= 1


def test_recboles_own_data_preparation_takes_our_data_set(values):
    config = Config("BPR", "planted", config_dict=values)
    dataset = create_dataset(config)
    theirs = recbole.data.data_preparation(config, dataset)
    assert [len(part.dataset) for part in theirs] == [
        len(part.dataset) for part in data_preparation(config, create_dataset(config))
    ]
    model = get_model("BPR")(config, theirs[0].dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, model)
    trainer.fit(*theirs[:2])
    assert 0 < trainer.evaluate(theirs[2])["recall@20"] <= 1


def test_recboles_own_data_set_is_refused(values):
    config = Config("BPR", "ml-100k", config_dict={**values, "data_path": "dataset"})
    theirs = recbole.data.create_dataset(config)
    with pytest.raises(ConfigError, match=r"\[Dataset\] .*recbole_sigrec.create_dataset\(config\)"):
        data_preparation(config, theirs)


@pytest.mark.parametrize("key", ["bundle", "result_file", "resume", "save_dataset"])
def test_keys_that_the_steps_do_not_follow_are_refused(values, key):
    config = Config("BPR", "planted", config_dict={**values, key: "x"})
    with pytest.raises(ConfigError, match=rf"\[{key}\] = \[x\].*remove the key"):
        create_dataset(config)


def test_threads_are_set(values):
    create_dataset(Config("BPR", "planted", config_dict={**values, "threads": 2}))
    assert torch.get_num_threads() == 2


def test_labels_are_looked_for_before_training(values):
    values = {**values, "train_neg_sample_args": None}
    config = Config("NeuMF", "planted", config_dict=values)
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    model = get_model("NeuMF")(config, train_data.dataset).to(config["device"])
    with pytest.raises(ConfigError, match=r"NeuMF learns from labels.*no field \[label\]"):
        get_trainer(config["MODEL_TYPE"], "NeuMF")(config, model).fit(train_data, valid_data)


def test_unknown_names():
    with pytest.raises(ConfigError, match="Did you mean 'BPR'"):
        get_model("BPRR")
