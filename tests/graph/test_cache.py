"""The graph cache: its key, its files, two users at a time, and damage."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_sigrec.graph import cache, cached_graph, collaborative, semantic
from recbole_sigrec.graph.cache import graph_key

GRAPH = sp.csr_matrix(np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]], dtype=np.float32))
X = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO)


class Builder:
    """Makes GRAPH and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return GRAPH.copy()


def get(folder, builder, **parameters):
    return cached_graph(folder, "semantic", {"x": X, "mask": None}, parameters, builder)


def same(graph):
    return graph.dtype == np.float32 and (graph != GRAPH).nnz == 0 and graph.shape == GRAPH.shape


def test_the_second_time_the_graph_is_read(tmp_path, caplog):
    builder = Builder()
    assert same(get(tmp_path / "new/graphs", builder, k=3))
    assert "graph semantic built in" in caplog.text
    caplog.clear()
    assert same(get(tmp_path / "new/graphs", builder, k=3))
    (file,) = (tmp_path / "new/graphs").glob("*.npz")
    assert f"graph semantic read from cache {file}" in caplog.text and "built" not in caplog.text
    assert builder.calls == 1
    assert not list((tmp_path / "new/graphs").glob("*.tmp"))
    get(tmp_path / "new/graphs", builder, k=4)
    assert builder.calls == 2


def test_without_a_folder_nothing_is_kept(tmp_path):
    builder = Builder()
    assert same(get(None, builder)) and same(get(None, builder))
    assert builder.calls == 2 and not list(tmp_path.rglob("*.npz"))


def test_the_key_is_that_of_the_values(tmp_path):
    np.save(tmp_path / "x.npy", X)
    key = graph_key("semantic", {"x": X}, {"k": 3, "weight": "binary"})
    for array in (torch.from_numpy(X), np.load(tmp_path / "x.npy", mmap_mode="r"), X.copy("F")):
        assert graph_key("semantic", {"x": array}, {"weight": "binary", "k": 3}) == key


def test_blocks_do_not_change_the_key(monkeypatch):
    key = graph_key("semantic", {"x": X}, {})
    monkeypatch.setattr(cache, "_BLOCK", 1)
    assert graph_key("semantic", {"x": X}, {}) == key
    assert graph_key("semantic", {"x": X[:, :0]}, {}) != key


def test_everything_that_a_graph_is_made_of_is_in_the_key(monkeypatch):
    changed = X.copy()
    changed[3, 2] += 1
    mask = np.ones(4, dtype=bool)
    other = mask.copy()
    other[0] = False
    interactions = sp.csr_matrix(X)
    keys = [
        graph_key(kind, arrays, parameters)
        for kind, arrays, parameters in [
            ("semantic", {"x": X, "mask": mask}, {"k": 3}),
            ("collaborative", {"x": X, "mask": mask}, {"k": 3}),
            ("semantic", {"y": X, "mask": mask}, {"k": 3}),
            ("semantic", {"x": changed, "mask": mask}, {"k": 3}),
            ("semantic", {"x": X[::-1], "mask": mask}, {"k": 3}),
            ("semantic", {"x": X.reshape(3, 4), "mask": mask}, {"k": 3}),
            ("semantic", {"x": X.view(np.int32), "mask": mask}, {"k": 3}),
            ("semantic", {"x": X, "mask": other}, {"k": 3}),
            ("semantic", {"x": X, "mask": None}, {"k": 3}),
            ("semantic", {"x": X, "mask": mask}, {"k": 4}),
            ("semantic", {"x": X, "mask": mask}, {"k": 3, "weight": "binary"}),
            ("semantic", {"x": interactions}, {"k": 3}),
            ("semantic", {"x": interactions.T.tocsr()}, {"k": 3}),
            ("semantic", {"x": sp.csr_matrix(changed)}, {"k": 3}),
        ]
    ]
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    keys.append(graph_key("semantic", {"x": X, "mask": mask}, {"k": 3}))
    assert len(set(keys)) == len(keys)


def spoil_byte(path):
    content = bytearray(path.read_bytes())
    place = content.find(np.float32(0.5).tobytes() * 2)
    content[place] ^= 1
    path.write_bytes(content)


def write(path, **changed):
    """A file of GRAPH with other parts."""
    parts = {name: getattr(GRAPH, name) for name in ("data", "indices", "indptr", "shape")}
    np.savez(path, **{**parts, "hash": cache._hash(path, GRAPH), **changed})


def of_another(path):
    """The file of another graph under the name of this one."""
    other = sp.identity(3, dtype=np.float32, format="csr")
    cached_graph(path.parent / "other", "semantic", {}, {}, lambda: other)
    (file,) = (path.parent / "other").glob("*.npz")
    shutil.copy(file, path)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not an archive"),
    "another archive": lambda path: np.savez(path, a=X),
    "a changed byte": spoil_byte,
    "objects": lambda path: write(path, data=np.array([{}, {}], dtype=object)),
    "wrong indices": lambda path: write(path, indices=[7, 0]),
    "not square": lambda path: write(path, shape=(3, 9)),
    "another type": lambda path: write(path, data=[0.5, 0.5]),
    "doubled": lambda path: write(path, data=2 * GRAPH.data),
    "NaN": lambda path: write(path, data=np.float32("nan") * GRAPH.data),
    "other columns": lambda path: write(path, indices=GRAPH.indices[::-1]),
    "another graph": of_another,
    "without a hash": lambda path: sp.save_npz(path, GRAPH, compressed=False),
}


def test_the_parts_of_a_graph_make_a_file_that_is_read(tmp_path):
    """So that the damaged files below are refused for their damage."""
    write(tmp_path / "x.npz")
    assert same(cache._read(tmp_path / "x.npz"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_built_again(tmp_path, damage, caplog):
    builder = Builder()
    get(tmp_path, builder)
    (file,) = tmp_path.glob("*.npz")
    DAMAGE[damage](file)
    caplog.clear()
    assert same(get(tmp_path, builder))
    assert builder.calls == 2
    assert [r.levelname for r in caplog.records if str(file) in r.message] == ["WARNING"]
    assert same(get(tmp_path, builder)) and builder.calls == 2


@pytest.mark.parametrize("where", ["savez", "replace"])
def test_a_kill_while_writing_leaves_no_half_file(tmp_path, monkeypatch, where):
    def killed(file, *_, **__):
        if where == "savez":
            file.write(b"half")
        raise KeyboardInterrupt

    builder = Builder()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np if where == "savez" else os, where, killed)
        get(tmp_path, builder)
    assert not list(tmp_path.glob("*.npz"))
    assert same(get(tmp_path, builder)) and same(get(tmp_path, builder))
    assert builder.calls == 2 and not list(tmp_path.glob("*.tmp"))


def test_of_two_at_the_same_time_one_builds_and_the_other_waits(tmp_path, caplog):
    builder, started, go_on = Builder(), threading.Event(), threading.Event()

    def slow():
        started.set()
        assert go_on.wait(20)
        return builder()

    found = []
    first = threading.Thread(target=lambda: found.append(get(tmp_path, slow)))
    second = threading.Thread(target=lambda: found.append(get(tmp_path, builder)))
    first.start()
    assert started.wait(20)
    second.start()
    while "waiting for another process" not in caplog.text:
        assert second.is_alive()
        second.join(0.01)
    assert builder.calls == 0 and not found
    go_on.set()
    first.join(20)
    second.join(20)
    assert builder.calls == 1 and len(found) == 2 and all(map(same, found))


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    get(tmp_path, Builder())
    (file,) = tmp_path.glob("*.npz")
    file.unlink()
    lock = file.with_suffix(".lock")
    holds = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); "
        "lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", holds, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(cache.Timeout):
            cache.FileLock(lock).acquire(timeout=0)
        other.send_signal(signal.SIGKILL)
    assert lock.exists()
    assert same(get(tmp_path, Builder()))


def test_where_nothing_can_be_written_the_graph_is_built(tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    assert same(get(tmp_path / "file", Builder()))
    assert "cannot be locked" in caplog.text and "cannot be written" in caplog.text


# ---- in a model -----------------------------------------------------------------------------


def item_graphs(model):
    return {name: graph(torch.eye(graph.shape[1])) for name, graph in model.semantic_graph.items()}


def test_a_second_model_reads_the_graphs_of_the_first(
    planted, prepare, make_config, tmp_path, monkeypatch
):
    first = item_graphs(prepare(make_config("SIGRec", planted.folder)).model)
    kept = list((tmp_path / "saved/graphs").glob("*.npz"))
    assert len(kept) == 4  # image, text, collaborative, ridge

    def refuse(*_, **__):
        raise AssertionError("built again")

    monkeypatch.setattr(semantic, "knn_graph", refuse)
    monkeypatch.setattr(collaborative, "collaborative_topk", refuse)
    # What only decides how the graph is computed, or comes after it, does not matter.
    config = make_config("SIGRec", planted.folder, graph_memory_mb=1, seed=5, n_ui_layers=1)
    second = item_graphs(prepare(config).model)
    assert first.keys() == second.keys() == {"image", "text"}
    assert all(torch.equal(first[name], second[name]) for name in first)
    for key, value in {
        "knn_k": 3,
        "knn_self": True,
        "knn_weight": "binary",
        "knn_symmetric": False,
        "knn_search": "hnsw",
        "collab_knn_k": 3,
        "collab_measure": "count",
        "collab_max_history": 6,
        "graph_cache_dir": None,
    }.items():
        with pytest.raises(AssertionError, match="built again"):
            prepare(make_config("SIGRec", planted.folder, **{key: value}))
    other = tmp_path / "other" / planted.folder.name  # the same data set, one feature changed
    shutil.copytree(planted.folder, other)
    features = np.load(other / "text_feat.npy")
    features[3] = -features[3]
    np.save(other / "text_feat.npy", features)
    with pytest.raises(AssertionError, match="built again"):
        prepare(make_config("SIGRec", other))
