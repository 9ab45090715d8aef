"""What is drawn of the data follows from the seed: the negatives of a sampled evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_sigrec import load_data_and_model, run
from recbole_sigrec.data.seeds import fixed_draws
from recbole_sigrec.training.trainer_kinds import trainer_class

SAMPLED = {
    "epochs": 3,
    "topk": [5],
    "metrics": ["Recall", "NDCG"],
    "valid_metric": "NDCG@5",
}


def test_fixed_draws_follow_from_the_key_and_disturb_nothing():
    np.random.seed(5)
    expected = np.random.random(4)
    np.random.seed(5)
    drawn = [np.random.random(2)]
    fixed = []
    for key in ((1, 2), (1, 2), (1, 3)):
        with fixed_draws(*key):
            fixed.append(np.random.random(3).tolist())
    drawn.append(np.random.random(2))
    np.testing.assert_array_equal(np.concatenate(drawn), expected)
    assert fixed[0] == fixed[1] != fixed[2]


def negatives(loader):
    """(user, item, label) of every candidate of a sampled part, in the order of the loader."""
    columns = ("user_id", "item_id", "label")
    batches = [torch.stack([batch[0][name].long() for name in columns], 1) for batch in loader]
    return torch.cat(batches).tolist()


@pytest.mark.parametrize("mode", ["uni20", "pop20"])
@pytest.mark.parametrize("repeatable", [False, True])
def test_every_evaluation_ranks_the_same_items(planted, prepare, make_config, mode, repeatable):
    def loaders(**values):
        own = {"eval_args": {"mode": mode}, "negative_items": "all", **values}
        return prepare(make_config("BPR", planted.folder, repeatable=repeatable, **own))

    one = loaders()
    found = {phase: negatives(getattr(one, phase)) for phase in ("valid", "test")}
    assert len(found["test"]) == 21 * len(one.test.dataset)
    np.random.seed(3)
    again = loaders(eval_batch_size=50)
    for phase in ("test", "valid"):  # in another order, in other batches, after other draws
        assert negatives(getattr(again, phase)) == found[phase]
    test_only = {(user, item) for user, item, label in found["test"] if label == 0}
    assert test_only != {(user, item) for user, item, label in found["valid"] if label == 0}
    for other, same in (({"seed": 9}, False), ({"seed": 9, "split_seed": 2020}, True)):
        assert (negatives(loaders(**other).test) == found["test"]) is same


def test_a_sampled_test_is_the_same_in_a_run_after_loading_and_on_resume(planted, make_values):
    values = make_values(planted.folder, **SAMPLED, eval_args={"mode": "uni20"})
    whole = run("BPR", "planted", config_dict=values)
    config, model, _, _, valid, test = load_data_and_model(whole.checkpoint)
    trainer = trainer_class(config["MODEL_TYPE"], "BPR")(config, model)
    for _ in range(2):
        assert trainer.evaluate(test, load_best_model=False) == whole.test_result
        assert trainer.evaluate(valid, load_best_model=False) == whole.best_valid_result
    half = run("BPR", "planted", config_dict={**values, "epochs": 1})
    last = half.checkpoint.removesuffix(".pth") + ".last.pth"
    resumed = run("BPR", "planted", config_dict={**values, "resume": last})
    assert resumed.test_result == whole.test_result
    assert resumed.best_valid_result == whole.best_valid_result


def test_sampled_validation_changes_neither_training_nor_the_test(planted, make_values):
    """As often as it is validated, and by however many items: the last epoch is the same."""
    results = []
    for valid, step in (("uni20", 1), ("uni20", 3), ("uni7", 1)):
        values = {"eval_args": {"mode": {"valid": valid, "test": "uni20"}}, "eval_step": step}
        values = make_values(planted.folder, **SAMPLED, **values)
        results.append(run("BPR", "planted", config_dict=values, saved=False).test_result)
    assert results[0] == results[1] == results[2]
