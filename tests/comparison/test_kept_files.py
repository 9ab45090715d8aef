"""What a comparison keeps between two calls: checked when it is read, and only its own removed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_data import snapshot, write_mmrec

from recbole_sigrec import compare
from recbole_sigrec.comparison import execution, runs
from recbole_sigrec.errors import DataError

VALUES = {
    **{"epochs": 2, "embedding_size": 8, "topk": [5, 20], "train_batch_size": 64},
    **{"use_gpu": False, "gpu_id": "", "seed": 11, "threads": 1, "show_progress": False},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``again(out)``, which compares two models on the toy data, and a folder where it did."""
    root = tmp_path_factory.mktemp("kept")
    values = {**VALUES, "data_path": str(write_mmrec(root / "data").parent)}

    def again(out):
        return compare(["BPR", "ItemKNN"], "toy", config_dict=values, seeds=[1], out=out)

    again(root / "out")
    return again, root / "out"


@pytest.fixture
def kept(made, tmp_path, monkeypatch):
    """``kept()``: call the comparison again in a copy of its folder, ``out``; nothing may train."""
    again, out = made
    shutil.copytree(out, tmp_path / "out")
    monkeypatch.setattr(execution, "execute", None)
    return lambda: again(tmp_path / "out")


def change(path: Path, **values) -> None:
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**content, **values}), "utf-8")


def without_hashes(path: Path) -> None:
    """A result as earlier versions wrote it."""
    content = json.loads(path.read_text("utf-8"))
    bare = {key: value for key, value in content.items() if not key.endswith("sha256")}
    path.write_text(json.dumps(bare), "utf-8")


def test_the_hash_is_that_of_the_content_whatever_its_layout(kept):
    result = Path("out/runs/BPR-1.json")
    content = json.loads(result.read_text("utf-8"))
    own = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(own, sort_keys=True)
    assert content["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    lists = Path("out/runs/BPR-1.npz").read_bytes()
    assert content["recommended_sha256"] == hashlib.sha256(lists).hexdigest()
    result.write_text(json.dumps(content, indent=7), "utf-8")
    kept()


def test_a_changed_figure_is_refused(kept, capsys):
    result = Path("out/runs/BPR-1.json")
    test = json.loads(result.read_text("utf-8"))["test_result"]
    change(result, test_result={**test, "recall@20": 0.99})
    before = snapshot(Path("out"))
    with pytest.raises(DataError, match=r"BPR-1\.json was changed after.*Delete it, and the run"):
        kept()
    assert snapshot(Path("out")) == before


def test_the_figures_of_another_run_are_refused(kept):
    shutil.copy("out/runs/ItemKNN-1.json", "out/runs/BPR-1.json")
    with pytest.raises(DataError, match=r"BPR-1\.json is of \[ItemKNN\], seed 1, not of BPR, seed"):
        kept()


def test_the_lists_of_another_run_are_refused(kept):
    shutil.copy("out/runs/ItemKNN-1.npz", "out/runs/BPR-1.npz")
    with pytest.raises(DataError, match=r"BPR-1\.npz was changed.*Delete .*BPR-1\.json too"):
        kept()


RESULTS = {
    "nothing": b"",
    "half": None,
    "no JSON": b"\xff\xfe{",
    "a list": b"[]",
    "3000 levels": b"[" * 3000 + b"]" * 3000,
    "another object": b'{"label": "BPR", "seed": 1}',
}


@pytest.mark.parametrize("content", RESULTS)
def test_a_damaged_result_is_named_with_the_remedy(kept, content):
    result = Path("out/runs/BPR-1.json")
    whole = result.read_bytes()
    result.write_bytes(whole[: len(whole) // 2] if content == "half" else RESULTS[content])
    with pytest.raises(DataError, match=r"BPR-1\.json is damaged .*Delete it, and the run is made"):
        kept()


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("content", ["nothing", "half", "text", "others"])
def test_damaged_lists_are_named_with_the_remedy(kept, content, hashed):
    if not hashed:
        without_hashes(Path("out/runs/BPR-1.json"))
    lists = Path("out/runs/BPR-1.npz")
    whole = lists.read_bytes()
    lists.write_bytes({"half": whole[: len(whole) // 2], "text": b"text"}.get(content, b""))
    if content == "others":
        np.savez(lists, users=np.zeros(3), top=np.zeros(3))
    says = r"BPR-1\.npz (was changed|is damaged).*Delete .*BPR-1\.json too"
    with pytest.raises(DataError, match=says):
        kept()


def test_deleted_it_is_made_again_with_the_same_figures(made, tmp_path):
    again, out = made
    shutil.copytree(out, tmp_path / "out")
    result = tmp_path / "out/runs/BPR-1.json"
    result.write_text("{", "utf-8")
    with pytest.raises(DataError, match="Delete it"):
        again(tmp_path / "out")
    result.unlink()
    again(tmp_path / "out")
    assert (tmp_path / "out/results.csv").read_bytes() == (out / "results.csv").read_bytes()
    assert len(list((tmp_path / "out/runs/BPR-1").iterdir())) == 1  # the earlier best one is gone


def test_results_of_earlier_versions_are_read_with_a_warning(made, kept, capsys):
    for name in ("comparison.json", "runs/BPR-1.json"):
        without_hashes(Path("out") / name)
    Path("out/runs/BPR-1.checkpoints").unlink()
    kept()
    said = capsys.readouterr().err
    assert "warning: an earlier version made BPR, seed 1, without a hash" in said
    assert "ItemKNN, seed 1, without" not in said
    assert Path("out/results.csv").read_bytes() == (made[1] / "results.csv").read_bytes()


@pytest.mark.parametrize("metric", ["ItemCoverage", "tailpercentage"])
def test_results_of_earlier_versions_with_metrics_that_changed_are_made_again(
    metric, tmp_path, monkeypatch
):
    data = {**VALUES, "data_path": str(write_mmrec(tmp_path / "data").parent)}
    values = {**data, "metrics": ["Recall", "NDCG", metric], "epochs": 1}

    def again():
        return compare(["ItemKNN", "BPR"], "toy", config_dict=values, seeds=[1], out="out")

    again()
    before = Path("out/results.csv").read_bytes()
    result = Path("out/runs/ItemKNN-1.json")
    without_hashes(result)
    says = rf"(?i)made ItemKNN, seed 1, .*{metric} otherwise.*Delete \S*ItemKNN-1\.json, and these"
    with monkeypatch.context() as patch, pytest.raises(DataError, match=says) as told:
        patch.setattr(execution, "execute", None)
        again()
    assert "BPR" not in str(told.value)
    result.unlink()
    again()
    assert Path("out/results.csv").read_bytes() == before


def test_a_changed_record_is_refused(kept):
    change(Path("out/comparison.json"), dataset="another")
    with pytest.raises(DataError, match=r"comparison\.json was changed.*name another folder, or"):
        kept()


def test_nothing_but_its_own_checkpoints_is_removed(kept):
    """Also where the folder of a run is a link to one with other files."""
    Path("mine").mkdir()
    Path("mine/thesis.pth").write_text("mine")
    (best,) = Path("out/runs/ItemKNN-1").iterdir()
    shutil.move(best, "mine")
    best.parent.rmdir()
    best.parent.symlink_to(Path("mine").resolve(), target_is_directory=True)
    (Path("out/runs/BPR-1") / "notes.txt").write_text("mine")
    for name in (".mine.tmp", "runs/.mine.tmp"):
        (Path("out") / name).write_text("mine")
    # what was noted by an attempt that was killed goes, and no path that somebody wrote there
    noted = Path("out/runs/ItemKNN-1.checkpoints")
    names = ["X.last.pth", "../secret.pth", "/secret.pth", "..", "thesis.txt"]
    noted.write_text(noted.read_text() + "".join(f"{name}\n" for name in names))
    (Path("mine") / "X.last.pth").touch()
    Path("secret.pth").touch()
    Path("mine/thesis.txt").touch()
    kept()
    assert sorted(path.name for path in Path("mine").iterdir()) == sorted(
        [best.name, "thesis.pth", "thesis.txt"]
    )
    assert {path.name for path in Path("out/runs/BPR-1").iterdir()} >= {"notes.txt"}
    assert Path("out/.mine.tmp").exists() and Path("out/runs/.mine.tmp").exists()
    assert Path("secret.pth").exists()
    assert noted.read_text() == f"{best.name}\n"


def test_a_killed_attempt_leaves_checkpoints_that_are_noted(made, tmp_path, monkeypatch):
    """Those of all attempts go when the run has ended."""
    again, out = made

    def interrupt(*_):
        raise KeyboardInterrupt

    for attempt in (1, 2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(runs, "write_record", interrupt)
            again(tmp_path / "out")
        assert len(list((tmp_path / "out/runs/BPR-1").iterdir())) == 1 + attempt
    (tmp_path / "out/runs/BPR-1/mine.pth").touch()
    again(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out/runs/BPR-1").iterdir())
    assert len(names) == 2 and "mine.pth" in names
    assert (tmp_path / "out/results.csv").read_bytes() == (out / "results.csv").read_bytes()


def test_what_a_killed_write_left_in_the_folder_of_a_run_goes_at_once(kept):
    """Nobody writes there any more; a name that is not ours stays."""
    folder = Path("out/runs/BPR-1")
    (folder / f".recbole_sigrec-{'0' * 16}.tmp").touch()
    (folder / ".recbole_sigrec-mine.tmp").touch()
    kept()
    assert [file.name for file in folder.glob(".*")] == [".recbole_sigrec-mine.tmp"]


def test_a_second_call_writes_no_note(kept):
    noted = Path("out/runs/BPR-1.checkpoints")
    before = noted.stat().st_mtime_ns
    kept()
    assert noted.stat().st_mtime_ns == before
