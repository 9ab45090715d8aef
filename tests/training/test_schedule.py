"""The learning rate of each epoch, in one run and in one that is resumed."""

from __future__ import annotations

import pytest
import torch

from recbole_sigrec import run
from recbole_sigrec.errors import ConfigError


@pytest.fixture
def fit(planted, make_config, prepare, monkeypatch):
    """``fit(resume=None, **overrides)`` → the rate of each epoch's steps, and the trainer."""

    def train(resume=None, **overrides):
        prepared = prepare(make_config("BPR", planted.folder, eval_step=1, **overrides))
        trainer, rates = prepared.trainer, []
        if resume is not None:
            trainer.resume_checkpoint(resume, prepared.train)
        step = trainer.optimizer.step

        def note(*args, **kwargs):
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            return step(*args, **kwargs)

        monkeypatch.setattr(trainer.optimizer, "step", note)
        trainer.fit(prepared.train, prepared.valid)
        n = len(prepared.train)
        assert all(len(set(rates[i : i + n])) == 1 for i in range(0, len(rates), n))
        return rates[::n], trainer

    return train


@pytest.mark.parametrize("learner", ["adam", "sgd"])
def test_the_rate_decays_with_the_epoch(fit, learner):
    rates, _ = fit(epochs=5, learning_rate=0.02, learner=learner, learning_rate_scheduler=[0.25, 2])
    assert rates == pytest.approx([0.02, 0.01, 0.005, 0.0025, 0.00125], rel=1e-12)
    rates, _ = fit(epochs=2, learning_rate=1e-3, learning_rate_scheduler=[0.96, 50])
    assert rates == pytest.approx([1e-3, 0.000999183893306], rel=1e-9)


def test_without_a_scheduler_it_is_constant(fit):
    assert fit(epochs=3, learning_rate=0.02)[0] == [0.02] * 3


def test_all_of_a_trainers_optimizers_have_it(planted, make_config, prepare):
    keys = {"epochs": 3, "learning_rate": 0.1, "learning_rate_scheduler": [0.1, 1]}
    prepared = prepare(make_config("RecVAE", planted.folder, **keys))
    prepared.trainer.fit(prepared.train, prepared.valid)
    for optimizer in (prepared.trainer.optimizer_encoder, prepared.trainer.optimizer_decoder):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3, rel=1e-12)


def test_a_resumed_run_goes_on_with_its_rate(fit):
    keys = {"learning_rate": 0.02, "learning_rate_scheduler": [0.5, 3], "seed": 3}
    whole, one = fit(epochs=5, **keys)
    first, half = fit(epochs=2, **keys)
    rest, two = fit(resume=half.last_file, epochs=5, **keys)
    assert first + rest == whole and len(set(whole)) == 5
    states = [torch.load(t.last_file, weights_only=True)["state_dict"] for t in (one, two)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    constant = fit(epochs=5, **{**keys, "learning_rate_scheduler": None})[1]
    other = torch.load(constant.last_file, weights_only=True)["state_dict"]
    assert not any(torch.equal(states[0][name], other[name]) for name in other)


def test_a_run_is_resumed_with_its_own_scheduler(planted, make_values):
    values = make_values(planted.folder, epochs=1, learning_rate_scheduler=[0.5, 3])
    done = run("BPR", "planted", config_dict=values)
    last = done["checkpoint"].removesuffix(".pth") + ".last.pth"
    with pytest.raises(ConfigError, match="another config: learning_rate_scheduler"):
        other = {**values, "resume": last, "epochs": 2, "learning_rate_scheduler": [0.5, 4]}
        run("BPR", "planted", config_dict=other)


@pytest.mark.parametrize("value", [[0.96], [0.96, 50, 1], [0, 50], [0.96, -1], "cosine", 0.96])
def test_other_values_are_refused(planted, make_config, value):
    with pytest.raises(ConfigError, match=r"\[learning_rate_scheduler"):
        make_config("BPR", planted.folder, learning_rate_scheduler=value)
