"""Negative sampling: never a used item, and the distribution that was asked for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.sampler import Sampler as RecBoleSampler
from scipy import stats

from recbole_sigrec.data.sampler import Sampler
from recbole_sigrec.data.user_items import UserItems
from recbole_sigrec.errors import DataError

PHASES = ["train", "valid", "test"]


def part(pairs, n_users, n_items):
    """What the sampler reads of a RecBole data set."""
    users, items = (torch.tensor([p[k] for p in pairs], dtype=torch.int64) for k in (0, 1))
    return SimpleNamespace(
        uid_field="user_id",
        iid_field="item_id",
        user_num=n_users,
        item_num=n_items,
        inter_feat={"user_id": users, "item_id": items},
        benchmark_filename_list=None,
    )


def make(train, valid=(), test=(), n_users=6, n_items=12, **keys):
    return Sampler(PHASES, [part(p, n_users, n_items) for p in (train, valid, test)], **keys)


TRAIN = [(1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 1), (4, 3), (5, 6)]
VALID = [(1, 4), (2, 7)]
TEST = [(1, 8), (3, 9)]

user = st.integers(1, 5)
item = st.integers(1, 11)
pairs = st.sets(st.tuples(user, item), min_size=1, max_size=40)


def draw(sampler, users, num=1, seed=0):
    np.random.seed(seed)
    users = np.asarray(users)
    drawn = sampler.sample_by_user_ids(users, np.zeros_like(users), num)
    assert drawn.dtype == torch.int64 and drawn.shape == (len(users) * num,)
    return drawn.numpy()


@given(pairs, pairs, pairs, st.sampled_from(PHASES), st.integers(1, 3), st.integers(0, 99))
def test_a_used_item_is_never_drawn(train, valid, test, phase, num, seed):
    used = {1: set(), 2: set(), 3: set(), 4: set(), 5: set()}
    for pairs_of_part in (train, valid, test)[: PHASES.index(phase) + 1]:
        for u, i in pairs_of_part:
            used[u].add(i)
    everything = {(u, i) for u, i in train | valid | test}
    assume(all(len({i for v, i in everything if v == u}) < 11 for u in used))
    sampler = make(sorted(train), sorted(valid), sorted(test)).set_phase(phase)
    users = np.tile(np.arange(1, 6), 8)
    drawn = draw(sampler, users, num, seed)
    assert ((drawn >= 1) & (drawn <= 11)).all()
    for u, i in zip(np.tile(users, num), drawn):
        assert i not in used[u]


@pytest.mark.parametrize("who, phase", [(1, "train"), (1, "valid"), (1, "test"), (5, "train")])
def test_uniform_over_the_allowed_items(who, phase):
    used = {
        i for part in (TRAIN, VALID, TEST)[: PHASES.index(phase) + 1] for u, i in part if u == who
    }
    allowed = sorted(set(range(1, 12)) - used)
    drawn = draw(make(TRAIN, VALID, TEST).set_phase(phase), np.full(20_000, who), seed=1)
    count = np.bincount(drawn, minlength=12)
    assert count.sum() == count[allowed].sum()
    assert stats.chisquare(count[allowed]).pvalue > 0.01


def test_uniform_when_users_are_mixed():
    # Rejection must not move the draws of one user to another's.
    users = np.random.default_rng(0).integers(1, 6, 40_000)
    drawn = draw(make(TRAIN, VALID, TEST).set_phase("train"), users, seed=2)
    for who in range(1, 6):
        allowed = sorted(set(range(1, 12)) - {i for u, i in TRAIN if u == who})
        count = np.bincount(drawn[users == who], minlength=12)
        assert count.sum() == count[allowed].sum()
        assert stats.chisquare(count[allowed]).pvalue > 0.01


def test_candidates_of_the_training_part():
    sampler = make(TRAIN, VALID, TEST, candidates="train").set_phase("train")
    drawn = draw(sampler, np.full(20_000, 1), seed=3)
    count = np.bincount(drawn, minlength=12)
    assert set(np.flatnonzero(count)) == {4, 5, 6}  # trained items 1 … 6, less the user's own
    assert stats.chisquare(count[[4, 5, 6]]).pvalue > 0.01
    everywhere = draw(make(TRAIN, VALID, TEST).set_phase("train"), np.full(20_000, 1), seed=3)
    assert set(everywhere) == set(range(4, 12))


def test_popularity_follows_the_counts():
    popular = [(u, 6) for u in range(1, 60)] + [(u, 7) for u in range(60, 80)]
    popular += [(80, 8), (81, 9), (81, 8), (82, 8), (83, 8)]
    sampler = make(popular, n_users=100, distribution="popularity").set_phase("train")
    drawn = draw(sampler, np.full(30_000, 99), seed=4)  # a user without an item
    expected = np.array([59, 20, 4, 1])
    count = np.bincount(drawn, minlength=12)
    assert count.sum() == count[6:10].sum()
    assert stats.chisquare(count[6:10], expected / expected.sum() * 30_000).pvalue > 0.01
    # Used items drop out; the others keep their proportions.
    drawn = draw(sampler, np.full(30_000, 60), seed=5)
    count = np.bincount(drawn, minlength=12)
    assert count[7] == 0
    expected = np.array([59, 4, 1])
    assert stats.chisquare(count[[6, 8, 9]], expected / expected.sum() * 30_000).pvalue > 0.01


def test_alpha_flattens_popularity():
    popular = [(u, 6) for u in range(1, 82)] + [(90, 7)]
    sampler = make(popular, n_users=100, distribution="popularity", alpha=0.5).set_phase("train")
    count = np.bincount(draw(sampler, np.full(20_000, 99), seed=6), minlength=12)
    assert stats.chisquare(count[[6, 7]], [18_000, 2_000]).pvalue > 0.01  # √81 : √1


def test_popularity_with_candidates_of_the_training_part():
    keys = {"distribution": "popularity", "candidates": "train"}
    drawn = draw(make(TRAIN, VALID, TEST, **keys).set_phase("train"), np.full(2000, 5), seed=7)
    assert set(drawn) <= {1, 2, 3, 4, 5}


def test_popularity_does_not_look_at_the_test_part():
    # Item 7 is popular in the test part alone: negatives of training must not know.
    train = [(u, 6) for u in range(1, 11)] + [(u, 8) for u in range(11, 21)] + [(21, 7)]
    test = [(u, 7) for u in range(1, 21)]
    sampler = make(train, test=test, n_users=50, distribution="popularity").set_phase("train")
    count = np.bincount(draw(sampler, np.full(21_000, 49), seed=8), minlength=12)
    assert stats.chisquare(count[[6, 7, 8]], [10_000, 1_000, 10_000]).pvalue > 0.01


def test_repetitions_of_a_user_come_in_blocks():
    # RecBole's order: all users once, then all users again.
    only = {u: u + 2 for u in range(1, 6)}  # each user can get one item alone
    used = [(u, i) for u, free in only.items() for i in range(1, 12) if i != free]
    drawn = draw(make(used).set_phase("train"), [3, 1, 5], num=4)
    assert drawn.tolist() == [5, 3, 7] * 4


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_the_seed_governs(distribution):
    users = np.tile(np.arange(1, 6), 40)
    sampler = make(TRAIN, VALID, TEST, distribution=distribution).set_phase("train")
    one, two = draw(sampler, users, seed=9), draw(sampler, users, seed=9)
    np.testing.assert_array_equal(one, two)
    assert (one != draw(sampler, users, seed=10)).any()
    following = sampler.sample_by_user_ids(users, users, 1).numpy()
    assert (one != following).any()


def test_phases_do_not_disturb_each_other():
    base = make(TRAIN, VALID, TEST)
    train, test = base.set_phase("train"), base.set_phase("test")
    assert set(draw(test, np.full(3000, 1))) == {5, 6, 7, 9, 10, 11}
    assert set(draw(train, np.full(3000, 1))) == {4, 5, 6, 7, 8, 9, 10, 11}
    with pytest.raises(ValueError, match="Phase"):
        base.set_phase("holdout")


@given(pairs, pairs, pairs)
def test_used_items_read_as_recboles_array_of_sets(train, valid, test):
    parts = [part(sorted(pairs), 6, 12) for pairs in (train, valid, test)]
    everything = train | valid | test
    assume(all(len({i for v, i in everything if v == u}) < 11 for u in range(1, 6)))
    ours, theirs = Sampler(PHASES, parts), RecBoleSampler(PHASES, parts)
    users = np.arange(6)
    for phase in PHASES:
        mine, sets = ours.set_phase(phase).used_ids, theirs.set_phase(phase).used_ids
        assert len(mine) == len(sets) and list(mine) == list(sets)
        assert list(mine[users[::-1]]) == list(sets[users[::-1]]) and mine[-1] == sets[-1]
        assert mine.sizes.tolist() == [len(items) for items in sets]
        grid = [grid.ravel() for grid in np.meshgrid(users, np.arange(12))]
        assert mine.contains(*grid).tolist() == [i in sets[u] for u, i in zip(*grid)]
        keys = sorted(12 * u + i for u in users for i in sets[u])
        assert ours.set_phase(phase).used_keys.tolist() == keys


def test_used_items_of_nobody():
    used = UserItems(np.empty(0, dtype=np.int64), 3, 5)
    assert list(used) == [set()] * 3 and used[None] == set()
    assert not used.contains(np.array([1, 2]), np.array([0, 4])).any()
    with pytest.raises(IndexError):
        used[3]


@pytest.mark.parametrize("phase", ["valid", "test"])
def test_recboles_loader_of_full_ranking_reads_used_items(prepare, make_config, planted, phase):
    prepared = prepare(make_config("SIGRec", planted.folder))
    parts = [getattr(prepared, name).dataset for name in PHASES]
    batches = []
    for kind in (Sampler, RecBoleSampler):
        sampler = kind(PHASES, parts).set_phase(phase)
        loader = FullSortEvalDataLoader(prepared.config, parts[PHASES.index(phase)], sampler)
        batches.append([as_pairs(batch) for batch in loader])
    assert batches[0] == batches[1] and batches[0][0]["history"]


def as_pairs(batch):
    """A batch of full ranking as plain sorted pairs of (row, item)."""
    users, history, *positive = batch
    return {
        "users": users["user_id"].tolist(),
        "history": sorted(zip(*(part.tolist() for part in history))),
        "positive": sorted(zip(*(part.tolist() for part in positive))),
    }


def test_a_user_who_has_used_everything_is_refused():
    pairs = [(2, i) for i in range(1, 12)]
    with pytest.raises(DataError, match=r"all items.*user_inter_num_interval"):
        make(pairs)
    given = [part(p, 6, 12) for p in (pairs, (), ())]
    given[0].benchmark_filename_list = ["train", "valid", "test"]  # then RecBole filters nothing
    with pytest.raises(DataError, match=r"all items.*remove such users from the interactions"):
        Sampler(PHASES, given)


def test_a_user_who_has_used_every_candidate_is_refused():
    train = [(2, i) for i in range(1, 5)] + [(3, 1)]
    sampler = make(train, candidates="train").set_phase("train")
    assert set(draw(sampler, np.full(500, 3))) == {2, 3, 4}
    with pytest.raises(ValueError, match="user id 2"):
        draw(sampler, [3, 2, 3])


def test_evaluation_draws_from_all_items():
    # Items 10 and 11 have no training pair; the candidates of training leave them out.
    sampler = make(TRAIN, VALID, TEST, candidates="train")
    users = np.full(2000, 5)
    assert not set(draw(sampler.set_phase("train"), users)) & {7, 8, 9, 10, 11}
    assert set(draw(sampler.set_phase("test"), users)) >= {7, 8, 9, 10, 11}


def test_a_user_with_nothing_left_is_named_before_training():
    train = [(1, i) for i in (1, 2, 3)] + [(2, 1)]
    sampler = make(train, candidates="train")
    for dataset in sampler.datasets:
        dataset.field2id_token = {"user_id": np.array(["[PAD]", "anna", "ben", "c", "d", "e"])}
    with pytest.raises(DataError, match=r"anna have used every item"):
        sampler.check("train")
    make(train).check("train")  # all items: there is something left


def test_popularity_leaves_nothing_to_a_user_who_took_all_of_training():
    """Items of the test alone are left to anna, and no draw by popularity finds them."""
    train = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 4)]
    valid, test = [(1, 3), (1, 4), (2, 2)], [(1, 9), (3, 8)]
    tokens = np.array(["[PAD]", "anna", "ben", "c", "d", "e"])
    for distribution, full in (("popularity", ["valid", "test"]), ("uniform", [])):
        sampler = make(train, valid, test, distribution=distribution)
        for dataset in sampler.datasets:
            dataset.field2id_token = {"user_id": tokens}
        for phase in PHASES:
            if phase not in full:
                sampler.check(phase)
                continue
            with pytest.raises(DataError, match=rf"\({phase}\): user\(s\) anna have used every"):
                sampler.check(phase)
            with pytest.raises(ValueError, match="no unused item"):  # what it prevents
                draw(sampler.set_phase(phase), [1])
    # She is not asked for in a part that she has no pair in.
    sampler = make(train, [*valid, (2, 4)], [(3, 8)], distribution="popularity")
    sampler.check("test")


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_the_last_unused_item_is_found(distribution):
    """One free item among 20,000: hardly ever drawn at random."""
    n = 20_001
    used = [(1, item) for item in range(1, n) if item != 777]
    sampler = make([*used, (2, 777)], n_users=3, n_items=n, distribution=distribution)
    assert draw(sampler.set_phase("train"), [1, 1, 1]).tolist() == [777] * 3
