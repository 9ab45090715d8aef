"""A comparison on a cluster of separate processes: that of one process, whatever dies."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_cluster import Refusing, killer
from helpers_data import write_mmrec

from recbole_sigrec import ablate, compare
from recbole_sigrec.comparison import execution
from recbole_sigrec.comparison.arms import Arm, Setting
from recbole_sigrec.comparison.runs import Run
from recbole_sigrec.errors import ConfigError, SIGRecError
from recbole_sigrec.parallel.pool import Start

pytest.importorskip("distributed")
cluster = pytest.importorskip("recbole_sigrec.parallel.cluster")
handing_out = pytest.importorskip("recbole_sigrec.parallel.handing_out")

VALUES = {
    **{"epochs": 4, "embedding_size": 8, "knn_k": 3, "collab_knn_k": 3, "topk": [5, 20]},
    **{"train_batch_size": 64, "use_gpu": False, "gpu_id": "", "seed": 11, "threads": 1},
}
MODELS, SEEDS = ("SIGRec", "BPR", "ItemKNN"), (1, 2, 3)


@pytest.fixture(scope="module")
def alone(planted, tmp_path_factory):
    """``alone(out, cluster)``: results.csv of a comparison, and that of one process."""
    values = {**VALUES, "data_path": str(planted.folder.parent)}
    given = {"config_dict": values, "seeds": SEEDS}
    whole = tmp_path_factory.mktemp("whole")
    compare(MODELS, "planted", out=whole, **given)

    def call(out, where):
        compare(MODELS, "planted", out=out, cluster=where, **given)
        return [(folder / "results.csv").read_bytes() for folder in (out, whole)]

    return call


@pytest.fixture
def toy(tmp_path):
    return {**VALUES, "epochs": 1, "data_path": str(write_mmrec(tmp_path / "data").parent)}


def kinds(folder):
    """The endings of the files in a folder."""
    return sorted({file.suffix for file in folder.rglob("*") if file.is_file()})


def killed_in(alone, out, moments, seed):
    """A comparison on three workers of which some are killed, after the first has begun a run."""
    with killer(moments, seed, lambda: any(out.glob("runs/*.log"))) as killed:
        made, expected = alone(out, "local:3")
    assert made == expected
    assert len(killed) == moments
    assert not list(out.glob("runs/*.lock")) and not (out / ".workers").exists()


def test_a_worker_is_killed_and_the_table_is_that_of_one_process(alone, tmp_path, capsys):
    killed_in(alone, tmp_path / "out", 1, 1)
    shown = capsys.readouterr().err
    assert "cluster: local:3, scheduler tls://127.0.0.1:" in shown and "dashboard http" in shown
    assert "[9/9]" in shown


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_five_workers_are_killed_and_the_table_is_that_of_one_process(seed, alone, tmp_path):
    killed_in(alone, tmp_path / "out", 5, seed)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with cluster.open_cluster("local:2", tmp_path_factory.mktemp("workers")) as client:
        yield client


def test_a_users_error_in_a_worker_fails_its_run_alone(toy, tmp_path, client):
    arms = [Arm("mine", Refusing), Arm("ItemKNN", "ItemKNN")]
    says = r"1 of 4 runs failed.*mine, seed 1: config key \[mine\] = \[1\]: give 2"
    with pytest.raises(SIGRecError, match=says):
        compare(arms, "toy", seeds=(1, 2), out=tmp_path / "out", config_dict=toy, cluster=client)
    assert len(list((tmp_path / "out/runs").glob("*.json"))) == 3
    assert not list((tmp_path / "out/runs").glob("*.lock"))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"fingerprint": "0" * 64}, r"a worker on .*: \[toy\] in \[.*\] is not the data set that"),
        ({"data_path": "/absent"}, r"a worker on .*/absent"),
    ],
)
def test_a_worker_with_other_data_is_told(changed, says, toy, tmp_path, client, monkeypatch):
    def start(function, given):
        setting, first, fingerprint = given
        values = {**setting.config_dict, **{k: v for k, v in changed.items() if k == "data_path"}}
        other = Setting(setting.dataset, setting.config_file_list, values)
        return Start(function, (other, first, changed.get("fingerprint", fingerprint)))

    monkeypatch.setattr(execution, "Start", start)
    with pytest.raises(handing_out.UnfitWorker, match=says):
        compare(["BPR"], "toy", out=tmp_path / "out", config_dict=toy, cluster=client)
    assert not list((tmp_path / "out/runs").glob("*.json"))


def test_a_run_that_no_worker_survives_fails_and_is_named(toy, tmp_path, monkeypatch, client):
    died = handing_out.WorkerDied("its worker has ended")

    def hand_out(client, lock, ask, *_):
        while (run := ask()) is not None:
            yield run, died

    monkeypatch.setattr(handing_out, "hand_out", hand_out)
    with pytest.raises(SIGRecError, match=r"1 of 1 runs failed.*BPR, seed 1: 6 workers died at wo"):
        compare(["BPR"], "toy", seeds=[1], out=tmp_path / "out", config_dict=toy, cluster=client)


def test_a_run_that_is_not_here_is_told(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_APPEARS", 0)
    run = Run(Arm("BPR", "BPR"), 1, Path("runs"))
    assert "BPR-1.json is not here: its folder of that name is another" in str(
        execution._unseen(run)
    )


def test_an_ablation_opens_a_cluster_once(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("recbole_sigrec.comparison.ablation.SHARES", (0.5,))
    given = {"what": "robustness", "seeds": [1], "config_dict": toy, "out": tmp_path / "out"}
    ablate(dataset="toy", cluster="local:1", **given)
    shown = capsys.readouterr().err
    assert shown.count("cluster: local:1") == 1 and shown.count("[1/1]") == 4
    assert not (tmp_path / "out/.workers").exists()


def test_command(toy, capsys):
    from recbole_sigrec.cli import run_command

    arguments = [f"--{key}={value}" for key, value in toy.items()]
    command = "--models=BPR", "--dataset=toy", *arguments
    assert run_command("compare", *command, "--cluster=slurm") == 2
    assert "slurm needs a number of workers: slurm:4" in capsys.readouterr().err
    assert run_command("ablate", "--dataset=toy", *arguments, "--cluster=x") == 2
    assert "cluster = [x]: give the address" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="for this machine alone"):
        compare(["BPR"], "toy", config_dict=toy, jobs=2, cluster="local:2")
