"""What ``auto`` becomes: against a slow search, and where it is written."""

from __future__ import annotations

import itertools
import json
import logging

import helpers_models as ref
import numpy as np
import pytest
import recbole.trainer
import torch
from recbole.data.interaction import Interaction

from recbole_sigrec import load_data_and_model, run
from recbole_sigrec.data.dataset import interactions_of
from recbole_sigrec.data.parts import create_dataset, data_preparation
from recbole_sigrec.graph import content_vectors, ridge_weights
from recbole_sigrec.graph.ridge import RidgeFamily
from recbole_sigrec.model import automatic
from recbole_sigrec.model.automatic import AUTOMATIC, CONTENT, choose_values
from recbole_sigrec.model.base import MultimodalRecommender
from recbole_sigrec.model.item_scores import FIXED_VALUES, GRAPH_ALONE, WEIGHTS, ItemScores
from recbole_sigrec.model.sigrec import SIGRec

KEYS = ("item_score_content", "modality_weights", "item_score_reg")


@pytest.fixture
def parts(planted, make_config):
    """``parts(folder=planted, **values)`` → (config, loaders)."""

    def make(folder=planted.folder, **values):
        config = make_config("SIGRec", folder, valid_metric="NDCG@3", topk=[3], **values)
        return config, data_preparation(config, create_dataset(config))

    return make


def slow_value(train, valid, w, weights, reg):
    """NDCG@3 of the whole closed form on the validation part, which has an item of each user."""
    features, mask = train.modality_features, train.modality_mask
    weights = weights or dict.fromkeys(features, 1.0)
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    content = content_vectors(features, mask, shares, center=True).numpy()
    r, held = (interactions_of(part).toarray() for part in (train, valid))
    scores = r @ ridge_weights(interactions_of(train), content, w, reg)
    gains = []
    for user, item in zip(*held.nonzero(), strict=True):
        better = [i for i in range(1, r.shape[1]) if not r[user, i]]
        better = [i for i in better if scores[user, i] > scores[user, item]]
        gains.append(1 / np.log2(len(better) + 2) if len(better) < 3 else 0.0)
    return np.mean(gains)


@pytest.mark.parametrize("given", [{}, {"item_score_content": 160.0}, {"item_score_reg": 1.0}])
def test_the_choice_is_that_of_a_slow_search(parts, with_audio, monkeypatch, given):
    ridges = (0.1, 100.0, 1.0)
    monkeypatch.setattr(automatic, "RIDGES", ridges)
    config, loaders = parts(with_audio, **given)
    train, valid = (loader.dataset for loader in loaders[:2])
    names = list(train.modality_features)
    values = {key: FIXED_VALUES[key] for key in KEYS} | given
    combined = [{name: 0.8 if name == one else 0.1 for name in names} for one in names]
    combined += [{name: float(name != one) for name in names} for one in names]
    grids = dict(zip(KEYS, (CONTENT, [None, *combined], ridges), strict=True))
    for key in (key for key in KEYS if key not in given):
        grid = grids[key]
        found = [slow_value(train, valid, *{**values, key: other}.values()) for other in grid]
        if max(found) > found[list(grid).index(values[key])]:
            values[key] = grid[int(np.argmax(found))]
    choose_values(config, loaders)
    assert {key: config[key] for key in KEYS} == values
    assert given or values != {key: FIXED_VALUES[key] for key in KEYS}
    assert config["item_score_weight"] == "auto"  # each validation chooses it


@pytest.mark.parametrize("reg", [3.0, 50.0])
def test_one_inverse_serves_all_weights_of_the_content(parts, reg):
    train = parts()[1][0].dataset
    features, mask = train.modality_features, train.modality_mask
    interactions = interactions_of(train)
    equal = content_vectors(features, mask, dict.fromkeys(features, 1.0), center=True).numpy()
    family = RidgeFamily(interactions, equal, reg)
    histories = interactions.toarray()
    outside = histories == 0
    for w, image in itertools.product((0.0, 2.5, 40.0), (0.0, 0.3, 1.0)):
        weights = {"image": image, "text": 1 - image}
        content = content_vectors(features, mask, weights, center=True).numpy()
        expected = histories @ ridge_weights(interactions, content, w, reg)
        columns = [w * weights[name] for name, x in features.items() for _ in range(x.shape[1])]
        found = family.scorer(np.array(columns, dtype=np.float32))(interactions)
        np.testing.assert_allclose(found[outside], expected[outside], atol=1e-5)


def test_a_modality_of_noise_weighs_little(parts, with_audio):
    given = {"item_score_content": 160.0, "item_score_reg": 1.0}
    config, loaders = parts(with_audio, **given)
    choose_values(config, loaders)
    assert config["modality_weights"]["audio"] < 0.2


def test_what_is_given_stays(parts):
    given = {"item_score_content": 3.0, "item_score_reg": 70.0, "collab_max_history": 9}
    config, loaders = parts(**given, modality_weights=None, item_score_weight=0.4)
    choose_values(config, loaders)
    expected = {**given, "modality_weights": None, "item_score_weight": 0.4}
    assert {key: config[key] for key in AUTOMATIC} == expected


def test_a_ridge_that_is_given_stays_without_item_scores(parts):
    config, loaders = parts(item_score_weight=0.0, item_score_reg=70.0)
    choose_values(config, loaders)
    assert config["item_score_reg"] == 70.0 and config["modality_weights"] != "auto"


def test_one_modality_has_no_weights_to_choose(parts):
    config, loaders = parts(modalities=["text"])
    choose_values(config, loaders)
    assert config["modality_weights"] is None


def test_without_a_validation_part_the_values_are_fixed(parts, caplog):
    config, loaders = parts()
    with caplog.at_level(logging.INFO):
        choose_values(config, (loaders[0], None, None))
    assert {key: config[key] for key in FIXED_VALUES} == FIXED_VALUES
    assert "there is no validation part that ranks, to choose by" in caplog.text


def test_with_many_items_the_values_are_fixed_but_for_the_weight(parts, caplog):
    config, loaders = parts(item_score_max_items=55, item_score_reg=70.0)
    with caplog.at_level(logging.INFO):
        choose_values(config, loaders)
    assert {key: config[key] for key in FIXED_VALUES} == {
        **FIXED_VALUES,
        "item_score_weight": "auto",
        "item_score_reg": 70.0,
    }
    assert "(fixed: 56 items are more than item_score_max_items, 55)" in caplog.text


def test_with_many_items_the_weight_is_chosen(finished):
    result = finished(epochs=4, item_score_max_items=55)
    assert result["config"]["item_score_weight"] in WEIGHTS
    assert load_data_and_model(result["checkpoint"])[1].item_scores is not None


def test_the_longest_history_is_ten_medians(parts, planted):
    config, loaders = parts()
    sizes = np.bincount([user for user, _ in planted.parts[0]])
    choose_values(config, loaders)
    assert config["collab_max_history"] == 10 * np.median(sizes[sizes > 0]) == 70


def test_a_model_without_such_keys_is_left_alone(make_config, planted):
    config = make_config("BM3", planted.folder)
    before = dict(config.final_config_dict)
    loaders = data_preparation(config, create_dataset(config))
    before["eval_batch_size"] = config["eval_batch_size"]
    choose_values(config, loaders)
    assert config.final_config_dict == before


# ---- γ, at each validation -----------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["Recall@5", "NDCG@10"])
@pytest.mark.parametrize("name", ["SIGRec", "MGCN", "SMORE"])
def test_each_weight_ranks_as_the_evaluation_says(planted, make_config, prepare, name, metric):
    keys = {"item_score_weight": "auto", "item_score_reg": 3.0, "valid_metric": metric}
    prepared = ref.enlarged(prepare(make_config(name, planted.folder, **keys)))
    model, valid = prepared.model.eval(), prepared.valid
    with torch.no_grad():
        learned = model.on_validation_start(valid.dataset)
    chosen, found = model.item_scores.weight, {}
    for weight in WEIGHTS:
        model.item_scores.weight = weight
        result = prepared.trainer.evaluate(valid, load_best_model=False)
        found[weight] = result[metric.lower()]
    assert len(set(found.values())) > 2
    assert found[0.0] == pytest.approx(learned, abs=1e-6)
    assert found[chosen] == max(found.values())
    assert chosen == min(weight for weight in WEIGHTS if found[weight] == found[chosen])


def test_the_largest_weight_is_the_item_graph_alone(planted, make_config, prepare):
    keys = {"item_score_weight": GRAPH_ALONE, "item_score_reg": 3.0}
    prepared = ref.enlarged(prepare(make_config("SIGRec", planted.folder, **keys)))
    model = prepared.model.eval()
    closed = (model.interactions @ model.item_scores.graph).toarray()
    users = torch.arange(model.n_users)
    with torch.no_grad():
        scores = model.full_sort_predict(Interaction({"user_id": users})).view(len(users), -1)
    for own, row in zip(closed[1:, 1:], scores[1:, 1:].numpy()):
        order = np.argsort(-row, kind="stable")
        assert (np.diff(own[order]) <= 1e-3 * max(own.max(), 1e-9)).all()


@pytest.fixture
def finished(planted, make_values, tmp_path):
    """``finished(**values)``: the result of a run on the planted data, with a checkpoint."""

    def make(**values):
        given = make_values(planted.folder, result_file=str(tmp_path / "r.json"), **values)
        return run("SIGRec", planted.folder.name, config_dict=given)

    return make


def test_values_are_plain_where_they_are_written(finished, tmp_path):
    result = finished(epochs=4)
    config, model, *_ = load_data_and_model(result["checkpoint"])
    for values in (result["config"], json.loads((tmp_path / "r.json").read_text())["config"]):
        chosen = {key: values[key] for key in AUTOMATIC}
        assert "auto" not in values.values() and chosen["item_score_weight"] in WEIGHTS
        assert chosen == {key: config[key] for key in AUTOMATIC}
    weight = model.item_scores.weight if model.item_scores else 0.0
    assert weight == result["config"]["item_score_weight"]


def test_a_run_repeats_with_the_values_that_were_chosen(finished):
    first = finished(epochs=4)
    again = finished(epochs=4, **{key: first["config"][key] for key in AUTOMATIC})
    one, two = (
        torch.load(result["checkpoint"].replace(".pth", ".last.pth"), weights_only=True)
        for result in (first, again)
    )
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for name, before in one["state_dict"].items():
        assert torch.equal(before, two["state_dict"][name])
    valid = [result["best_valid_result"]["recall@20"] for result in (first, again)]
    assert valid[1] >= valid[0]  # at the best epoch of the first it has the same scores


@pytest.fixture
def scored(monkeypatch):
    """``scored(*scores)``: what the validations of the next run find, one after the other."""

    def make(*scores):
        told = iter(scores)
        found = lambda *_, **__: (score := next(told), {"recall@20": score})  # noqa: E731
        monkeypatch.setattr(recbole.trainer.Trainer, "_valid_epoch", found)

    return make


def test_the_weight_of_the_best_epoch_is_tested(finished, scored, monkeypatch, caplog):
    chosen = iter((0.5, 1.0, 2.0, 4.0))

    def by_weight(*_):
        best = next(chosen)
        return {weight: float(weight == best) for weight in WEIGHTS}

    monkeypatch.setattr(ItemScores, "by_weight", by_weight)
    scored(0.1, 0.3, 0.2, 0.1)
    caplog.set_level(logging.INFO)
    result = finished(epochs=4)
    assert "auto: item_score_weight = 1.0\n" in caplog.text
    assert result["best_epoch"] == 1
    assert result["config"]["item_score_weight"] == 1.0
    config, model, *_ = load_data_and_model(result["checkpoint"])
    assert model.item_scores.weight == config["item_score_weight"] == 1.0
    state = torch.load(result["checkpoint"].replace(".pth", ".last.pth"), weights_only=True)
    assert json.loads(state["config"])["item_score_weight"] == "auto"  # to be resumed
    assert state["chosen"] == {"item_score_weight": 4.0}


def test_a_closed_form_that_is_best_is_what_is_returned(finished, scored, monkeypatch, caplog):
    alone = {weight: weight / GRAPH_ALONE for weight in WEIGHTS}
    monkeypatch.setattr(ItemScores, "by_weight", lambda *_: alone)
    scored(*[0.3] * 50)
    caplog.set_level(logging.INFO)
    result = finished(epochs=50, stopping_step=3)
    assert (result["best_epoch"], result["epochs"]) == (0, 5)  # the same again is no better
    assert result["config"]["item_score_weight"] == GRAPH_ALONE
    assert "auto: item_score_weight = 1000.0; the item graph ranks alone" in caplog.text


def test_a_users_model_keeps_what_it_tells_a_checkpoint(planted, make_config, prepare):
    """RecBole's way: names of attributes, or two methods; the weight is kept beside them."""

    class Counted(SIGRec):
        other_parameter_name = ("steps",)
        steps = 3

    class Told(SIGRec):
        steps = 3

        def other_parameter(self):
            return {"steps": self.steps}

        def load_other_parameter(self, para):
            self.steps = para["steps"]

    for kind in (Counted, Told):
        kind.__name__ = "SIGRec"  # whose defaults it has
        first, second = (prepare(make_config(kind, planted.folder)) for _ in range(2))
        first.model.steps, first.model.item_scores.weight = 7, 2.0
        first.trainer._data = first.trainer._about_data(first.train)
        first.trainer._save_checkpoint(0, verbose=False)
        second.trainer.load_best(first.trainer.saved_model_file)
        assert (second.model.steps, second.model.item_scores.weight) == (7, 2.0)


def test_repeated_items_are_ranked(tmp_path, planted, make_config, prepare):
    """With ``repeatable`` users take again what they took, and nothing is left out of a ranking."""
    keys = {"item_score_weight": "auto", "repeatable": True, "negative_items": "all"}
    prepared = ref.enlarged(prepare(make_config("SIGRec", planted.folder, **keys)))
    model = prepared.model.eval()
    with torch.no_grad():
        model.on_validation_start(prepared.train.dataset)  # each held-out item is a training item
        found = model.item_scores.by_weight(model._held_out, *model._final())
    assert max(found.values()) > 0.1


def test_labels_are_nothing_to_choose_by(parts, caplog):
    config, loaders = parts()
    config["eval_args"]["mode"]["valid"] = "labeled"
    with caplog.at_level(logging.INFO):
        choose_values(config, loaders)
    assert {key: config[key] for key in FIXED_VALUES} == FIXED_VALUES
    assert "no validation part that ranks" in caplog.text


def test_the_config_of_a_last_state_has_its_weight(finished, monkeypatch):
    alone = {weight: float(weight == 2.0) for weight in WEIGHTS}
    monkeypatch.setattr(ItemScores, "by_weight", lambda *_: alone)
    last = finished(epochs=2)["checkpoint"].replace(".pth", ".last.pth")
    config, model, *_ = load_data_and_model(last)
    assert config["item_score_weight"] == model.item_scores.weight == 2.0


# ---- patience ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learned", "epochs"),
    [([0.0], 5), ([0.1, 0.2, 0.3, 0.4], 8), ([0.0, 0.0, 0.3], 7), ([0.1] * 9, 5)],
)
def test_training_waits_for_what_is_learned(finished, scored, monkeypatch, learned, epochs):
    """The whole is best in the first epoch. ``learned``: then it is zero."""
    told = itertools.chain(learned, itertools.repeat(0.0))
    monkeypatch.setattr(MultimodalRecommender, "on_validation_start", lambda *_: next(told))
    scored(*(1 / epoch for epoch in range(1, 30)))
    result = finished(epochs=29, stopping_step=3)
    assert (result["best_epoch"], result["epochs"]) == (0, epochs)
