"""A training that diverges ends with an error that says where, and leaves no broken checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recbole.model.general_recommender import BPR

from recbole_sigrec import run
from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.training import checkpoint


class Breaking(BPR):
    """BPR whose loss has three terms; the second is not a number at one step."""

    epoch, at, steps, value = -1, (1, 2), 0, float("nan")

    def on_epoch_start(self, epoch):
        self.epoch, self.steps = epoch, 0

    def calculate_loss(self, interaction):
        loss = super().calculate_loss(interaction)
        broken = (self.epoch, self.steps) == self.at
        self.steps += 1
        return loss, self.value * loss.detach() if broken else 0 * loss, loss


class BrokenStep(Breaking):
    """Its loss is a number, and the gradient of the last step of epoch 1 is not."""

    at = None, None

    def calculate_loss(self, interaction):
        terms = super().calculate_loss(interaction)
        if (self.epoch, self.steps) == (1, 4):
            row = self.item_embedding.weight[3].abs()
            return (*terms, (row - row).sqrt().sum())  # the derivative is 0 · ∞
        return (*terms, terms[1])


class BrokenScores(BPR):
    """Its parameters are finite, its scores are not."""

    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction)
        scores[7] = torch.nan
        return scores


def diverge(model, folder, make_values, says, **values):
    """The run ends with an error; what its checkpoints hold is finite."""
    values = make_values(folder, **{"epochs": 4, "train_batch_size": 128, **values})
    with pytest.raises(SIGRecError, match=says):
        run(model, folder.name, config_dict=values)
    states = [checkpoint.load(file)["state_dict"] for file in Path("saved").glob("*.pth")]
    assert all(torch.isfinite(x).all() for state in states for x in state.values())
    return len(states)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_the_first_step_the_term_and_the_rate_are_named(planted, make_values, monkeypatch, value):
    monkeypatch.setattr(Breaking, "value", float(value))
    says = rf"Breaking has diverged: its loss \(train_loss2 of 3\) is {value} at step 2 of epoch 1 "
    says += r".*learning_rate \[0.001\]. Give a smaller learning_rate"
    assert diverge(Breaking, planted.folder, make_values, says) == 2  # of epoch 0


def test_a_parameter_that_the_last_step_of_an_epoch_breaks(planted, make_values):
    says = r"BrokenStep .*parameter \[item_embedding.weight\] is not finite after epoch 1 "
    assert diverge(BrokenStep, planted.folder, make_values, says) == 2


def test_scores_that_are_no_numbers_are_not_ranked(planted, make_values):
    says = r"scores are NaN"
    assert diverge(BrokenScores, planted.folder, make_values, says) == 0


@pytest.mark.parametrize("model", ["SIGRec", "RecVAE"])
def test_a_learning_rate_that_is_too_large(planted, make_values, model):
    """In our loop and in one of RecBole's own."""
    says = rf"{model} has diverged: its .* epoch [01] .*learning_rate \[1e\+30\]"
    diverge(model, planted.folder, make_values, says, learning_rate=1e30)


def test_several_processes_tell_the_same(planted, make_values):
    values = make_values(planted.folder, learning_rate=1e30)
    with pytest.raises(SIGRecError, match=r"^training of BPR has diverged: its loss is nan at"):
        run("BPR", "planted", config_dict=values, nproc=2)
