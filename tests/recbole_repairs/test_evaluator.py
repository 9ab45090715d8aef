"""Coverage, inequality, entropy and popularity of what is recommended: of items, not of padding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers_data import SMALL, write_mmrec

from recbole_sigrec import Config, run
from recbole_sigrec.recbole_repairs.collector import Collector
from recbole_sigrec.recbole_repairs.evaluator import Evaluator

NAMES = ["ItemCoverage", "GiniIndex", "ShannonEntropy", "AveragePopularity", "TailPercentage"]


def evaluate(scores, counts, topk=(1, 3), batches=2, metrics=NAMES, positives=None):
    """The metrics of a score matrix, float [n_users, n_items + 1]; −inf is not to be recommended.

    Args:
        counts: item → training pairs.
        positives: (user, item) pairs, for the metrics that need them.
    """
    values = {"metrics": list(metrics), "topk": list(topk), "valid_metric": f"{metrics[0]}@1"}
    values = {**SMALL, **values, "metric_decimal_place": 12}
    config = Config("BPR", "toy", config_dict=values)
    data = SimpleNamespace(num=lambda field: scores.shape[1], item_counter=counts)
    collector, evaluator = Collector(config), Evaluator(config)
    collector.data_collect(SimpleNamespace(dataset=data))
    users, items = torch.tensor(positives or [(0, 1)]).T
    for rows in np.array_split(np.arange(len(scores)), batches):
        own = (users >= rows[0]) & (users <= rows[-1])
        part = torch.as_tensor(scores[rows], dtype=torch.float32)
        collector.eval_batch_collect(part, None, users[own] - rows[0], items[own])
    found = evaluator.evaluate(collector.get_data_struct())
    return {key: float(value) for key, value in found.items()}


def reference(scores, counts, k):
    """The formulas, over lists of what can be recommended."""
    lists = []
    for row in scores:
        best = sorted(np.flatnonzero(row > -np.inf), key=lambda item: -row[item])
        lists.append([int(item) for item in best[:k]])
    flat, n_items = [item for one in lists for item in one], scores.shape[1] - 1
    times = np.sort([flat.count(item) for item in range(1, n_items + 1)])
    share = times[times > 0] / len(flat)
    rare = sorted(counts, key=lambda item: (counts[item], item))[: max(1, len(counts) // 10)]
    weight = 2 * np.arange(1, n_items + 1) - n_items - 1
    popularity = [np.mean([counts.get(item, 0) for item in own]) for own in lists]
    return {
        f"itemcoverage@{k}": len(set(flat)) / n_items,
        f"giniindex@{k}": (weight * times).sum() / (n_items * len(flat)),
        f"shannonentropy@{k}": -(share * np.log(share)).sum() / len(share),
        f"averagepopularity@{k}": np.mean(popularity),
        f"tailpercentage@{k}": np.mean([np.mean([i in rare for i in own]) for own in lists]),
    }


def random_scores(masked, n_users=30, n_items=12, seed=0):
    """Random scores with the padding item and a share of the others masked; one is left to each."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_users, n_items + 1))
    scores[rng.random(scores.shape) < masked] = -np.inf
    scores[np.arange(n_users), rng.integers(1, n_items + 1, n_users)] = 1.0
    scores[:, 0] = -np.inf
    return scores


@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize("masked", [0.0, 0.85])
def test_metrics_are_those_of_the_formulas(masked, batches):
    """Where most items are masked, as in a sampled evaluation, lists are shorter than k."""
    scores = random_scores(masked)
    counts = {item: 1 + item % 5 for item in range(1, 12)}
    found = evaluate(scores, counts, topk=(1, 3, 8), batches=batches)
    short = (scores > -np.inf).sum(axis=1)
    assert (short < 3).any() == (masked > 0)
    for k in (1, 3, 8):
        for name, value in reference(scores, counts, k).items():
            assert found[name] == pytest.approx(value, abs=1e-6), name


def test_all_items_recommended_equally_often_are_covered_without_inequality():
    scores = np.where(np.eye(6, 7, 1, dtype=bool), 1.0, 0.0)  # user u ranks item u + 1 first
    scores[:, 0] = -np.inf
    found = evaluate(scores, {1: 1}, topk=(1,))
    assert found["itemcoverage@1"] == 1.0
    assert found["giniindex@1"] == 0.0


def test_other_metrics_of_the_same_evaluation_are_as_without_them():
    scores, positives = random_scores(0.3), [(user, 1 + user % 12) for user in range(30)]
    others = ["Recall", "NDCG", "MRR"]
    alone = evaluate(scores, {1: 1}, metrics=others, positives=positives)
    together = evaluate(scores, {1: 1}, metrics=[*others, *NAMES], positives=positives)
    assert 0 < alone["recall@3"] < 1
    assert {key: together[key] for key in alone} == alone


def test_a_run_in_which_all_items_are_recommended(tmp_path):
    """Forty users have forty items left to be recommended in lists of twenty."""
    rows = [(u, (u + 3 * n) % 40, label) for u in range(40) for n, label in enumerate((0, 0, 1, 2))]
    frame = pd.DataFrame(rows, columns=["userID", "itemID", "x_label"])
    folder = write_mmrec(tmp_path / "data", frame=frame, modalities={})
    values = {**SMALL, "data_path": str(folder.parent), "topk": [20], "valid_metric": "Recall@20"}
    found = run("BPR", "toy", config_dict={**values, "metrics": ["Recall", *NAMES[:2]]})
    assert found.test_result["itemcoverage@20"] == 1.0
