"""Checkpoints: a name of its own for each run, and nothing half written."""

from __future__ import annotations

import logging
import re

import pytest
import recbole.utils.logger
import torch
from helpers_data import snapshot
from recbole.config import Config as RecBoleConfig
from recbole.model import general_recommender

from recbole_sigrec import export, load_data_and_model, run
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError
from recbole_sigrec.recbole_repairs.log_files import own_log_file
from recbole_sigrec.training import checkpoint, trainer


@pytest.fixture
def one_second(monkeypatch):
    """All happens within one second, as by processes of several containers that begin together."""
    for module in (trainer, recbole.utils.logger):
        monkeypatch.setattr(module, "get_local_time", lambda: "Jan-01-2030_00-00-00")
    monkeypatch.setattr("os.getpid", lambda: 1)


def test_runs_of_the_same_second_write_files_of_their_own(planted, run_on, tmp_path, one_second):
    results = [run_on(planted.folder, "BPR", learning_rate=rate) for rate in (0.05, 0.0001)]
    names = {result.checkpoint for result in results}
    files = {file.name for file in (tmp_path / "saved").glob("*.pth")}
    assert len(names) == 2 and len(files) == 4
    best = [checkpoint.load(result.checkpoint)["valid_result"] for result in results]
    assert best == [result.best_valid_result for result in results]


def test_a_checkpoint_of_another_run_is_never_replaced(
    planted, make_values, tmp_path, one_second, monkeypatch
):
    """Even if two runs came by the same name."""
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    values = make_values(planted.folder)
    found = run("BPR", "planted", config_dict=values)
    before = snapshot(tmp_path / "saved")
    with pytest.raises(DataError, match="is there already, and is not overwritten") as error:
        run("BPR", "planted", config_dict={**values, "learning_rate": 0.05})
    assert found.checkpoint in str(error.value)
    assert snapshot(tmp_path / "saved") == before


def test_a_new_checkpoint_that_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(TypeError, match="cannot hold a object"):
        checkpoint.save({"what": object()}, tmp_path / "new.pth", new=True)
    assert list(tmp_path.iterdir()) == []
    checkpoint.save({"epoch": 1}, tmp_path / "old.pth", new=True)
    with pytest.raises(TypeError, match="cannot hold a object"):
        checkpoint.save({"what": object()}, tmp_path / "old.pth")
    assert checkpoint.load(tmp_path / "old.pth")["epoch"] == 1


def test_logs_of_the_same_second_have_names_of_their_own(make_config, planted, one_second):
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    config, names = make_config("BPR", planted.folder), set()
    try:
        for _ in range(2):
            logging.getLogger().handlers[:] = []
            with own_log_file():
                recbole.utils.logger.init_logger(config)
            kinds = logging.getLogger().handlers
            names |= {h.baseFilename for h in kinds if isinstance(h, logging.FileHandler)}
    finally:
        for handler in logging.getLogger().handlers:
            handler.close()
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    assert len(names) == 2
    assert recbole.utils.logger.get_local_time() == "Jan-01-2030_00-00-00"


# ---- reading -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(planted, run_on, tmp_path_factory):
    """A BPR checkpoint as it is in the file."""
    folder = tmp_path_factory.mktemp("written")
    result = run_on(planted.folder, "BPR", checkpoint_dir=str(folder))
    return torch.load(result.checkpoint, weights_only=True)


@pytest.fixture
def refused(tmp_path):
    """``refused(state, says)``: every way to read such a checkpoint of a model refuses it."""

    def check(state, says):
        file = tmp_path / "bad.pth"
        torch.save(state, file)
        ways = [load_data_and_model, lambda f: export(f, "x.rec")]
        ways += [lambda f, key=key: run(config_dict={key: f}) for key in ("refit", "warm_start")]
        for way in ways:
            with pytest.raises(SIGRecError, match=says) as error:
                way(str(file))
            assert str(file) in str(error.value)

    return check


def test_a_checkpoint_that_lacks_a_part(written, refused):
    for name in written.keys() - {"format"}:
        lacking = {key: value for key, value in written.items() if key != name}
        refused(lacking, rf"lacks its part \[{name}\]")
    refused({**written, "data": [1]}, r"is damaged in its part \[data\]")
    for config in ("{", "0.5", "{}", '{"train_neg_sample_args": null}'):
        refused({**written, "config": config}, r"is damaged in its part \[config\]")
    refused({**written, "other_parameter": {"__array__": 1}}, "is damaged: 'int' object has no")
    data = written["data"]
    for key, value, says in (
        ("training", None, "[training]: field required"),
        ("users", [*data["users"][:-1], 7], "[users."),
        ("items", data["items"][:-1] + data["items"][:1], "[items]: a token is there twice"),
        ("features", {"image": 1}, "[features.image]"),
    ):
        changed = {**data, key: value} if value is not None else dict(data)
        if value is None:
            del changed[key]
        refused({**written, "data": changed}, re.escape(f"is damaged in its part [data]: {says}"))


def test_a_checkpoint_whose_parameters_are_no_numbers(written, refused, tmp_path):
    def changed(value):
        table = written["state_dict"]["user_embedding.weight"].clone()
        table[3, 2] = value
        return {**written["state_dict"], "user_embedding.weight": table}

    states = changed(torch.nan)
    refused({**written, "state_dict": states}, r"NaN parameters \(user_embedding.weight\)")
    refused({**written, "best": {"state_dict": states}}, "NaN parameters")
    torch.save({**written, "state_dict": changed(torch.inf)}, tmp_path / "bad.pth")
    for way in (load_data_and_model, lambda file: export(file, "x.rec")):
        with pytest.raises(DataError, match=r"infinite parameters \(user_embedding.weight\)"):
            way(str(tmp_path / "bad.pth"))


def test_what_a_closed_form_learned_is_no_number(run_on, planted, tmp_path):
    result = run_on(planted.folder, "EASE")
    state = torch.load(result.checkpoint, weights_only=True)
    state["other_parameter"]["item_similarity"]["__array__"][3, 2] = torch.nan
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=r"NaN parameters \(item_similarity\)"):
        load_data_and_model(str(tmp_path / "bad.pth"))


def test_a_model_may_mask_with_infinity(run_on, planted):
    class Masking(general_recommender.BPR):
        def __init__(self, config, dataset):
            super().__init__(config, dataset)
            mask = torch.zeros(self.n_items)
            mask[0] = -torch.inf
            self.register_buffer("mask", mask)
            self.fixed = torch.nn.Parameter(mask.clone(), requires_grad=False)

        def full_sort_predict(self, interaction):
            scores = super().full_sort_predict(interaction).view(-1, self.n_items)
            return (scores + self.mask + self.fixed).view(-1)

    result = run_on(planted.folder, Masking)
    assert result.test_result == run_on(planted.folder, general_recommender.BPR).test_result
    load_data_and_model(result.checkpoint, Masking)


def test_a_checkpoint_without_a_parameter(written, tmp_path):
    states = {k: v for k, v in written["state_dict"].items() if k != "user_embedding.weight"}
    torch.save({**written, "state_dict": states}, tmp_path / "bad.pth")
    with pytest.raises(ConfigError, match=r"bad.pth\] does not fit .*user_embedding.weight"):
        load_data_and_model(str(tmp_path / "bad.pth"))


def test_a_checkpoint_of_which_one_bit_has_changed(written, tmp_path):
    """torch.load alone reads it."""
    file = tmp_path / "bad.pth"
    torch.save(written, file)
    content = bytearray(file.read_bytes())
    place = content.find(written["state_dict"]["item_embedding.weight"].numpy().tobytes())
    content[place + 2] ^= 1
    file.write_bytes(content)
    assert place > 0 and torch.load(file, weights_only=True)["epoch"] == written["epoch"]
    with pytest.raises(DataError, match=r"bad.pth\] cannot be read: it is damaged.* checksum"):
        load_data_and_model(str(file))


def test_a_checkpoint_of_recboles_own(written, refused):
    """RecBole's trainer saves its Config, which only unpickling would read."""
    config = RecBoleConfig.__new__(RecBoleConfig)
    state = {"config": config, "epoch": 1, "cur_step": 0, "state_dict": written["state_dict"]}
    refused(state, r"is one of RecBole's own: it does not hold the users .*recbole-sigrec run")
    del state["config"]
    refused(state, r"is not a checkpoint of recbole_sigrec: it does not hold the users")
