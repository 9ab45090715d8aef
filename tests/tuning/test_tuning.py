"""Tuning: the space, the search, its budget, and what it leaves behind."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import multiprocessing
import shlex
import sqlite3
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from filelock import FileLock
from recbole.model.general_recommender import BPR

from recbole_sigrec import Config, run
from recbole_sigrec.cli import main, run_command
from recbole_sigrec.config.property_files import property_root
from recbole_sigrec.config.yaml_files import YamlLoader
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError
from recbole_sigrec.model_names import MODELS
from recbole_sigrec.parallel import pool as processes

optuna = pytest.importorskip("optuna")
search = pytest.importorskip("recbole_sigrec.tuning.search")
space = pytest.importorskip("recbole_sigrec.tuning.space")
study = pytest.importorskip("recbole_sigrec.tuning.study")

TUNED = [*MODELS, "LightGCN", "BPR"]
SPACE = {"learning_rate": [0.001, 0.01, 0.02], "weight_decay": [0.0, 0.1, 0.2, 0.3]}


@pytest.fixture
def space_file(tmp_path):
    """``space_file(values)``: a yaml file with that search space."""

    def write(values=SPACE, name="space.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"search_space": values}), "utf-8")
        return path

    return write


@pytest.fixture
def values(planted, make_values):
    """Config values of a search on the planted data, those that the search owns left out."""
    values = make_values(planted.folder)
    del values["checkpoint_dir"]
    return values


@pytest.fixture
def tuned(values, space_file):
    """``tuned(...)``: tune BPR on the planted data."""

    def call(
        model="BPR", trials=3, out="out", params_file=None, dataset="planted", jobs=1, **overrides
    ):
        return search.tune(
            model=model,
            dataset=dataset,
            trials=trials,
            out=out,
            config_dict={**values, **overrides},
            params_file=params_file or space_file(),
            jobs=jobs,
        )

    return call


def height(params) -> float:
    """A score with its only maximum, 1, at learning_rate .02 and weight_decay .2."""
    wanted = {"learning_rate": 0.02, "weight_decay": 0.2}
    return 1.0 - sum(abs(wanted[key] - value) for key, value in space.decode(params).items())


@pytest.fixture
def stub(monkeypatch):
    """``stub(score)``: trials are not trained; ``score(trial)`` says how good they are."""

    def use(score):
        monkeypatch.setattr(search, "train", lambda trial, task, split: score(trial))

    return use


def interrupt(*_, **__):
    raise KeyboardInterrupt


def tried(result) -> list[tuple]:
    """The configurations of a result's trials, without those that were cut off."""
    keys = list(result["values"])
    return [tuple(t[k] for k in keys) for t in result["trials"] if t["state"] != "cut off"]


# ---- the search ----------------------------------------------------------------------------------


def test_finds_the_maximum_without_trying_anything_twice(tuned, stub):
    stub(lambda trial: height(trial.params))
    result = tuned(trials=99)
    assert result["values"] == {"learning_rate": 0.02, "weight_decay": 0.2}
    assert result["score"] == 1.0
    assert len(tried(result)) == len(set(tried(result))) == 3 * 4  # then there is nothing left


def test_the_default_comes_first_and_the_seed_decides_on_the_rest(tuned, stub):
    stub(lambda trial: height(trial.params))
    first = tuned(out="a", trials=5)
    assert tried(first)[0] == (0.001, 0.0)  # RecBole's own
    assert tried(tuned(out="b", trials=5)) == tried(first)
    assert tried(tuned(out="c", trials=5, seed=5)) != tried(first)


def test_a_default_that_is_not_in_the_space_is_tried_too(tuned, stub, space_file):
    stub(lambda trial: height(trial.params))
    file = space_file({"learning_rate": [0.01, 0.02]})
    result = tuned(params_file=file, trials=9)
    assert sorted(tried(result)) == [(0.001,), (0.01,), (0.02,)]


def test_a_minimum_is_searched_where_the_metric_falls(tuned, stub):
    stub(lambda trial: height(trial.params))
    falling = {"metrics": ["Recall", "AveragePopularity"], "valid_metric": "AveragePopularity@20"}
    result = tuned(trials=12, **falling)
    assert result["values"] == {"learning_rate": 0.001, "weight_decay": 0.0}


def test_given_keys_are_not_searched(tuned, stub):
    stub(lambda trial: 0.5)
    result = tuned(trials=9, learning_rate=0.5)
    assert result["values"] == {"weight_decay": 0.0}
    with pytest.raises(ConfigError, match="nothing is left to search: learning_rate, weight"):
        tuned(out="other", learning_rate=0.5, weight_decay=0.5)


def test_a_search_that_is_cut_off_goes_on(tuned, stub):
    """As if it had not been, but for the trial that was running, which is run anew."""
    stub(lambda trial: height(trial.params))
    whole = tuned(out="whole", trials=7)

    def cut_off(trial):
        if trial.number == 4:
            raise KeyboardInterrupt
        return height(trial.params)

    stub(cut_off)
    with pytest.raises(KeyboardInterrupt):
        tuned(trials=7)
    rows = list(csv.DictReader(open("out/trials.csv", encoding="utf-8")))
    assert len(rows) == 4
    stub(lambda trial: height(trial.params))
    result = tuned(trials=7)
    assert tried(result) == tried(whole)
    assert [t["trial"] for t in result["trials"] if t["state"] == "cut off"] == [4]
    assert len(result["trials"]) == 8
    assert tuned(trials=7) == result  # nothing is left to do
    assert tried(tuned(trials=8))[:7] == tried(whole)  # more may be asked for later


def test_a_configuration_that_kills_the_search_is_given_up(tuned, stub, capsys):
    """Three times, before its first validation; later, or by Ctrl-C, something else cuts it off."""

    class Killed(BaseException):
        pass

    def dies(trial, error=Killed, validated=False):
        if validated:
            trial.report(0.5, 0)
        if space.decode(trial.params)["learning_rate"] == 0.001:
            raise error
        return height(trial.params)

    stub(dies)
    for _ in range(study.ATTEMPTS):
        with pytest.raises(Killed):
            tuned(trials=2, weight_decay=0.0)
    with pytest.raises(SIGRecError, match="all were cut off before their first validation"):
        tuned(trials=1, weight_decay=0.0)
    assert "given up: {'learning_rate': 0.001}" in capsys.readouterr().out
    result = tuned(trials=2, weight_decay=0.0)  # the given-up one is one of the two
    assert [t["state"] for t in result["trials"]] == ["cut off"] * study.ATTEMPTS + ["complete"]
    assert [t["seconds"] for t in result["trials"][:-1]] == [None] * study.ATTEMPTS

    for out, how in {
        "validated": {"validated": True},
        "stopped": {"error": KeyboardInterrupt},
    }.items():
        stub(functools.partial(dies, **how))
        for _ in range(study.ATTEMPTS + 2):
            with pytest.raises(how.get("error", Killed)):
                tuned(trials=2, weight_decay=0.0, out=out)
        stub(lambda trial: height(trial.params))
        assert (0.001,) in tried(tuned(trials=2, weight_decay=0.0, out=out))


def test_its_command_runs_whatever_the_folder_is_called(tuned, stub, capsys):
    stub(lambda trial: height(trial.params))
    result = tuned(out="my 'own' dir #1", trials=1)
    assert main(shlex.split(result["command"])[1:]) == 0
    with pytest.raises(ConfigError, match=r"out = \[a\?b\]"):
        tuned(out="a?b")
    own = tuned(model=BPR, out="class", trials=1)["command"]
    assert own.startswith("run(BPR, 'planted', config_file_list=['class/best.yaml'], config_dict=")


@pytest.mark.parametrize("call", ["enqueue_trial", "tell"])
def test_going_on_may_be_cut_off_too(call, tuned, stub, monkeypatch):
    """The first trial was running: its configuration, the default, is neither lost nor repeated."""
    stub(lambda trial: height(trial.params))
    whole = tuned(out="whole", trials=5)
    stub(interrupt)
    with pytest.raises(KeyboardInterrupt):
        tuned(trials=5)
    stub(lambda trial: height(trial.params))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, call, interrupt)
        tuned(trials=5)
    assert tried(tuned(trials=5)) == tried(whole)


def test_a_trial_that_failed_when_the_search_was_cut_off_is_not_run_again(tuned, stub, monkeypatch):
    def fails(trial):
        raise ValueError("no")

    stub(fails)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "tell", interrupt)
        tuned(trials=3)
    stub(lambda trial: height(trial.params))
    result = tuned(trials=3)
    assert [t["state"] for t in result["trials"]] == ["fail", "complete", "complete"]
    assert result["trials"][0]["error"] == "ValueError: no"


def test_a_trial_is_pruned_by_the_median_but_not_in_the_first_epochs(tuned, stub):
    ended = {}

    def learn(trial):
        good = trial.number < study.PRUNING_TRIALS
        for epoch in range(study.WARMUP_EPOCHS - 2, study.WARMUP_EPOCHS + 3):
            score = 0.5 if good else 0.1
            trial.report(score, epoch)
            ended[trial.number] = epoch
            if trial.should_prune():
                raise optuna.TrialPruned
        return score

    stub(learn)
    result = tuned(trials=6)
    assert [t["state"] for t in result["trials"]] == ["complete"] * 2 + ["pruned"] * 4
    last = study.WARMUP_EPOCHS + 2
    assert list(ended.values()) == [last] * 2 + [study.WARMUP_EPOCHS] * 4
    assert result["trials"][5]["epochs"] == study.WARMUP_EPOCHS + 1
    assert result["trials"][5]["recall@20"] == 0.1
    assert "the best of 6 (4 pruned), with validation recall@20 0.5" in Path(
        "out/best.yaml"
    ).read_text("utf-8")


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, MemoryError])
def test_a_trial_that_fails_is_told_and_the_others_go_on(kind, tuned, stub, capsys):
    def fails(trial):
        if space.decode(trial.params)["weight_decay"] == 0.0:
            raise kind("Training loss is nan")
        return height(trial.params)

    stub(fails)
    says = rf"no trial in \[out\] was completed; trial 0: {kind.__name__}: Training"
    with pytest.raises(SIGRecError, match=says):
        tuned(trials=1)
    assert not Path("out/best.yaml").exists()
    result = tuned(trials=12)
    failed = [t for t in result["trials"] if t["state"] == "fail"]
    error = f"{kind.__name__}: Training loss is nan"
    assert len(failed) == 3 and {t["error"] for t in failed} == {error}
    assert capsys.readouterr().out.count(error) == 3


# ---- the study that is read back -----------------------------------------------------------------


def change(*statements):
    """Change ``out/study.db`` behind our back."""
    with contextlib.closing(sqlite3.connect("out/study.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def rewrite(content):
    Path("out/study.db").write_bytes(content)


DAMAGE = {
    "empty": (lambda: rewrite(b""), r"has no trial, but trials\.csv in \[out\] has some"),
    "no rows": (lambda: change("delete from trials"), "has no trial, but"),
    "half": (
        lambda: rewrite(Path("out/study.db").read_bytes()[:20_000]),
        r"study\.db is no study of Optuna, or is damaged",
    ),
    "no column": (
        lambda: change("alter table trials rename column state to other"),
        "is no study of Optuna, or is damaged",
    ),
    "no study": (lambda: change("delete from studies"), "is no study of Optuna, or is damaged"),
    "a broken value": (
        lambda: change("update trial_user_attributes set value_json = '{'"),
        "is no study of Optuna, or is damaged",
    ),
    "another task": (
        lambda: change("update study_user_attributes set value_json = '[]'"),
        "is no study of Optuna, or is damaged",
    ),
    "a task that is no JSON": (
        lambda: change("update study_user_attributes set value_json = 'x'"),
        "is no study of Optuna, or is damaged",
    ),
    "a trial less": (
        lambda: change("delete from trials where trial_id = 1"),
        "is no study of Optuna, or is damaged",
    ),
    "no direction": (
        lambda: change("delete from study_directions"),
        "is no study of Optuna, or is damaged",
    ),
    "a trial without values": (
        lambda: change(
            "delete from trial_user_attributes where key = 'params' and trial_id = 2",
        ),
        "is no study of Optuna, or is damaged",
    ),
    "a better score": (
        lambda: change("update trial_values set value = 0.999 where trial_id = 2"),
        "trial 1 was changed after it ended",
    ),
    "a score on the way": (
        lambda: change(
            "update trial_intermediate_values set intermediate_value = 0.999 where trial_id = 2"
        ),
        "trial 1 was changed after it ended",
    ),
    "another value": (
        lambda: change(
            "update trial_params set param_value = 1 - param_value where trial_id = 2 "
            "and param_name = 'weight_decay'"
        ),
        "trial 1 was changed after it ended",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_study_is_told_and_nothing_is_begun_anew(damage, tuned, stub):
    def learn(trial):
        trial.report(0.25, 0)
        return 0.25

    stub(learn)
    file = {"params_file": Path("two.txt")}
    Path("two.txt").write_text("weight_decay choice [0.0, 0.1]\n", "utf-8")
    result = tuned(trials=2, **file)
    assert tuned(trials=2, **file) == result
    table = Path("out/trials.csv").read_bytes()
    spoil, says = DAMAGE[damage]
    spoil()
    stub(None)
    with pytest.raises(DataError, match=says) as told:
        tuned(trials=2, **file)
    assert "Name another --out, or delete [out], and the search begins anew" in str(told.value)
    assert Path("out/trials.csv").read_bytes() == table


def test_a_trial_that_goes_while_it_runs_is_told(tuned, stub):
    def learn(trial):
        change(f"delete from trials where trial_id = {trial._trial_id}")
        return 0.5

    stub(learn)
    with pytest.raises(DataError, match="is no study of Optuna, or is damaged"):
        tuned(trials=1)


def test_trials_of_earlier_versions_are_kept_with_a_warning(tuned, stub, capsys):
    stub(lambda trial: height(trial.params))
    result = tuned(trials=2)
    change("delete from trial_user_attributes where key = 'sha256' and trial_id = 2")
    assert tuned(trials=2) == result
    assert "warning: an earlier version made trial 1 in out/study.db" in capsys.readouterr().err


def test_a_search_killed_between_the_hash_and_the_end_of_a_trial_goes_on(tuned, stub, monkeypatch):
    stub(lambda trial: height(trial.params))
    whole = tuned(out="whole", trials=3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "tell", interrupt)
        tuned(trials=3)
    assert tried(tuned(trials=3)) == tried(whole)


@pytest.mark.parametrize(("other", "best"), [(0.5, 2), (0.6, 1), (0.4, 2)])
def test_of_equal_scores_the_first_configuration_wins_even_if_it_was_cut_off(other, best):
    """Of two trials at a time the first was cut off, and run anew after the second had ended."""
    made = optuna.create_study(direction="maximize")
    for state, value, width in (("FAIL", None, 1), ("COMPLETE", other, 2), ("COMPLETE", 0.5, 1)):
        state, attrs = optuna.trial.TrialState[state], {"params": {"width": width}}
        made.add_trial(optuna.trial.create_trial(state=state, value=value, user_attrs=attrs))
    task = types.SimpleNamespace(direction="maximize", out=Path("out"))
    assert study.best_trial(made, task).number == best


def test_a_study_on_a_full_disk_is_told(tuned, stub):
    """The trial was trained; its end cannot be written."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fills_the_disk(trial):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        return 0.5

    stub(fills_the_disk)
    try:
        with pytest.raises(SIGRecError, match=r"study\.db cannot be written \(.*make space"):
            tuned(trials=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    stub(lambda trial: 0.5)
    assert tuned(trials=1)["score"] == 0.5


def test_a_sound_study_that_cannot_be_written_is_no_damaged_one(tuned, stub):
    stub(lambda trial: height(trial.params))
    result = tuned(trials=1)
    before = Path("out/study.db").read_bytes()
    Path("out/study.db-journal").mkdir()  # as in a folder where no file can be made
    with pytest.raises(SIGRecError, match=r"study\.db cannot be written \(.*rights") as told:
        tuned(trials=1)
    assert "delete" not in str(told.value)
    assert Path("out/study.db").read_bytes() == before
    Path("out/study.db-journal").rmdir()
    assert tuned(trials=1) == result


def test_a_study_that_a_full_disk_has_no_place_for_is_told(tuned, stub):
    resource = pytest.importorskip("resource")
    stub(lambda trial: 0.5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(SIGRecError, match=r"study\.db cannot be written \(.*rights") as told:
            tuned(trials=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "delete" not in str(told.value)
    assert tuned(trials=1)["score"] == 0.5


# ---- real trials ---------------------------------------------------------------------------------


class Untouchable:
    """A loader that must not be used."""

    def __getattr__(self, name):
        raise AssertionError(f"the test part was looked at: {name}")

    __iter__ = __len__ = None


def test_a_trial_is_the_run_that_its_file_gives(tuned, values, monkeypatch, capsys):
    """Same validation result to the last digit; the test part unseen, no checkpoint written."""
    Path("space.txt").write_text(
        "learning_rate loguniform -5,-2\n\n# layers\nn_layers choice [1, 2]\n", "utf-8"
    )
    prepare = search.data_preparation
    with monkeypatch.context() as patch:
        patch.setattr(
            search, "data_preparation", lambda *args: (*prepare(*args)[:2], Untouchable())
        )
        result = tuned(model="LightGCN", params_file="space.txt", epochs=6)
    assert result["command"] in capsys.readouterr().out
    assert not list(Path().rglob("*.pth"))
    assert {path.name for path in Path("out").iterdir()} == {
        *("study.db", "trials.csv", "best.yaml", ".lock", ".turn.lock")
    }
    for trial in result["trials"]:
        searched = {key: trial[key] for key in result["values"]}
        again = run("LightGCN", "planted", None, {**values, "epochs": 6, **searched})
        assert again["best_valid_result"]["recall@20"] == trial["recall@20"]
        assert (again["best_epoch"], again["epochs"]) == (trial["best_epoch"], trial["epochs"])
    text = Path("out/best.yaml").read_text("utf-8")
    for words in ("LightGCN on planted", f"{result['score']:.6f}", "optuna", result["command"]):
        assert words in text
    assert yaml.load(text, YamlLoader) == result["values"]
    config = Config("LightGCN", "planted", ["out/best.yaml"], values)
    assert {key: config[key] for key in result["values"]} == result["values"]
    words = result["command"].split()
    assert words[:2] == ["recbole-sigrec", "run"]
    assert main([*words[1:], "--result_file=r.json"]) == 0
    ran = json.loads(Path("r.json").read_text("utf-8"))
    assert ran["best_valid_result"]["recall@20"] == result["score"]


def test_a_trial_that_is_never_validated_fails(tuned, space_file):
    result = tuned(params_file=space_file({"eval_step": [1, 0]}), trials=2)
    assert [t["state"] for t in result["trials"]] == ["complete", "fail"]
    assert "epochs = 2, eval_step = 0: the model was never valid" in result["trials"][1]["error"]


@pytest.mark.parametrize(
    ("known", "gone"),
    [
        ({"alone": True}, True),
        ({"alone": False}, False),  # of several at work the system may have killed another
        ({"alone": True, "stopped": True}, False),  # by the user
        ({"alone": True, "error": "no"}, False),  # it failed by itself
    ],
)
def test_which_configurations_are_given_up(known, gone):
    trials = optuna.create_study()
    for _ in range(study.ATTEMPTS):
        assert study.given_up(trials) == set()
        trial = trials.ask()
        for name, value in {**known, "params": {"knn_k": 3}}.items():
            trial.set_user_attr(name, value)
        trials.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert study.given_up(trials) == ({'{"knn_k": 3}'} if gone else set())


fork = multiprocessing.get_context("fork")  # which needs no imports


def _tune_in_child(given):
    processes.multiprocessing.get_context = lambda method: fork
    search.tune(**given)


def test_killed_with_its_workers_it_goes_on(tuned, values, space_file):
    """Two processes, SIGKILL; the workers end too, and what was finished is not run again."""
    given = {"model": "BPR", "dataset": "planted", "trials": 5, "out": "out", "jobs": 2}
    given |= {"params_file": space_file(), "config_dict": {**values, "epochs": 8}}
    child = fork.Process(target=_tune_in_child, args=(given,))
    child.start()
    table, deadline = Path("out/trials.csv"), time.monotonic() + 60
    while not table.is_file() or table.read_text("utf-8").count("complete") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.join()
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    before = {}
    for row in csv.DictReader(open("out/trials.csv", encoding="utf-8")):
        if row["state"] == "complete":
            before[row["trial"]] = row
    assert len(before) >= 2
    result = tuned(trials=5, epochs=8)
    assert len(set(tried(result))) == len(tried(result)) == 5
    cut_off = [t for t in result["trials"] if t["state"] == "cut off"]
    assert len(cut_off) <= 2
    after = {r["trial"]: r for r in csv.DictReader(open("out/trials.csv", encoding="utf-8"))}
    assert {number: after[number] for number in before} == before


# ---- the folder ----------------------------------------------------------------------------------


def test_another_search_in_the_folder_is_refused(tuned, stub, space_file):
    stub(lambda trial: height(trial.params))
    tuned()
    before = Path("out/study.db").read_bytes()
    other = space_file({"weight_decay": [0.1]}, "other.yaml")
    for overrides, says in [
        ({"seed": 7}, r"another config: seed; \[seed\] was \[2020\], it is \[7\]"),
        ({"model": "LightGCN"}, "another config: .*name another --out"),
        ({"params_file": other}, "another search space: "),
    ]:
        with pytest.raises(ConfigError, match=says):
            tuned(**overrides)
    assert Path("out/study.db").read_bytes() == before
    with FileLock("out/.lock"), pytest.raises(ConfigError, match="another command is at work"):
        tuned()


def test_files_that_are_not_a_search_are_kept(tuned, stub):
    stub(lambda trial: height(trial.params))
    Path("out").mkdir()
    Path("out/best.yaml").write_text("mine", "utf-8")
    with pytest.raises(ConfigError, match=r"best.yaml\] is there without a study.db"):
        tuned()
    Path("out/study.db").write_text("no data base at all, but long enough to look like one\n" * 9)
    with pytest.raises(DataError, match="is no study of Optuna"):
        tuned()
    assert Path("out/best.yaml").read_text("utf-8") == "mine"


def test_data_that_has_changed_is_noticed(tuned, stub, with_audio):
    stub(lambda trial: height(trial.params))
    given = {"dataset": "with_audio", "data_path": str(with_audio.parent), "trials": 1}
    tuned(**given)
    np.save(with_audio / "audio_feat.npy", np.load(with_audio / "audio_feat.npy") + 1)
    with pytest.raises(ConfigError, match="another data set: fingerprint"):
        tuned(**given)


def test_data_that_changes_before_the_workers_read_it_is_noticed(
    tuned, stub, with_audio, monkeypatch
):
    def change_and_start(jobs):
        np.save(with_audio / "audio_feat.npy", np.load(with_audio / "audio_feat.npy") + 1)
        return ThreadPoolExecutor(1)

    stub(lambda trial: height(trial.params))
    monkeypatch.setattr(search, "worker_pool", change_and_start)
    with pytest.raises(DataError, match="is not the data set that this command began with"):
        tuned(dataset="with_audio", data_path=str(with_audio.parent), jobs=2)


# ---- spaces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TUNED)
def test_the_space_of_a_model_is_valid_and_holds_its_default(model, planted, make_config):
    """Every value is one that the model takes, and no default had to be added."""
    given, source = space.read_space(model)
    checked, default = space.check_space(
        given, source, lambda values: make_config(model, planted.folder, **values)
    )
    for key, values in given.items():
        assert len(checked[key].choices) == len(values), f"{key}: the default is not in the list"
    assert space.decode(default) == {key: make_config(model, planted.folder)[key] for key in given}


def test_every_model_of_ours_has_a_space():
    files = {path.stem for path in (property_root() / "model").glob("*.yaml")}
    for model in files - {"Pop"}:
        assert space.read_space(model)[0], model


@pytest.mark.parametrize("model", ["LightGCN", "BPR"])
def test_a_space_alone_changes_no_default(model, planted, make_config, monkeypatch, tmp_path):
    config = make_config(model, planted.folder).final_config_dict
    root = tmp_path / "properties"
    root.mkdir()
    (root / "overall.yaml").write_bytes((property_root() / "overall.yaml").read_bytes())
    monkeypatch.setattr("recbole_sigrec.config.property_files.property_root", lambda: root)
    assert make_config(model, planted.folder).final_config_dict == config
    assert "search_space" not in config


def test_recboles_params_files_are_read(planted, make_config):
    text = (
        "learning_rate loguniform -8,0\n"
        "embedding_size choice [64, 96 , 128]\n"
        "\n# a comment\n"
        "train_batch_size choice [512,1024,2048]\n"
        "mlp_hidden_size choice ['[64, 64]','[128]']\n"
        "dropout uniform 0.1,0.3\n"
        "n_layers quniform 1,4,1\n"
        "alpha quniform 0,1,0.25\n"
        "knn_k uniformint 5,20\n"
    )
    read = space.parse_params(text, "f")
    assert read == {
        "learning_rate": space.Interval(np.exp(-8), 1.0, log=True),
        "embedding_size": [64, 96, 128],
        "train_batch_size": [512, 1024, 2048],
        "mlp_hidden_size": [[64, 64], [128]],
        "dropout": space.Interval(0.1, 0.3),
        "n_layers": [1, 2, 3, 4],
        "alpha": [0.0, 0.25, 0.5, 0.75, 1.0],
        "knn_k": space.Interval(5, 20, integer=True),
    }
    for name in ("hyper.test", "hyper.yaml", "hyper.yml"):  # RecBole takes any name
        Path(name).write_text(text, "utf-8")
        assert space.read_space("NeuMF", name) == (read, name)
    lists = {"mlp_hidden_size": read["mlp_hidden_size"]}
    checked, default = space.check_space(
        lists, "f", lambda values: make_config("NeuMF", planted.folder, **values)
    )
    usual = default["mlp_hidden_size"]
    assert checked["mlp_hidden_size"].choices == ("[64, 64]", "[128]", usual)


@pytest.mark.parametrize(
    "line, says",
    [
        ("learning_rate loguniform", "line 1, .*: write `key type values`"),
        ("learning_rate loguniformm -8,0", "no type .loguniformm.. Did you mean 'loguniform'"),
        ("learning_rate loguniform 0,-8", "expected 2 numbers, the lower limit first"),
        ("learning_rate uniform 0,nan", "expected 2 numbers"),
        ("learning_rate loguniform 0,1000", "is no loguniform"),
        ("knn_k choice 5", "is no choice: expected a list"),
        ("knn_k choice [__import__('os').getcwd()]", "is no choice"),
        ("knn_k choice [5,", "is no choice"),
        (f"knn_k choice {'-' * 100_000}1", "is no choice"),
        ("knn_k choice [{[]: 1}]", "is no choice"),
        ("knn_k quniform 1,10,0", "is no quniform: expected a step"),
        ("knn_k quniform 1,1e9,1", "makes 1 to 1000 values"),
        ("knn_k uniformint 1,2.5", "expected integers"),
        ("knn_k choice [5]\nknn_k choice [6]", "line 2, .*given twice"),
    ],
)
def test_wrong_lines_of_a_params_file_are_told(line, says):
    with pytest.raises(ConfigError, match=says):
        space.parse_params(line, "f")


@pytest.mark.parametrize(
    "model, given, says",
    [
        ("SIGRec", {"colab_weight": [0.1]}, "Did you mean 'collab_weight'"),
        ("BPR", {"n_layers": [1]}, "BPR has no such key"),
        ("SIGRec", {"collab_weight": [0.1, 2]}, r"\[collab_weight\] = \[2\]: .*less than"),
        ("SIGRec", {"fusion": ["sum"]}, "'mean', 'attention'"),
        ("SIGRec", {"knn_k": ["many"]}, "integer"),
        ("LightGCN", {"n_layers": ["two"]}, r"\[two\] is a text; the default \[2\] is a number"),
        ("LightGCN", {"learning_rate": [0.1, -1]}, "greater than 0"),
        ("SIGRec", {"knn_k": []}, "at least one value"),
        ("SIGRec", {"knn_k": 5}, "at least one value"),
        ("SIGRec", {}, "is empty"),
        ("SIGRec", None, "is empty"),
        ("SIGRec", {"seed": [1, 2]}, "all trials share"),
        ("SIGRec", {"topk": [[5], [20]]}, "all trials share"),
        ("SIGRec", {"modalities": [["image"]]}, "all trials share"),
        ("SIGRec", {"knn_k": space.Interval(5.0, 9.5)}, "integer"),
        ("SIGRec", {"fusion": space.Interval(0, 1)}, r"'mean', 'attention'|not a number"),
        ("BPR", {"weight_decay": space.Interval(1e-6, 1, log=True)}, "has no logarithm"),
    ],
)
def test_a_wrong_space_is_told(model, given, says, planted, make_config):
    def config_of(values):
        return make_config(model, planted.folder, **values)

    with pytest.raises(ConfigError, match=says) as error:
        space.check_space(given, "mine.yaml", config_of)
    assert "mine.yaml" in str(error.value)


def test_intervals_are_widened_to_the_default(planted, make_config):
    def config_of(values):
        return make_config("SIGRec", planted.folder, **values)

    given = {
        "learning_rate": space.Interval(0.01, 0.1, log=True),
        "knn_k": space.Interval(2, 5, integer=True),
    }
    checked, default = space.check_space(given, "f", config_of)
    assert checked["learning_rate"] == optuna.distributions.FloatDistribution(0.002, 0.1, log=True)
    assert checked["knn_k"] == optuna.distributions.IntDistribution(2, 20)
    assert default == {"learning_rate": 0.002, "knn_k": 20}


def test_an_interval_of_one_number_is_one_configuration():
    floats = optuna.distributions.FloatDistribution
    choice = optuna.distributions.CategoricalDistribution(["1", "2"])
    assert space.size({"a": floats(0.1, 0.1), "b": choice}) == 2
    assert space.size({"a": floats(0.1, 0.2), "b": choice}) == np.inf


# ---- the command ---------------------------------------------------------------------------------


def test_models_are_tuned_with_the_same_budget(values, stub, capsys):
    stub(lambda trial: 0.5)
    arguments = [f"--{key}={value}" for key, value in values.items()]
    command = ("--models=BPR,LightGCN", "--dataset=planted", "--trials=2", "--out=both")
    assert run_command("tune", *command, *arguments) == 0
    found_for = ("BPR", "LightGCN")
    for model in found_for:
        assert len(Path(f"both/{model}/trials.csv").read_text("utf-8").splitlines()) == 1 + 2
    shown = capsys.readouterr().out
    assert shown.count("best: ") == 2
    # What was found for all goes into one comparison, each value to its own model.
    best = {m: yaml.safe_load(Path(f"both/{m}/best.yaml").read_text("utf-8")) for m in found_for}
    models = yaml.safe_load(Path("both/models.yaml").read_text("utf-8"))
    assert models == {"model_defaults": best}
    program, verb, *compared = shlex.split(shown.splitlines()[-1])
    assert (program, verb) == ("recbole-sigrec", "compare")
    assert {"--models=BPR,LightGCN", "--config_files=both/models.yaml"} <= set(compared)
    for model in found_for:
        config = Config(model, "planted", ["both/models.yaml"])
        assert {key: config[key] for key in best[model]} == best[model]
    command = ("--models=BM3", "--dataset=planted", "--trials=1", "--out=both")
    assert run_command("tune", *command, *arguments) == 0
    more = yaml.safe_load(Path("both/models.yaml").read_text("utf-8"))["model_defaults"]
    assert list(more) == ["BPR", "LightGCN", "BM3"] and more.items() > best.items()


def test_another_file_is_not_overwritten_by_that_of_the_models(values, stub, capsys):
    stub(interrupt)
    arguments = [f"--{key}={value}" for key, value in values.items()]
    Path("both").mkdir()
    head = "# The best values of models on planted, for --config_files\n"
    for text in ("mine: 1\n", head + "mine: 1\n", head + "model_defaults: {\n", head):
        Path("both/models.yaml").write_text(text, "utf-8")
        command = ("--models=BPR", "--dataset=planted", "--out=both")
        assert run_command("tune", *command, *arguments) == 2
        assert "[both/models.yaml] is not of a search on planted" in capsys.readouterr().err
        assert Path("both/models.yaml").read_text("utf-8") == text


def test_empty_names_are_no_models(values, stub):
    stub(lambda trial: 0.5)
    arguments = [f"--{key}={value}" for key, value in values.items()]
    command = ("--models= BPR, ", "--dataset=planted", "--trials=1", "--out=both")
    assert run_command("tune", *command, *arguments) == 0
    assert sorted(path.name for path in Path("both").iterdir()) == ["BPR", "models.yaml"]


def test_all_models_are_checked_before_the_first_is_trained(values, stub, capsys):
    stub(interrupt)
    arguments = [f"--{key}={value}" for key, value in values.items()]
    assert run_command("tune", "--models=BPR,LightGNC", "--dataset=planted", *arguments) == 2
    assert "Did you mean 'LightGCN'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--models=,"], "name at least one"),
        (["--model="], "name at least one"),
        ([], "one of the arguments --model/-m --models is required"),
        (["--model=BPR", "--models=BPR"], "not allowed with"),
        (["--model=ItemKNN"], "ItemKNN] has no search space of its own"),
        (["--model=ItemKNN"], "--params_file"),
        (["--model=BPR", "--params_file=none.yaml"], "[none.yaml] does not exist"),
        (["--model=BPR", "--trials=0"], "trials = 0"),
        (["--model=BPR", "--jobs=0"], "jobs = 0"),
        (["--model=BPR", "--eval_step=0"], "[eval_step] = [0]"),
        (["--model=BPR", "--result_file=r.json"], "[result_file] = [r.json]"),
        (["--model=BPR", "--learning_rat=1"], "Did you mean 'learning_rate'"),
        (["--model=BPR", "--dataset=plantd"], "Did you mean 'planted'"),
    ],
)
def test_wrong_arguments_are_told(arguments, says, values, capsys):
    given = {argument.partition("=")[0] for argument in arguments}
    rest = [f"--{k}={v}" for k, v in {**values, "dataset": "planted"}.items()]
    rest = [argument for argument in rest if argument.partition("=")[0] not in given]
    assert run_command("tune", *arguments, *rest) == 2
    assert says in capsys.readouterr().err
    assert not Path("tuning").exists() or not list(Path("tuning").rglob("best.yaml"))


def test_params_file_holds_a_space_alone(tmp_path):
    file = tmp_path / "more.yaml"
    for text in ("search_space: {knn_k: [1]}\nepochs: 3\n", "knn_k: [1]\n", "- 1\n", ""):
        file.write_text(text, "utf-8")
        with pytest.raises(ConfigError, match="must hold `search_space: "):
            space.read_space("SIGRec", file)
    file.write_bytes(b"search_space: \xe9")
    with pytest.raises(ConfigError, match="cannot be read"):
        space.read_space("SIGRec", file)


def test_without_optuna_the_extra_is_named(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("recbole_sigrec.tuning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run_command("tune", "--model=BPR") == 2
    assert 'pip install "recbole_sigrec[tune]"' in capsys.readouterr().err
