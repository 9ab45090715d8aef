"""What a run shows of its epochs: one line each on the terminal, all of it in the log file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from recbole_sigrec.training.epoch_line import epoch_line

LINE = re.compile(
    r"epoch +(\d+) \| loss (\S+) \| \d+\.\d s"
    r"(?: \| recall@20 (\S+) \| best (\S+) \| patience (\d+))?$"
)


@pytest.fixture
def ran(planted, make_values, tmp_path):
    """Train in a process of its own: (what stderr shows, the log file), no colours."""

    def run(**given):
        values = {**make_values(planted.folder), "state": "INFO", "epochs": 6, **given}
        command = [sys.executable, "-m", "recbole_sigrec.cli", "run", "--model=BPR"]
        command += ["--dataset=planted", *(f"--{key}={value}" for key, value in values.items())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (log,) = Path(tmp_path, "log/BPR").glob("*.log")
        colours = re.compile(r"\x1b\[[0-9;]*m")
        return colours.sub("", done.stderr), log.read_text("utf-8")

    return run


def epochs(text):
    """The epochs of the lines of a text, and what they say."""
    found = (LINE.search(line) for line in text.splitlines())
    return [one.groups() for one in found if one]


def test_a_line_an_epoch_on_the_terminal_and_all_in_the_log(ran):
    shown, log = ran(eval_step=2, stopping_step=3)
    lines = epochs(shown)
    assert [int(one[0]) for one in lines] == list(range(6))
    assert [one[2] is None for one in lines] == [True, False] * 3
    assert not re.search("valid result|training \\[|embedding_size|BPRLoss", shown)
    assert log.count("valid result: \n") == log.count("evaluating [time:") == 3
    assert log.count("training [time:") == 6
    assert "embedding_size = 16" in log and "BPRLoss()" in log
    losses = re.findall(r"train loss: (\S+)\]", log)
    assert [one[1] for one in lines] == losses
    scores = re.findall(r"valid_score: (\S+)\]", log)
    assert [one[2] for one in lines[1::2]] == [f"{float(score):.4f}" for score in scores]
    best, patience = 0.0, 4
    for score, (*_, shown_best, left) in zip(map(float, scores), lines[1::2]):
        patience = 4 if score >= best else patience - 1
        best = max(best, score)
        assert (shown_best, left) == (f"{best:.4f}", str(patience))
    (where,) = re.findall(r"the configuration and all metrics of each epoch: (\S+\.log)", shown)
    assert where.startswith("log")


def test_verbose_is_recboles_way(ran):
    shown, log = ran(verbose=True, epochs=2)
    assert epochs(shown) == epochs(log) == []
    for text in (shown, log):
        assert text.count("valid result: \n") == text.count("training [time:") == 2
        assert "BPRLoss()" in text and re.search("verbose = True", text)


def test_the_patience_is_that_of_what_is_learned():
    trainer = SimpleNamespace(
        epoch_seconds=[9.0, 1.25],
        evaluation_seconds=[0.5],
        train_loss_dict={7: 2.0},
        config={"stopping_step": 10},
        stopping_step=13,
        cur_step=4,
        valid_metric="Recall@20",
        best_valid_score=0.5,
    )
    told = "epoch   7 | loss 2.0000 | 1.8 s | recall@20 0.2500 | best 0.5000 | patience 10"
    assert epoch_line(trainer, 7, 0.25) == told
    trainer.cur_step = 0  # a better score: the next may find none learned
    assert epoch_line(trainer, 7, 0.5).endswith("patience 11")
    assert epoch_line(trainer, 7) == "epoch   7 | loss 2.0000 | 1.2 s"
