"""Corrupted content: how much of it, the same for all, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers_data import N_ITEMS, features, load, write_mmrec
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec.data.corruption import add_noise, drop
from recbole_sigrec.data.features import Modality
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import knn_graph, semantic_graph
from recbole_sigrec.graph.rewiring import rewire

SHARES = st.floats(0, 1)


def modality(n: int = 40, d: int = 3, missing: int = 4, seed: int = 0) -> Modality:
    """Random features; the padding row and some others are missing."""
    mask = np.arange(n) > missing
    values = np.random.default_rng(seed).normal(5, 2, (n, d)).astype(np.float32) * mask[:, None]
    return Modality(values, mask, 0, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two modalities; item 3 has no image."""
    image = features()
    image[3] = 0
    root = tmp_path_factory.mktemp("data")
    return write_mmrec(root, modalities={"image": image, "text": features(seed=1)})


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.flatnonzero((before != after).any(axis=1))


@given(share=SHARES, seed=st.integers(0, 9))
def test_noise_replaces_the_share_of_the_rows_that_there_are(share, seed):
    before, after = modality(), modality()
    n = add_noise(after, share, seed, "image")
    rows = changed(before.features, after.features)
    assert n == len(rows) == round(share * before.mask.sum())
    assert before.mask[rows].all()
    assert (before.mask == after.mask).all()


def test_noise_has_the_mean_and_deviation_of_each_dimension():
    x = modality(20001, 2, missing=0)
    x.features[1:, 1] = 100 + 0.1 * x.features[1:, 1]
    mean, deviation = x.features[1:].mean(axis=0), x.features[1:].std(axis=0)
    add_noise(x, 1.0, 0, "image")
    noise = x.features[1:]
    assert noise.mean(axis=0) == pytest.approx(mean, abs=0.05)
    assert noise.std(axis=0) == pytest.approx(deviation, rel=0.03)
    assert (x.features[0] == 0).all()


def test_modalities_have_noise_in_rows_of_their_own():
    rows = []
    for name in ("image", "text"):
        x = modality()
        add_noise(x, 0.5, 0, name)
        rows.append(set(changed(modality().features, x.features)))
    assert rows[0] != rows[1]


@given(shares=st.tuples(SHARES, SHARES))
def test_what_a_small_share_corrupts_a_larger_one_corrupts_too(shares):
    small, large = sorted(shares)
    one, other = modality(), modality()
    add_noise(one, small, 0, "image")
    add_noise(other, large, 0, "image")
    rows = changed(modality().features, one.features)
    assert (one.features[rows] == other.features[rows]).all()


@given(share=st.floats(0, 0.8), seed=st.integers(0, 9))
def test_dropped_pairs_are_the_share_of_those_that_there_are(share, seed):
    before = {"image": modality(), "text": modality(missing=0)}
    after = {"image": modality(), "text": modality(missing=0)}
    counts = drop(after, share, seed)
    total = sum(m.mask.sum() for m in before.values())
    assert sum(counts.values()) == round(share * total)
    for name in before:
        gone = before[name].mask & ~after[name].mask
        assert gone.sum() == counts[name]
        assert not (after[name].mask & ~before[name].mask).any()
        assert (after[name].features[~after[name].mask] == 0).all()
        kept = after[name].mask
        assert (after[name].features[kept] == before[name].features[kept]).all()


def test_a_modality_without_an_item_is_refused():
    with pytest.raises(ConfigError, match=r"\[dropped_modalities\] = \[1.0\] .*\[image\]"):
        drop({"image": modality()}, 1.0, 0)


@given(share=SHARES, seed=st.integers(0, 9), include_self=st.booleans())
def test_rewired_edges_are_the_share_of_all(share, seed, include_self):
    x = modality(missing=2)
    before = knn_graph(x.features, 5, x.mask, include_self, weight="cosine", symmetric=False)
    after = rewire(before, x.mask, share, seed)
    assert after.nnz == before.nnz
    assert (after.getnnz(axis=1) == before.getnnz(axis=1)).all()
    common = before.astype(bool).multiply(after.astype(bool)).nnz
    assert before.nnz - common == round(share * before.nnz)
    new = sp.coo_matrix(after.astype(bool) > before.astype(bool))
    assert x.mask[new.col].all()
    assert (new.row != new.col).all()
    rows = range(len(x.mask))
    for row in rows:
        assert sorted(after[row].data) == sorted(before[row].data)


def test_an_edge_stays_where_there_is_no_other_target():
    x = np.ones((3, 2), np.float32)
    graph = knn_graph(x, 2, symmetric=False)
    assert (rewire(graph, np.ones(3, bool), 1.0, 0) != graph).nnz == 0


def test_targets_are_drawn_evenly():
    n = 400
    graph = sp.csr_matrix((np.ones(n), (np.arange(n), np.roll(np.arange(n), 1))))
    counts = np.zeros(n)
    for seed in range(50):
        counts += rewire(graph, np.arange(n) < 200, 1.0, seed).sum(axis=0).A1
    assert counts[200:].sum() == 0
    assert counts[:200].mean() == 50 * n / 200
    assert counts[:200].std() < 2 * (50 * n / 200) ** 0.5


# ---- in the data set and the graphs --------------------------------------------------------------


def test_the_data_set_is_corrupted_alike_for_every_model(folder):
    values = {"noisy_features": 0.3, "dropped_modalities": 0.2, "missing_modality": "zero"}
    clean = load(folder, missing_modality="zero")
    one, other = load(folder, "SIGRec", **values), load(folder, "VBPR", seed=7, **values)
    present = {name: int(mask.sum()) for name, mask in clean.modality_mask.items()}
    assert present == {"image": N_ITEMS - 1, "text": N_ITEMS}
    left = sum(int(mask.sum()) for mask in one.modality_mask.values())
    assert left == sum(present.values()) - round(0.2 * sum(present.values()))
    for name, mask in one.modality_mask.items():
        assert torch.equal(mask, other.modality_mask[name])
        assert torch.equal(one.modality_features[name], other.modality_features[name])
        noisy = (one.modality_features[name] != clean.modality_features[name]).any(dim=1) & mask
        assert 0 < noisy.sum() <= round(0.3 * present[name])
    third = load(folder, corruption_seed=1, **values)
    assert not torch.equal(third.modality_features["text"], one.modality_features["text"])


def test_without_corruption_nothing_changes(folder):
    clean, seeded = load(folder), load(folder, corruption_seed=5)
    for name, values in clean.modality_features.items():
        assert torch.equal(values, seeded.modality_features[name])


def test_semantic_graphs_are_rewired_before_they_are_made_symmetric(folder, tmp_path):
    data = load(folder, graph_cache_dir=str(tmp_path / "graphs"))
    x, mask = data.modality_features["text"], data.modality_mask["text"]
    graphs = {}
    for share in (0.0, 0.5):
        for _ in range(2):  # built, and read from the cache
            config = {**data.config.final_config_dict, "rewired_edges": share}
            graph = semantic_graph(config, x, mask)
            assert (graph != graph.T).nnz == 0
            assert (graph != graphs.setdefault(share, graph)).nnz == 0
    assert len(list((tmp_path / "graphs").glob("*.npz"))) == 2
    directed = knn_graph(x, 3, mask, weight="cosine", symmetric=False)
    wanted = rewire(directed, mask.numpy(), 0.5, 0)
    assert (graphs[0.5] != wanted.maximum(wanted.T)).nnz == 0


@pytest.mark.parametrize("key", ["noisy_features", "dropped_modalities", "rewired_edges"])
def test_a_share_is_between_0_and_1(folder, key):
    for value in (-0.1, 1.5, "half"):
        with pytest.raises(ConfigError, match=rf"\[{key}\] = \[{value}\].*share of"):
            load(folder, **{key: value})
