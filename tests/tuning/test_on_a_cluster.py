"""A search on a cluster: each configuration has the score that one process finds for it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from helpers_cluster import killer
from helpers_postgres import postgres

from recbole_sigrec.cli import run_command
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError

optuna = pytest.importorskip("optuna")
pytest.importorskip("distributed")
search = pytest.importorskip("recbole_sigrec.tuning.search")
study = pytest.importorskip("recbole_sigrec.tuning.study")

SPACE = {"learning_rate": [0.001, 0.01, 0.02], "weight_decay": [0.0, 0.1, 0.2, 0.3]}


@pytest.fixture(scope="module")
def url():
    """Of a database."""
    pytest.importorskip("psycopg")
    with postgres() as running:
        yield running.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def tuned(planted, make_values, tmp_path):
    values = make_values(planted.folder, threads=1)
    del values["checkpoint_dir"]
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"search_space": SPACE}), "utf-8")
    given = {"model": "BPR", "dataset": "planted", "params_file": tmp_path / "space.yaml"}

    def call(out, trials=12, **more):
        return search.tune(**given, out=out, trials=trials, config_dict=values, **more)

    return call


def scores(out) -> dict[tuple, tuple]:
    """Configuration → its score, best epoch and epochs, of the trials that ended."""
    with open(Path(out) / "trials.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] != "cut off"]
    found = {
        tuple(row[key] for key in SPACE): tuple(
            row[key] for key in ("state", "recall@20", "best_epoch", "epochs")
        )
        for row in rows
    }
    assert len(found) == len(rows)  # none was tried twice
    return found


def test_a_search_on_postgres_one_worker_killed(url, tuned, capsys):
    """All 12 configurations of the space, so that it does not matter which was drawn when."""
    whole = tuned("whole")
    with killer(1, 1, lambda: Path("two/trials.csv").is_file()) as killed:
        found = tuned("two", cluster="local:2", storage=url)
    assert len(killed) == 1
    assert scores("two") == scores("whole") and len(scores("two")) == 12
    assert found["score"] == whole["score"]
    assert {path.name for path in Path("two").iterdir()} == {"trials.csv", "best.yaml", ".lock"}
    assert "cluster: local:2" in capsys.readouterr().err
    assert tuned("two", cluster="local:2", storage=url)["trials"] == found["trials"]
    assert scores("two") == scores("whole")
    Path("moved").mkdir()
    Path("two/trials.csv").rename("moved/trials.csv")
    with pytest.raises(DataError, match=r"study \[.*moved\] in postgresql.* has no trial, but"):
        tuned("moved", storage=url)


def test_a_search_in_its_file_on_workers_of_this_machine(tuned):
    tuned("whole", trials=3)
    tuned("two", trials=3, cluster="local:2")
    # What is drawn before any score counts is drawn by the seed and the number of the trial.
    assert scores("two") == scores("whole")
    assert Path("two/study.db").is_file() and not Path("two/.workers").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"storage": "x"}, "it is no URL"),
        ({"storage": "sqlite:///x.db"}, r"\[sqlite:///x.db\]: give a PostgreSQL database, postg"),
        ({"storage": "mysql://u:secret@h/d"}, r"\[mysql://u:\*\*\*@h/d\]: give a PostgreSQL"),
        ({"cluster": "tcp://h:1"}, "needs a database that all reach, as --storage=postgresql"),
        ({"cluster": "local:2", "jobs": 2}, "jobs = 2 is for this machine alone"),
        ({"cluster": "locl:2x"}, "Did you mean 'local'"),
    ],
)
def test_what_cannot_be_is_refused_first(given, says, tuned):
    with pytest.raises(ConfigError, match=says):
        tuned("out", **given)
    assert not Path("out").exists()


def test_a_database_that_is_not_there_is_told(tuned):
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/none"
    with pytest.raises(SIGRecError, match=r"see to the database and its address") as told:
        tuned("out", storage=url)
    assert "secret" not in str(told.value)


def test_the_command_takes_both(capsys):
    command = "--model=BPR", "--dataset=ml-100k", "--trials=1"
    assert run_command("tune", *command, "--cluster=slurm:2") == 2
    assert "needs a database that all reach" in capsys.readouterr().err
    assert run_command("tune", *command, "--storage=x") == 2
    assert "storage: it is no URL" in capsys.readouterr().err


def test_a_trial_that_no_worker_survives_fails_with_an_error(tuned, monkeypatch):
    from recbole_sigrec.parallel import handing_out

    def hand_out(client, lock, ask, *_):
        while (trial := ask()) is not None:
            yield trial, handing_out.WorkerDied("its worker has ended")

    monkeypatch.setattr(handing_out, "hand_out", hand_out)
    with pytest.raises(SIGRecError, match=r"no trial .* trial 5: SIGRecError: 6 workers died"):
        tuned("out", trials=1, cluster="local:1")
