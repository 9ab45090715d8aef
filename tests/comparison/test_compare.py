"""compare(): one split, every run once, and figures that can be recomputed."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import time
from concurrent.futures.process import BrokenProcessPool
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers_browser import QUIET, find_browser
from helpers_data import N_ITEMS, SMALL, features, snapshot, write_atomic, write_mmrec
from hypothesis import given
from hypothesis import strategies as st
from recbole.model.general_recommender import BPR
from scipy import stats

from recbole_sigrec import compare, load_data_and_model, run
from recbole_sigrec.cli import run_command
from recbole_sigrec.comparison import execution
from recbole_sigrec.comparison.arms import Arm, Setting
from recbole_sigrec.comparison.groups import by_count
from recbole_sigrec.comparison.per_user import HeldOut
from recbole_sigrec.comparison.runs import Run
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.comparison.significance import against_first
from recbole_sigrec.data import encoders
from recbole_sigrec.display.page_style import COLOURS
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError
from recbole_sigrec.files import locked
from recbole_sigrec.parallel import pool as processes
from recbole_sigrec.training.trainer_kinds import trainer_class

VALUES = {
    **{"epochs": 4, "embedding_size": 8, "knn_k": 3, "collab_knn_k": 3, "topk": [5, 20]},
    **{"train_batch_size": 64, "use_gpu": False, "gpu_id": "", "seed": 11, "threads": 1},
}
ARMS = (
    Arm("SIGRec", "SIGRec"),
    Arm("w/o <α>", "SIGRec", config_dict={"collab_weight": 0.0}),
    Arm("BPR", "BPR"),
    Arm("ItemKNN", "ItemKNN"),
)
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def finished(planted, tmp_path_factory):
    """(values, folder, results) of a comparison on the planted data."""
    out = tmp_path_factory.mktemp("finished") / "out"
    values = {**VALUES, "data_path": str(planted.folder.parent)}
    return values, out, compare(ARMS, "planted", seeds=SEEDS, out=out, config_dict=values)


@pytest.fixture
def toy(tmp_path):
    """Values of a comparison on the toy data set, and its folder."""
    return {**VALUES, "data_path": str(write_mmrec(tmp_path / "data").parent)}


def runs_of(arms, seeds, out):
    return [Run(arm, seed, out / "runs") for arm in arms for seed in seeds]


# ---- the split and the runs ----------------------------------------------------------------------


def test_a_run_of_a_comparison_is_the_run_alone(finished):
    values, _, results = finished
    own = next(r for r in results["runs"] if (r["label"], r["seed"]) == ("SIGRec", 2))
    alone = run("SIGRec", "planted", config_dict={**values, "seed": 2})
    for key in ("test_result", "best_valid_result", "epochs", "best_epoch"):
        assert own[key] == alone[key]


def test_arms_and_seeds_differ(finished):
    values = {(r["label"], r["seed"]): r["test_result"] for r in finished[2]["runs"]}
    assert len(values) == len(ARMS) * len(SEEDS)
    assert values["SIGRec", 1] != values["SIGRec", 2]
    assert values["SIGRec", 1] != values["w/o <α>", 1]


def test_the_split_is_the_comparisons_whatever_the_runs_seed(tmp_path):
    folder = write_atomic(tmp_path / "data")
    values = {**VALUES, "data_path": str(folder.parent), "epochs": 1}
    compare([Arm("BPR", "BPR")], "atomic", seeds=(1, 2), out=tmp_path / "out", config_dict=values)
    split = Split.load(Setting("atomic", (), values).config(Arm("BPR", "BPR")))
    users = np.unique(split.pairs(2)[0])
    other = Split.load(Setting("atomic", (), {**values, "seed": 12}).config(Arm("BPR", "BPR")))
    assert other.fingerprint != split.fingerprint
    train = set(zip(*(a.tolist() for a in split.pairs(0)), strict=True))
    for one in runs_of([Arm("BPR", "BPR")], (1, 2), tmp_path / "out"):
        test_users, top = one.recommended()
        assert (top.dtype, test_users.dtype) == (np.int32, np.int32)
        np.testing.assert_array_equal(test_users, users)
        pairs = {(u, i) for u, row in zip(test_users.tolist(), top[:, :5].tolist()) for i in row}
        assert not pairs & train  # what training has is not ranked
    # … and the split of what a run leaves: its checkpoint, and a run with its two seeds.
    for one in runs_of([Arm("BPR", "BPR")], (1, 2), tmp_path / "out"):
        result = one.read()
        config, model, dataset, *loaders = load_data_and_model(result["checkpoint"])
        parts = tuple(loader.dataset for loader in loaders)
        assert Split(dataset, parts, 11).fingerprint == split.fingerprint
        trainer = trainer_class(config["MODEL_TYPE"], config["model"])(config, model)
        assert trainer.evaluate(loaders[2], load_best_model=False) == result["test_result"]
        own = {**values, "seed": result["seed"], "split_seed": 11}
        assert run("BPR", "atomic", config_dict=own)["test_result"] == result["test_result"]


@pytest.mark.parametrize(
    ("eval_args", "says"),
    [
        (None, "at random, within each user, 0.8:0.1:0.1, with the seed 11"),
        (
            {"split": {"RS": [8, 1, 1]}, "order": "RO", "group_by": None, "mode": "full"},
            "at random, over all, 8:1:1, with the seed 11",
        ),
        (
            {"split": {"LS": "valid_and_test"}, "order": "RO", "mode": "full"},
            "at random, each user's last ones held out (valid_and_test)",
        ),
    ],
)
def test_the_split_is_said_in_words(tmp_path, eval_args, says):
    values = {**VALUES, "data_path": str(write_atomic(tmp_path / "data").parent)}
    values |= {} if eval_args is None else {"eval_args": eval_args}
    split = Split.load(Setting("atomic", (), values).config(Arm("BPR", "BPR")))
    assert split.method == f"of the interactions {says}"


def test_encoded_and_imputed_features_are_known_by_what_they_are_made_of(tmp_path, monkeypatch):
    """The last bits of what is computed depend on the machine and on its threads."""
    titles = [f"{['red', 'green'][n % 2]} thing {n}" for n in range(N_ITEMS)]
    folder = write_atomic(tmp_path / "data", items={"title:token_seq": titles})
    columns = {"words": {"columns": ["title"], "encoder": "tfidf", "dimension": 2}}
    values = {**VALUES, "data_path": str(folder.parent), "item_modalities": columns}

    def fingerprint(**changed):
        return Split.load(
            Setting("atomic", (), {**values, **changed}).config(Arm("BPR", "BPR"))
        ).fingerprint

    before = fingerprint()
    encode = encoders.Tfidf.encode
    with monkeypatch.context() as patch:
        patch.setattr(encoders.Tfidf, "encode", lambda *given: encode(*given) * (1 + 1e-6))
        assert fingerprint() == before
    longer = {"words": {**columns["words"], "dimension": 3}}
    assert fingerprint(item_modalities=longer) != before
    item = folder / "atomic.item"
    item.write_text(item.read_text("utf-8").replace("red", "blue", 1), "utf-8")
    assert fingerprint() != before


def test_a_second_call_repeats_nothing(finished, monkeypatch):
    values, out, results = finished
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")}
    monkeypatch.setattr(execution, "execute", None)
    assert compare(ARMS, "planted", seeds=SEEDS, out=out, config_dict=values) == results
    assert before == {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")}


def test_every_label_has_files_of_its_own():
    labels = ["BPR", "w/o α", "w-o α", "w/o-α", "/", "…", "..", "A B", "A-B"]
    stems = [Arm(label, "BPR").stem for label in labels]
    assert len(set(stems)) == len(labels)
    assert stems[0] == "BPR"
    assert not any(re.search(r"[/\s]|^\.", stem) for stem in stems)


def test_seeds_and_arms_may_be_added(toy, tmp_path):
    out, bpr, knn = tmp_path / "out", Arm("BPR", "BPR"), Arm("ItemKNN", "ItemKNN")
    one = compare([bpr], "toy", seeds=[1], out=out, config_dict=toy)
    assert one["significance"] == []
    both = compare([knn, bpr], "toy", seeds=[1, 3], out=out, config_dict=toy)
    assert [(r["label"], r["seed"]) for r in both["runs"]] == [
        *(("ItemKNN", 1), ("ItemKNN", 3), ("BPR", 1), ("BPR", 3))
    ]
    assert both["runs"][2] == one["runs"][0]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_jobs_give_the_same_results(toy, tmp_path, monkeypatch, start):
    arms = [Arm("BPR", "BPR"), Arm("ItemKNN", "ItemKNN")]
    context = multiprocessing.get_context(start)  # a fork needs no imports
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda method: context)
    for jobs in (1, 2):
        compare(arms, "toy", seeds=[1], out=tmp_path / str(jobs), config_dict=toy, jobs=jobs)
    one, two = ((tmp_path / str(jobs) / "results.csv").read_text() for jobs in (1, 2))
    assert one == two


def _compare_in_child(values, out):
    compare(ARMS, "planted", seeds=SEEDS, out=out, config_dict=values)


def test_killed_at_any_moment_it_ends_with_the_same_table(finished, tmp_path):
    values, whole, _ = finished
    out = tmp_path / "out"
    fork = multiprocessing.get_context("fork")  # the parent has loaded everything: a quick start

    def start_and_kill(delay):
        """Kill a comparison ``delay`` seconds after it has written a checkpoint, or let it end."""
        before, began = set(out.glob("runs/*/*.last.pth")), None
        for part in out.rglob("*.tmp"):  # removed when they are a minute old
            os.utime(part, (time.time() - 90,) * 2)
        child = fork.Process(target=_compare_in_child, args=(values, out))
        child.start()
        deadline = time.monotonic() + 120
        while child.is_alive():
            assert time.monotonic() < deadline
            if began is None and set(out.glob("runs/*/*.last.pth")) - before:
                began = time.monotonic()
            if began is not None and time.monotonic() - began >= delay:
                child.kill()
            time.sleep(0.001)
        child.join()
        return child.exitcode

    ends = [start_and_kill(delay) for delay in (0.0, 0.02, 0.05, 0.1, 0.3)]
    assert ends.count(-signal.SIGKILL) >= 3
    assert set(ends) <= {0, -signal.SIGKILL}
    assert start_and_kill(np.inf) == 0
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for one, alone in zip(runs_of(ARMS, SEEDS, out), runs_of(ARMS, SEEDS, whole), strict=True):
        for mine, other in zip(one.recommended(), alone.recommended(), strict=True):
            np.testing.assert_array_equal(mine, other)
        assert one.read()["history"] == alone.read()["history"]
    logs = "".join(file.read_text("utf-8") for file in out.glob("runs/*.log"))
    assert "Resuming from epoch" in logs  # not: begun anew, with the same end
    assert not list(out.glob("runs/*/*.last.pth")) and not list(out.rglob("*.tmp"))


class Failing(BPR):
    """A model that cannot be trained with the seed 1."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        if config["seed"] == 1:
            raise ValueError("no such luck")


def test_a_failed_run_does_not_stop_the_others(toy, tmp_path, capsys):
    arms = [Arm("bad", Failing), Arm("ItemKNN", "ItemKNN")]
    with pytest.raises(SIGRecError, match=r"1 of 4 runs failed.*bad, seed 1: no such luck"):
        compare(arms, "toy", seeds=[1, 2], out=tmp_path / "out", config_dict=toy)
    assert len(list((tmp_path / "out/runs").glob("*.json"))) == 3
    assert "no such luck" in (tmp_path / "out/runs/bad-1.log").read_text("utf-8")
    assert "[3/4] ItemKNN, seed 2" in capsys.readouterr().err
    # The results are of the arms whose runs are all there, and only of these.
    alone = compare(arms[1:], "toy", seeds=[1, 2], out=tmp_path / "alone", config_dict=toy)
    kept = json.loads((tmp_path / "out/results.json").read_text("utf-8"))
    assert [arm["label"] for arm in kept["arms"]] == ["ItemKNN"]
    assert kept["arms"][0]["mean"]["recall@5"] == alone["arms"][0]["mean"]["recall@5"]
    with pytest.raises(SIGRecError, match=r"1 of 1 runs failed; the others are kept, and the same"):
        compare([Arm("bad", Failing)], "toy", seeds=[1], out=tmp_path / "none", config_dict=toy)
    assert not (tmp_path / "none/results.csv").exists()


class Killed(BPR):
    """A model whose process is killed, as by a system without memory."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        os.kill(os.getpid(), signal.SIGKILL)


def _compare_killed(values, out):
    compare(
        [Arm("bad", Killed), Arm("ItemKNN", "ItemKNN")],
        "toy",
        seeds=[1],
        out=out,
        config_dict=values,
    )


def test_a_run_that_kills_the_comparison_does_not_keep_others_from_being_made(toy, tmp_path):
    fork = multiprocessing.get_context("fork")
    made = []
    for _ in range(2):
        child = fork.Process(target=_compare_killed, args=(toy, tmp_path / "out"))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        made.append([file.stem for file in (tmp_path / "out/runs").glob("*.json")])
    assert made == [[], ["ItemKNN-1"]]


class Slow(BPR):
    """A model that says that it has begun, and takes its time."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        Path(f"begun-{config['seed']}").touch()
        time.sleep(600)


@pytest.fixture
def forked(monkeypatch):
    """Workers by a fork, which needs no imports."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda method: fork)
    return fork


def test_a_killed_worker_does_not_fail_the_others(toy, tmp_path, forked, capsys):
    arms = [Arm("bad", Killed), Arm("BPR", "BPR"), Arm("ItemKNN", "ItemKNN")]
    with pytest.raises(SIGRecError, match=r"2 of 6 runs failed.*bad, seed 1: its process ended by"):
        compare(arms, "toy", seeds=[1, 2], out=tmp_path / "out", config_dict=toy, jobs=2)
    whole = compare(arms[1:], "toy", seeds=[1, 2], out=tmp_path / "alone", config_dict=toy)
    again = compare(arms[1:], "toy", seeds=[1, 2], out=tmp_path / "out", config_dict=toy)
    assert [r["test_result"] for r in again["runs"]] == [r["test_result"] for r in whole["runs"]]


def _cannot_start(*_):
    os._exit(1)


def test_workers_that_cannot_start_are_told_once(toy, tmp_path, forked, monkeypatch, capsys):
    monkeypatch.setattr(execution, "_start_worker", _cannot_start)
    with pytest.raises(SIGRecError, match=r"3 of 3 runs failed.*could not start.*__main__"):
        compare(
            [Arm("BPR", "BPR")],
            "toy",
            seeds=[1, 2, 3],
            out=tmp_path / "out",
            config_dict=toy,
            jobs=2,
        )
    assert "(see " not in capsys.readouterr().err  # no log was written


def test_a_pool_that_breaks_before_all_is_submitted(toy, tmp_path, forked, monkeypatch):
    """As one does whose first process dies at once: the rest is submitted to another."""
    pools = []

    class Breaks(processes.ProcessPoolExecutor):
        def __init__(self, *given):
            super().__init__(*given)
            pools.append(self)
            self.submitted = 0

        def submit(self, *given):
            self.submitted += 1
            if self is pools[0] and self.submitted > 1:
                raise BrokenProcessPool
            return super().submit(*given)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Breaks)
    arms = [Arm("bad", Killed), Arm("BPR", "BPR"), Arm("ItemKNN", "ItemKNN")]
    with pytest.raises(SIGRecError, match=r"1 of 3 runs failed.*bad, seed 1: its process ended by"):
        compare(arms, "toy", seeds=[1], out=tmp_path / "out", config_dict=toy, jobs=2)
    assert len(list((tmp_path / "out/runs").glob("*.json"))) == 2


def test_ctrl_c_begins_no_other_run(toy, tmp_path, forked):
    begun = [Path(f"begun-{seed}") for seed in range(1, 7)]

    def interrupted():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
        compare(
            [Arm("slow", Slow)],
            "toy",
            seeds=range(1, 7),
            out=tmp_path / "out",
            config_dict=toy,
            jobs=2,
        )

    child = forked.Process(target=interrupted)
    child.start()
    deadline = time.monotonic() + 60
    try:
        while not (begun[0].exists() and begun[1].exists()):
            assert child.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGINT)
        child.join(60)
        assert child.exitcode == 1
    finally:
        child.kill()
    assert not any(file.exists() for file in begun[2:])


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        ([Arm("A", "BPRR")], "unknown model [BPRR]. Did you mean 'BPR'"),
        ([Arm("A", "BPR"), Arm("B", "SIGRec", config_dict={"colab_weight": 1})], "[colab_weight]"),
        ([Arm("A", "BPR"), Arm("a", "BPR")], "two arms are called [A]"),
        (
            [Arm("A", "BPR"), Arm("B", "BPR", config_dict={"seed": 3})],
            "[seed] is [11] for A and [3]",
        ),
        (
            [Arm("A", "BPR"), Arm("B", "BPR", config_dict={"topk": [20]})],
            "[topk] is [[5, 20]] for A",
        ),
        ([Arm("A", "BPR", config_dict={"result_file": "r.json"})], "[result_file]"),
        ([Arm("A", "BPR", config_dict={"eval_args": {"mode": "uni100"}})], "[eval_args]"),
        ([Arm("A", "BPR", config_file_list=("absent.yaml",))], "[absent.yaml]"),
        ([], "0 arms"),
    ],
)
def test_wrong_arms_are_refused_before_anything_is_written(arms, says, toy, tmp_path):
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(says)):
        compare(arms, "toy", seeds=[1], out=tmp_path / "out", config_dict=toy)
    assert snapshot(tmp_path) == before


def test_another_comparison_in_the_folder_is_refused(finished, planted, tmp_path):
    values, out, _ = finished
    before = snapshot(out)

    def refused(error, says, arms=ARMS, **changed):
        with pytest.raises(error, match=says):
            compare(arms, "planted", seeds=SEEDS, out=out, config_dict={**values, **changed})
        assert snapshot(out) == before

    refused(ConfigError, r"\[SIGRec\] with another config: epochs; \[epochs\] was \[4\]", epochs=6)
    refused(ConfigError, r"another protocol: seed", seed=12)
    refused(ConfigError, "BPR.*model", arms=[Arm("BPR", "ItemKNN")])
    copy = tmp_path / "data/planted"
    copy.mkdir(parents=True)
    for file in planted.folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    np.save(copy / "text_feat.npy", features(planted.n_items, 8))
    refused(DataError, "other data", data_path=str(copy.parent))


def test_what_has_not_begun_may_be_corrected(toy, tmp_path):
    out, bpr = tmp_path / "out", Arm("BPR", "BPR")
    zero = Arm("SIGRec", "SIGRec", config_dict={"modality_weights": {"image": 0.0, "text": 0.0}})
    with pytest.raises(SIGRecError, match=r"modality_weights"):
        compare([zero], "toy", seeds=[1], out=out, config_dict={**toy, "seed": 3})
    compare([Arm("SIGRec", "SIGRec"), bpr], "toy", seeds=[1], out=out, config_dict=toy)
    record = json.loads((out / "comparison.json").read_text("utf-8"))
    assert record["protocol"]["seed"] == toy["seed"]
    assert record["arms"]["SIGRec"]["modality_weights"] == "auto"
    with pytest.raises(ConfigError, match=r"\[SIGRec\] with another config"):
        compare([zero, bpr], "toy", seeds=[1], out=out, config_dict=toy)


@pytest.mark.parametrize(
    ("seeds", "changed", "says"),
    [([1, -1], {}, r"\[seed\] = \[-1\]"), ([1], {"topk": [5, 20, 500]}, r"has \d+ items")],
)
def test_what_no_run_can_do_is_refused_first(seeds, changed, says, toy, tmp_path):
    with pytest.raises(ConfigError, match=says):
        compare(
            [Arm("BPR", "BPR")],
            "toy",
            seeds=seeds,
            out=tmp_path / "out",
            config_dict={**toy, **changed},
        )
    assert not (tmp_path / "out/comparison.json").exists()


def test_a_deleted_file_is_named(toy, tmp_path):
    arms, out = [Arm("BPR", "BPR")], tmp_path / "out"
    results = compare(arms, "toy", seeds=[1], out=out, config_dict=toy)
    (out / "runs/BPR-1.npz").unlink()
    with pytest.raises(DataError, match=r"BPR-1\.npz is gone.*Delete .*BPR-1\.json"):
        compare(arms, "toy", seeds=[1], out=out, config_dict=toy)
    (out / "runs/BPR-1.json").unlink()
    again = compare(arms, "toy", seeds=[1], out=out, config_dict=toy)
    assert again["runs"][0]["test_result"] == results["runs"][0]["test_result"]


def test_a_folder_may_have_any_name(toy, tmp_path):
    """Names that YAML would read as something else."""
    for name in ("res #1", "a: b", "0755", "[x]"):
        compare([Arm("BPR", "BPR")], "toy", seeds=[1], out=tmp_path / name, config_dict=toy)
        assert list((tmp_path / name / "runs/BPR-1").glob("*.pth"))


def test_the_folder_of_something_else_is_refused(toy, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("results.csv", "curves.html"):
        (tmp_path / "out" / name).write_text("mine", "utf-8")
        with pytest.raises(DataError, match=f"{name}.*name another folder"):
            compare(ARMS, "toy", seeds=[1], out=tmp_path / "out", config_dict=toy)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
        assert (tmp_path / "out" / name).read_text("utf-8") == "mine"
        (tmp_path / "out" / name).unlink()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metrics": ["MRR"], "valid_metric": "MRR@20"}, r"\[metrics\].*rests on Recall and NDCG"),
        ({"eval_step": 0}, r"\[eval_step\] = \[0\]"),
        ({"epochs": 0}, r"\[epochs\] = \[0\]"),
    ],
)
def test_what_a_comparison_rests_on_is_asked_for(toy, tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        compare(ARMS, "toy", seeds=[1], out=tmp_path / "out", config_dict={**toy, **values})
    assert not (tmp_path / "out").exists()


def test_two_at_work_in_a_folder_are_refused(toy, tmp_path):
    out = tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    with locked(out / ".lock", OSError()), pytest.raises(ConfigError, match="at work"):
        compare(ARMS, "toy", seeds=[1], out=out, config_dict=toy)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"arms": {}}'])
def test_a_damaged_record_is_told(toy, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "comparison.json").write_text(content, "utf-8")
    with pytest.raises(DataError, match=r"comparison\.json is damaged.*name another folder"):
        compare([Arm("BPR", "BPR")], "toy", config_dict=toy, seeds=[1], out=out)
    assert (out / "comparison.json").read_text("utf-8") == content


def test_recommendations_to_other_users_are_refused(toy, tmp_path):
    """Such a file would give figures that are wrong, and nobody would see it."""
    out = tmp_path / "out"
    compare([Arm("BPR", "BPR")], "toy", config_dict=toy, seeds=[1], out=out)
    file = out / "runs/BPR-1.npz"
    result = json.loads((out / "runs/BPR-1.json").read_text("utf-8"))
    old = {key: value for key, value in result.items() if not key.endswith("sha256")}
    (out / "runs/BPR-1.json").write_text(json.dumps(old), "utf-8")  # as of earlier versions
    with np.load(file) as held:
        users, top = held["users"], held["top"]
    np.savez_compressed(file, users=users[::-1], top=top)
    with pytest.raises(DataError, match=r"BPR-1\.npz has other users.*the run is made again"):
        compare([Arm("BPR", "BPR")], "toy", config_dict=toy, seeds=[1], out=out)


# ---- figures -------------------------------------------------------------------------------------


def test_per_user_metrics_have_the_evaluators_means(finished):
    values, out, results = finished
    split = Split.load(Setting("planted", (), values).config(ARMS[0]))
    held_out = HeldOut.from_split(split)
    for one in runs_of(ARMS, SEEDS, out):
        for cutoff in (5, 20):
            for name, per_user in held_out.metrics(one.recommended()[1], cutoff).items():
                assert per_user.mean() == pytest.approx(
                    one.read()["test_result"][f"{name}@{cutoff}"], abs=1e-6
                )
    assert [arm["n_seeds"] for arm in results["arms"]] == [2] * len(ARMS)
    for arm in results["arms"]:
        recalls = [
            r["test_result"]["recall@20"] for r in results["runs"] if r["label"] == arm["label"]
        ]
        assert arm["mean"]["recall@20"] == pytest.approx(np.mean(recalls))
        assert arm["std"]["recall@20"] == pytest.approx(abs(recalls[0] - recalls[1]) / 2**0.5)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 6))
def test_groups_are_a_partition(counts, n_groups):
    counts = np.array(counts, dtype=np.int64)
    groups = by_count(counts, n_groups)
    assert (sum((g.mask.astype(int) for g in groups), np.zeros(len(counts), int)) == 1).all()
    assert all(g.size > 0 for g in groups)
    assert len(groups) <= n_groups + 1
    edges = [edge for g in groups for edge in (g.low, g.high)]
    assert edges == sorted(edges)
    for g in groups:
        assert (counts[g.mask].min(), counts[g.mask].max()) == (g.low, g.high)


def test_groups_hold_all_hits(finished, planted):
    values, out, results = finished
    n_pairs = len(planted.parts[2])
    assert sum(group["size"] for group in results["by_popularity"]) == n_pairs
    cold = results["by_popularity"][0]
    assert (cold["label"], cold["size"]) == (
        "0",
        sum(item in planted.cold_items for _, item in planted.parts[2]),
    )
    assert sum(group["size"] for group in results["by_activity"]) == planted.n_users
    assert results["by_activity"][0]["size"] == 1  # the user that only the test part has
    held_out = HeldOut.from_split(Split.load(Setting("planted", (), values).config(ARMS[0])))
    for arm in ARMS:
        hits = sum(g["size"] * g["recall"][arm.label] for g in results["by_popularity"])
        lists = [r.recommended()[1] for r in runs_of([arm], SEEDS, out)]
        assert hits == pytest.approx(np.mean([held_out.hits(top)[:, :20].sum() for top in lists]))
        mean = sum(g["size"] * g["recall"][arm.label] for g in results["by_activity"])
        expected = next(a["mean"] for a in results["arms"] if a["label"] == arm.label)
        assert mean / planted.n_users == pytest.approx(expected["recall@20"], abs=1e-6)


def test_significance_is_that_of_a_hand_computation():
    rng = np.random.default_rng(0)
    values = {
        label: {metric: rng.normal(shift, 1, 50) for metric in ("recall", "ndcg")}
        for label, shift in (("first", 0.4), ("near", 0.2), ("far", -0.6))
    }
    values["same"] = values["first"]
    tests = against_first(values)
    assert [(t.label, t.metric) for t in tests] == [
        (label, metric) for label in ("near", "far", "same") for metric in ("recall", "ndcg")
    ]
    for t in tests[:4]:
        d = values["first"][t.metric] - values[t.label][t.metric]
        statistic = d.mean() / (d.std(ddof=1) / len(d) ** 0.5)
        assert t.difference == pytest.approx(d.mean())
        assert t.p == pytest.approx(2 * stats.t.sf(abs(statistic), len(d) - 1))
    assert [t.p for t in tests[4:]] == [1.0, 1.0]
    order = sorted(range(6), key=lambda i: tests[i].p)
    running = 0.0
    for place, i in enumerate(order):  # Holm: p_(i) · (m − i), made monotone
        running = max(running, min(1.0, tests[i].p * (6 - place)))
        assert tests[i].p_adjusted == pytest.approx(running)


# ---- files ---------------------------------------------------------------------------------------


def test_results_files(finished):
    _, out, results = finished
    assert json.loads((out / "results.json").read_text("utf-8")) == results
    rows = list(csv.DictReader((out / "results.csv").open(encoding="utf-8")))
    assert [row["label"] for row in rows] == [arm.label for arm in ARMS for _ in SEEDS]
    for row, own in zip(rows, results["runs"], strict=True):
        assert float(row["ndcg@20"]) == own["test_result"]["ndcg@20"]
        assert float(row["valid recall@5"]) == own["best_valid_result"]["recall@5"]
        assert own["seconds_per_epoch"] > 0 and own["peak_rss_mb"] > 0
        assert own["versions"]["recbole"] == "1.2.1"
    assert len({r["config_hash"] for r in results["runs"]}) == len(rows)


class Page(HTMLParser):
    """What a page would load, its ids, its text outside scripts, and its style."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.ids, self.text, self.style, self._inside = [], [], "", "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._inside = tag if tag in ("script", "style") else None
        for name, value in attributes:
            if name in ("src", "href", "data", "srcset", "poster", "action"):
                self.loads.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "style":
            self.style += data
        elif self._inside is None:
            self.text += data


def test_report_is_whole_and_loads_nothing(finished):
    text = (finished[1] / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.loads == []
    assert "@import" not in page.style and "url(" not in page.style
    charts = [f"chart-{name}" for name in ("curves", "cost", "popularity", "cold", "activity")]
    assert [one for one in page.ids if one.startswith("chart-")] == charts
    assert all(f'"{name}"' in text for name in charts)
    assert text.count("Plotly.newPlot(") >= len(charts)
    for arm in ARMS:
        assert arm.label in page.text  # escaped, so that it is text
    for words in (
        "59 users".replace("59", "61"),
        "60 for validation",
        "made by the column x_label of the data set",
        "Modalities: image, text.",
        "1 and 2".replace(" and ", ", "),
    ):
        assert words in page.text


def test_report_in_a_browser(finished, tmp_path):
    """Every arm's colour is drawn, nothing is asked of the network, nothing is complained about."""
    browser = find_browser()
    image, page = tmp_path / "report.png", (finished[1] / "report.html").as_uri()
    net, probe = tmp_path / "net.json", tmp_path / "probe.html"
    options = [*QUIET, "--enable-logging=stderr"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--window-size=1200,3600", "--virtual-time-budget=5000", f"--screenshot={image}"]
    options += [f"--log-net-log={net}"]

    def shown(page):
        """What the console says of a page, and the addresses that it asks the network for."""
        command = [browser, *options, page]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        asked = set(re.findall(r'"url":"(https?://[^"]+)"', net.read_text("utf-8")))
        return said, {one for one in asked if "?cup2key=" not in one}  # signed by the browser

    probe.write_text("<script>document.body.append(new Image())</script>", "utf-8")
    idle = shown(probe.as_uri())[1]  # what the browser asks for by itself
    probe.write_text(
        "<body><script>const x = new Image(); x.src = 'http://asked.test/x.png'; "
        "document.body.append(x); console.error('said')</script>",
        "utf-8",
    )
    said, asked = shown(probe.as_uri())
    assert len(said) == 1 and "http://asked.test/x.png" in asked  # so both are seen
    said, asked = shown(page)
    assert not said and asked <= idle
    pixels = np.asarray(pytest.importorskip("PIL.Image").open(image).convert("RGB")).reshape(-1, 3)
    for colour in COLOURS[: len(ARMS)]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == rgb).all(axis=1).sum() > 500


def test_command(toy, tmp_path, capsys):
    values = {**SMALL, **toy}
    del values["checkpoint_dir"]  # the runs are kept in --out
    arguments = [f"--{key}={value}" for key, value in values.items()]
    command = ["--models=BPR, ItemKNN", "--dataset=toy", "--seeds=1", *arguments]
    assert run_command("compare", *command) == 0
    shown = capsys.readouterr()
    assert "gain of the first" in shown.out
    assert "[2/2] ItemKNN, seed 1" in shown.err
    assert (tmp_path / "comparison/toy/report.html").is_file()
    assert run_command("compare", "--models=BPR,ItemKN", "--dataset=toy", *arguments) == 2
    assert "Did you mean 'ItemKNN'?" in capsys.readouterr().err
