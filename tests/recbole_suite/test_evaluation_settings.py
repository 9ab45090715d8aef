"""RecBole's ways to split and to rank, and its metrics, through our entry point."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from helpers_recbole import EACH, N_USERS, NO_NEGATIVES, RATED, SHARED, table, write_rated

from recbole_sigrec import Config, create_dataset, data_preparation, run
from recbole_sigrec.errors import ConfigError

RATIO = {"RS": [0.8, 0.1, 0.1]}
LEAVE_ONE_OUT = {"LS": "valid_and_test"}


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    return write_rated(tmp_path_factory.mktemp("data"))


def evaluated_by(split, order="RO", group_by="user", mode="full") -> dict:
    return {"eval_args": {"split": split, "order": order, "group_by": group_by, "mode": mode}}


def values_of(rated, **values):
    return {**SHARED, "data_path": str(rated.parent), "epochs": 1, **values}


def train(rated, model="BPR", **values):
    return run(model, rated.name, config_dict=values_of(rated, **values))


def parts(rated, **values):
    """Each part's (user, item, time), as tokens' numbers."""
    config = Config("BPR", rated.name, config_dict=values_of(rated, **RATED, **values))
    dataset = create_dataset(config)
    found = []
    for loader in data_preparation(config, dataset):
        feat = loader.dataset.inter_feat
        users, items = (
            [int(token[1:]) for token in dataset.id2token(field, feat[field].numpy())]
            for field in ("user_id", "item_id")
        )
        found.append(list(zip(users, items, feat["timestamp"].numpy().astype(int), strict=True)))
    return found


# ---- splits --------------------------------------------------------------------------------------

SPLITS = [
    ("user", RATIO, [8, 1, 1]),
    ("user", {"RS": [1, 1, 1]}, [4, 3, 3]),
    ("user", LEAVE_ONE_OUT, [8, 1, 1]),
]


@pytest.mark.parametrize("order", ["RO", "TO"])
@pytest.mark.parametrize(("group_by", "split", "of_a_user"), SPLITS)
def test_a_split_within_each_user(rated, order, group_by, split, of_a_user):
    found = parts(rated, **evaluated_by(split, order, group_by))
    rows = [row for part in found for row in part]
    assert sorted(rows) == sorted((u, i, t) for u, i, _, t in table())
    for part, size in zip(found, of_a_user, strict=True):
        assert (np.bincount([row[0] for row in part]) == size).all()
    if order == "TO":  # nobody's training is later than the own validation, nor this than the test
        for earlier, later in itertools.pairwise(found):
            for user in range(N_USERS):
                assert max(t for u, _, t in earlier if u == user) < min(
                    t for u, _, t in later if u == user
                )


@pytest.mark.parametrize("order", ["RO", "TO"])
@pytest.mark.parametrize("group_by", [None, "none"])
def test_a_split_of_all_interactions(rated, order, group_by):
    found = parts(rated, **evaluated_by(RATIO, order, group_by))
    total = N_USERS * EACH
    assert list(map(len, found)) == [0.8 * total, 0.1 * total, 0.1 * total]
    assert len({row[:2] for part in found for row in part}) == total
    if order == "TO":
        times = [[row[2] for row in part] for part in found]
        assert max(times[0]) < min(times[1]) <= max(times[1]) < min(times[2])


MODES = ["full", "uni10", "pop10", {"valid": "uni10", "test": "full"}]


@pytest.mark.parametrize("split", [RATIO, LEAVE_ONE_OUT])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_ways_to_rank(rated, split, mode):
    given = evaluated_by(split, mode=mode)
    result, again = (train(rated, **given) for _ in range(2))
    assert result["split"] == {"train": 320, "valid": 40, "test": 40}
    assert result["test_result"] == again["test_result"]
    assert result["best_valid_result"] == again["best_valid_result"]
    # Of the test's one item and ten others, all but one are among the first ten.
    of_one_user = result["test_result"]["hit@10"]
    assert 0.6 < of_one_user <= 1 if mode in ("uni10", "pop10") else 0 < of_one_user < 0.7


# ---- metrics -------------------------------------------------------------------------------------

RANKING = [
    *("Recall", "MRR", "NDCG", "Hit", "Precision", "MAP"),
    *("ItemCoverage", "AveragePopularity", "GiniIndex", "ShannonEntropy", "TailPercentage"),
]


@pytest.mark.parametrize("metric", RANKING)
@pytest.mark.parametrize("topk", [10, [3, 7]])
def test_one_metric_alone(rated, metric, topk):
    cutoffs = topk if isinstance(topk, list) else [topk]
    given = {"metrics": metric if topk == 10 else [metric], "topk": topk}
    result = train(rated, **given, valid_metric=f"{metric}@{cutoffs[-1]}")
    assert list(result["test_result"]) == [f"{metric.lower()}@{k}" for k in cutoffs]
    assert all(math.isfinite(value) for value in result["test_result"].values())


def test_gauc_alone_and_beside_others(rated):
    alone = train(rated, metrics=["GAUC"], valid_metric="GAUC")["test_result"]
    assert list(alone) == ["gauc"]
    beside = train(rated, metrics=["Recall", "GAUC"], valid_metric="GAUC")["test_result"]
    assert list(beside) == ["recall@5", "recall@10", "gauc"]
    assert beside["gauc"] == alone["gauc"]
    assert 0 < alone["gauc"] < 1


@pytest.mark.parametrize("negatives", [{}, NO_NEGATIVES], ids=["drawn", "labelled"])
@pytest.mark.parametrize("metric", ["AUC", "MAE", "RMSE", "LogLoss"])
def test_value_metrics_of_labels(rated, metric, negatives):
    given = {**evaluated_by(RATIO, mode="labeled"), **RATED, "threshold": {"rating": 3}}
    result = train(rated, "NeuMF", metrics=[metric], valid_metric=metric, **given, **negatives)
    assert list(result["test_result"]) == [metric.lower()]
    assert 0 < result["test_result"][metric.lower()] < 1
    again = train(rated, "NeuMF", metrics=[metric], valid_metric=metric, **given, **negatives)
    assert result["test_result"] == again["test_result"]


def test_metrics_of_both_kinds_are_refused(rated):
    with pytest.raises(ConfigError, match=r"Ranking metrics and value metrics|AUC"):
        train(rated, "NeuMF", metrics=["AUC", "Recall"], valid_metric="AUC")


@pytest.mark.parametrize("places", [2, 4, 6])
def test_decimals_of_the_metrics(rated, places):
    found = train(rated, metric_decimal_place=places)["test_result"]
    whole = train(rated, metric_decimal_place=9)["test_result"]
    assert found == {key: pytest.approx(round(value, places)) for key, value in whole.items()}


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["adam", "adamw", "sgd", "adagrad", "rmsprop"])
def test_learners(rated, learner):
    result, again = (train(rated, learner=learner, weight_decay=0.01) for _ in range(2))
    assert result["test_result"] == again["test_result"]
    assert result["config"]["learner"] == learner


def test_stopping_and_steps_of_validation(rated):
    """A score that is equal to the best counts as an improvement, as in RecBole."""
    still = train(rated, epochs=6, eval_step=2, learning_rate=1e-12)
    assert (still["epochs"], still["best_epoch"]) == (6, 5)
    worse = train(rated, epochs=40, stopping_step=1, learning_rate=0.5)
    assert worse["epochs"] == worse["best_epoch"] + 3 < 40
    none = train(rated, epochs=2, eval_step=0)
    assert none["best_valid_result"] == {}
    assert none["epochs"] == 2
