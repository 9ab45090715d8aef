"""Held-out items in full ranking, against a slow ranking of each user."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_sigrec.kernels import held_out
from recbole_sigrec.kernels.held_out import HeldOut

N_USERS, N_ITEMS = 30, 25


@pytest.fixture
def data():
    """(histories, held-out items, scores with ties): histories and held-out items are disjoint."""
    rng = np.random.default_rng(4)
    kind = rng.choice(3, (N_USERS, N_ITEMS), p=(0.7, 0.2, 0.1))
    kind[:, 0], kind[5], kind[6, 1:] = 0, 0, 1  # [PAD]; a user without any; one without held-out
    scores = rng.integers(0, 12, (N_USERS, N_ITEMS)).astype(np.float32)
    return sp.csr_matrix(kind == 1), sp.csr_matrix(kind == 2), scores


def slow(histories, held, scores, k, recall):
    """The sum over users of the recall or the NDCG, a user at a time."""
    total = 0.0
    for seen, own, row in zip(histories.toarray(), held.toarray(), scores):
        allowed = [i for i in range(1, N_ITEMS) if not seen[i]]
        ranked = sorted(allowed, key=lambda i: (-row[i], own[i]))[:k]  # held-out ones last
        gains = [1.0 if recall else 1 / np.log2(place + 2) for place in range(k)]
        hits = [gains[place] for place, i in enumerate(ranked) if own[i]]
        if own.any():
            total += sum(hits) / (own.sum() if recall else sum(gains[: own.sum()]))
    return total


def fast(histories, held, scores, metric):
    total, users = 0.0, []
    for block in HeldOut(histories, held, metric).blocks():
        users.extend(block.users)
        masked = block.mask(torch.from_numpy(scores[block.users]))
        total += block.value(block.of_pairs(masked))
    assert users == list(np.flatnonzero(held.toarray().any(axis=1)))
    return total


def test_what_is_no_number_is_no_hit(data):
    histories, held, scores = data
    assert fast(histories, held, np.full_like(scores, np.nan), "Recall@5") == 0.0


@pytest.mark.parametrize("entries", [1, 4 * N_ITEMS, 2**22])
@pytest.mark.parametrize(
    ("metric", "k", "recall"),
    [("Recall@5", 5, True), ("hit@1", 1, True), ("NDCG@5", 5, False), ("MRR@3", 3, False)],
)
def test_values(data, monkeypatch, metric, k, recall, entries):
    monkeypatch.setattr(held_out, "_ENTRIES", entries)
    histories, held, _ = data
    distinct = np.random.default_rng(1).permutation(N_USERS * N_ITEMS).astype(np.float32)
    distinct = distinct.reshape(N_USERS, N_ITEMS)
    expected = slow(histories, held, distinct, k, recall)
    assert 0 < expected < N_USERS - 2
    assert fast(histories, held, distinct, metric) == pytest.approx(expected, abs=1e-5)


def test_an_item_ranks_behind_those_of_the_same_score(data):
    """With one held-out item a user; several of one score would be behind each other."""
    histories, held, scores = data
    first = held.toarray().argmax(axis=1)
    one = sp.csr_matrix(np.eye(N_ITEMS)[first] * held.toarray().any(axis=1)[:, None])
    expected = slow(histories, one, scores, 5, True)
    lucky = slow(histories, one, scores + 0.5 * one.toarray(), 5, True)
    assert 0 < expected < lucky
    assert fast(histories, one, scores, "Recall@5") == pytest.approx(expected, abs=1e-5)


def test_without_a_cutoff_it_is_the_ndcg_at_20(data):
    histories, held, _ = data
    scores = np.random.default_rng(1).random((N_USERS, N_ITEMS)).astype(np.float32)
    assert fast(histories, held, scores, "AUC") == fast(histories, held, scores, "NDCG@20")


def test_at_most_so_many_users_spread_over_all(data, monkeypatch):
    histories, held, _ = data
    users = np.flatnonzero(held.toarray().any(axis=1))
    monkeypatch.setattr(held_out, "_MOST_USERS", 10)
    found = HeldOut(histories, held, "Recall@5").users
    assert len(found) == 10 < len(users) and set(found) <= set(users)
    gaps = np.diff(np.searchsorted(users, found))
    assert found[0] == users[0] and found[-1] == users[-1] and set(gaps) <= {2, 3}


def test_a_block_has_few_pairs(data, monkeypatch):
    """Users with many held-out items do not come together: each pair costs a row of scores."""
    histories, held, _ = data
    monkeypatch.setattr(held_out, "_ENTRIES", 4 * N_ITEMS)
    blocks = [len(block.pairs[0]) for block in HeldOut(histories, held, "Recall@5").blocks()]
    most = np.diff(held.indptr).max()
    assert len(blocks) > 5 and max(blocks) <= 4 + most


def test_nobody_has_a_held_out_item():
    nothing = sp.csr_matrix((N_USERS, N_ITEMS))
    assert list(HeldOut(nothing, nothing, "Recall@5").blocks()) == []
