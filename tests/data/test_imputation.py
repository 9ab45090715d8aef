"""Missing modalities filled from neighbours: exact values, and from training alone."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from helpers_data import load, run_on, write_mmrec

from recbole_sigrec.data import imputation
from recbole_sigrec.data.imputation import impute_from_neighbours

CONFIG = {
    "knn_search": "exact",
    "graph_memory_mb": 1,
    "graph_cache_dir": None,
    "rewired_edges": 0.0,
}


class Values(dict):
    """A config as RecBole has it: a key that is not there is None."""

    def __missing__(self, key):
        return None


def impute(features, interactions, monkeypatch, k=2):
    """(filled features, masks, sources) of rows given as lists; None is a missing row."""
    monkeypatch.setattr(imputation, "NEIGHBOURS", k)
    values, masks = {}, {}
    for name, rows in features.items():
        width = next(len(row) for row in rows if row)
        values[name] = torch.tensor([row or [0.0] * width for row in [None, *rows]])
        masks[name] = torch.tensor([row is not None for row in [None, *rows]])
    matrix = sp.csr_matrix(np.array(interactions, dtype=np.float32))
    matrix = sp.hstack([sp.csr_matrix((matrix.shape[0], 1), dtype=np.float32), matrix]).tocsr()
    sources = impute_from_neighbours(values, masks, matrix, Values(CONFIG))
    return values, masks, sources


@pytest.fixture
def case():
    """Items 1 to 6. Item 1 lacks the image and is near 2 and 3 by text; 5 lacks both."""
    return {
        "text": [[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0], None, [-1.0, 0.1]],
        "image": [None, [2.0, 4.0], [4.0, 8.0], [9.0, 9.0], None, [-3.0, 0.0]],
    }


NOBODY = [[0, 0, 0, 0, 0, 0]]


def test_graph_neighbours_come_first(case, monkeypatch):
    histories = [[1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0]]  # item 1 is taken with 4 alone
    values, masks, sources = impute(case, histories, monkeypatch)
    assert values["image"][1].tolist() == [3.0, 6.0]
    assert sources["image"] == {"graph neighbours": 1, "co-interacted items": 0, "mean": 1}
    assert masks["image"].tolist() == [False, False, True, True, True, False, True]
    assert values["image"][2:5].tolist() == [[2.0, 4.0], [4.0, 8.0], [9.0, 9.0]]  # as they were
    assert not values["image"][0].any() and not values["text"][0].any()


def test_then_co_interacted_items(case, monkeypatch):
    """Item 5 has no modality; by cosine it is taken most with 6, then 4: c/√n is 2/√2, 2/√3."""
    histories = [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 0]]
    values, _, sources = impute(case, histories, monkeypatch)
    assert values["image"][5].tolist() == [3.0, 4.5]
    assert values["text"][5].tolist() == pytest.approx([-0.5, 0.55])
    assert sources["text"] == {"graph neighbours": 0, "co-interacted items": 1, "mean": 0}
    values, _, _ = impute(case, histories, monkeypatch, k=1)
    assert values["image"][5].tolist() == [-3.0, 0.0]


def test_else_the_mean(case, monkeypatch):
    values, _, sources = impute(case, NOBODY, monkeypatch)
    assert values["image"][5].tolist() == [3.0, 5.25]
    assert sources["image"]["mean"] == 1


def test_neighbours_without_the_modality_do_not_count(case, monkeypatch):
    case["image"][1] = None  # of item 1's neighbours by text only 3 has an image
    values, _, _ = impute(case, NOBODY, monkeypatch)
    assert values["image"][1].tolist() == [4.0, 8.0]


def test_near_in_two_modalities_counts_twice(case, monkeypatch):
    case["audio"] = [[1.0], [1.0], None, [-1.0], None, [-1.0]]
    values, _, _ = impute(case, NOBODY, monkeypatch)  # near 1 by text: 2 and 3, by audio: 2 and 4
    assert values["image"][1].tolist() == [(2 * 2 + 4 + 9) / 4, (2 * 4 + 8 + 9) / 4]


def test_order_of_modalities_and_repetition_change_nothing(case, monkeypatch):
    case["text"][1] = None
    histories = [[0, 0, 1, 0, 1, 0]]
    once, masks, _ = impute(case, histories, monkeypatch)
    turned = {name: case[name] for name in reversed(case)}
    again, _, _ = impute(turned, histories, monkeypatch)
    for name, values in once.items():
        torch.testing.assert_close(again[name], values, rtol=0, atol=0)
        assert values[1:][~masks[name][1:]].any(dim=1).all()


def missing(n=20, d=6):
    """A modality that items 4 and 5 lack, and one that item 5 lacks."""
    rng = np.random.default_rng(5)
    image, text = (rng.normal(size=(n, d)).astype(np.float32) for _ in range(2))
    image[[4, 5]], text[5] = 0.0, 0.0
    return {"image": image, "text": text}


def rows(train, rest):
    """Interactions of MMRec's layout: the training pairs, and the same label for the others."""
    return pd.DataFrame(
        [*((u, i, 0) for u, i in train), *((u, i, label) for u, i, label in rest)],
        columns=["userID", "itemID", "x_label"],
    )


def test_from_training_interactions_alone(tmp_path):
    """Item 5 has no modality: other test and validation pairs of it change nothing."""
    train = [(user, (user + n) % 20) for user in range(20) for n in (0, 1, 2)]
    filled = []
    for name, shift in (("one", 7), ("other", 11)):
        rest = [(user, (user + shift) % 20, 1) for user in range(20)]
        rest += [(user, (user + shift + 2) % 20, 2) for user in range(20)]
        folder = write_mmrec(tmp_path, name, rows(train, rest), missing())
        dataset = load(folder, missing_modality="neighbor", graph_cache_dir=None)
        before = dataset.modality_features["image"].clone()
        parts = dataset.build()
        tokens = dataset.field2id_token["item_id"].astype(str)
        order = [int(np.flatnonzero(tokens == str(item))[0]) for item in range(20)]
        mask = dataset.modality_mask["image"][order]
        assert np.flatnonzero(~mask).tolist() == [4, 5]
        assert not before[order][~mask].any()
        for part in parts:
            assert part.modality_features["image"] is dataset.modality_features["image"]
        filled.append({m: x[order] for m, x in dataset.modality_features.items()})
    for name in ("image", "text"):
        torch.testing.assert_close(filled[0][name], filled[1][name], rtol=0, atol=0)
    together = np.array([3, 4, 6, 7])  # in three histories 4 and 6 each are with 5; 3, 7 in one
    expected = missing()["text"][together].mean(axis=0)
    np.testing.assert_allclose(filled[0]["text"][5], expected, rtol=1e-5)


def test_a_run_reports_it(tmp_path, caplog):
    folder = write_mmrec(tmp_path / "data", modalities=missing())
    with caplog.at_level(logging.INFO):
        assert run_on(folder, "--missing_modality=neighbor", "--model=VBPR") == 0
    assert "modality image imputed from: 1 graph neighbours, 1 co-interacted" in caplog.text
