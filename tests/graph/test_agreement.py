"""Item graphs that all modalities agree on, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_sigrec.graph import agreeing_neighbors, agreement, agreement_graphs

N, K = 30, 10
CONFIG = {"knn_k": K, "graph_cache_dir": None, "rewired_edges": 0.0, "corruption_seed": 0}


@pytest.fixture
def data():
    """Three modalities of rows that scatter around few centres; row 0 and others lack some."""
    rng = np.random.default_rng(5)
    features, mask = {}, {}
    for name, d in (("audio", 4), ("image", 7), ("text", 5)):
        x = 0.7 * rng.normal(size=(3, d))[np.arange(N) % 3] + rng.normal(size=(N, d))
        features[name] = torch.from_numpy(x.astype(np.float32))
        mask[name] = torch.from_numpy(rng.random(N) > 0.15)
        mask[name][0] = False
    return features, mask


def reference(features, mask, k):
    cosine, keep, graphs = {}, np.ones((N, N), bool), {}
    for name, x in features.items():
        x, has = x.double().numpy(), mask[name].numpy()
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosine[name] = x @ x.T
        both = np.outer(has, has)
        keep &= ~both | (cosine[name] >= cosine[name][both].mean())
    for name, c in cosine.items():
        has = mask[name].numpy()
        allowed = keep & np.outer(has, has) & (c != 0)
        graphs[name] = np.zeros((N, N))
        for i in range(N):
            near = np.flatnonzero(allowed[i])
            graphs[name][i, near[np.argsort(-c[i, near])[:k]]] = 1.0
    return graphs


@pytest.mark.parametrize("entries", [1, 7 * N, 2**23])
@pytest.mark.parametrize("names", [["text"], ["image", "text"], ["audio", "image", "text"]])
def test_graphs_are_the_dense_ones(data, monkeypatch, names, entries):
    monkeypatch.setattr(agreement, "_ENTRIES", entries)
    features, mask = ({name: part[name] for name in names} for part in data)
    got = agreeing_neighbors(features, mask, K)
    counts = []
    for name, expected in reference(features, mask, K).items():
        np.testing.assert_array_equal(got[name].toarray(), expected)
        assert (np.diag(expected) == mask[name].numpy()).all()
        counts += expected.sum(axis=1).tolist()
    assert len(set(counts) - {0, K}) > 0  # some have fewer than k


def test_a_row_without_a_modality_is_not_read(data):
    features, mask = data
    before = agreeing_neighbors(features, mask, K)
    for name, x in features.items():
        x[~mask[name]] = 9.0
    after = agreeing_neighbors(features, mask, K)
    assert all((after[name] != before[name]).nnz == 0 for name in before)


def test_graphs_are_cached_and_rewired(data, tmp_path):
    features, mask = data
    built = agreeing_neighbors(features, mask, K)
    for share in (0.0, 0.5):
        config = {**CONFIG, "graph_cache_dir": str(tmp_path), "rewired_edges": share}
        one, two = (agreement_graphs(config, features, mask) for _ in range(2))
        for name, graph in one.items():
            assert (graph != two[name]).nnz == 0
            assert ((graph != built[name]).nnz == 0) == (share == 0.0)
            assert graph.nnz == built[name].nnz
            assert not graph[:, ~mask[name].numpy()].nnz
    assert len(list(tmp_path.glob("agreement-*.npz"))) == 6
