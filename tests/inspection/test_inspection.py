"""``recbole-sigrec inspect``: exact figures, and whether features belong to their items."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import write_planted
from helpers_data import N_ITEMS, N_USERS, features, write_atomic, write_mmrec
from hypothesis import given
from hypothesis import strategies as st

from recbole_sigrec.cli import run_command
from recbole_sigrec.inspection import alignment as module
from recbole_sigrec.inspection import as_text, check_alignment
from recbole_sigrec.inspection.alignment import Alignment, share_together
from recbole_sigrec.inspection.item_number_order import HeldOutOrder, held_out_order, item_numbers

DATA = os.environ.get("RECBOLE_SIGREC_DATA")


def inspected(folder: Path, *arguments: str) -> dict:
    """The figures that the command writes for a data set's folder."""
    file = Path("figures.json")
    given = [folder.name, f"--data_path={folder.parent}", f"--json={file}", *arguments]
    assert run_command("inspect", *given) == 0
    return json.loads(file.read_text("utf-8"))


# ---- the alignment check -------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_share_together_is_that_of_the_sets(seed):
    rng = np.random.default_rng(seed)
    users = sp.random(9, 7, 0.3, "csr", rng=rng, data_rvs=np.ones)
    left, right = rng.integers(0, 9, (2, 12))
    sets = [set(users[item].indices) for item in range(9)]
    expected = np.mean([bool(sets[i] & sets[j]) for i, j in zip(left, right, strict=True)])
    assert share_together(users, left, right) == pytest.approx(expected)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    users = sp.random(40, 30, 0.2, "csr", rng=rng, data_rvs=np.ones)
    left, right = rng.integers(0, 40, (2, 100))
    whole = share_together(users, left, right)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert share_together(users, left, right) == pytest.approx(whole)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=230), st.integers(0, 99))
def test_permutations_stay_among_items_of_similar_degree(degrees, seed):
    degree = np.array([*degrees, 100, 200])
    items = np.arange(len(degrees))  # the last two do not take part
    moved = module._within_strata(items, degree, np.random.default_rng(seed))
    assert sorted(moved) == list(range(len(degree)))
    assert moved[-2:].tolist() == [len(degree) - 2, len(degree) - 1]
    n_strata = max(1, len(items) // module.STRATUM)
    rank = np.sort(degree[items])
    widest = max(part[-1] - part[0] for part in np.array_split(rank, n_strata))
    assert abs(degree[moved] - degree).max() <= widest + 1


def groups(n_groups=20, size=10, users_each=20, seed=0):
    """Histories within groups of items, and a graph of each item's group; one cold item."""
    rng = np.random.default_rng(seed)
    n = n_groups * size + 1
    rows = np.repeat(np.arange(n_groups * users_each), 4)
    columns = [rng.choice(size, 4, False) + user // users_each * size for user in rows[::4]]
    histories = sp.csr_matrix((np.ones(len(rows)), (rows, np.concatenate(columns))))
    histories.resize(n_groups * users_each, n)
    graph = sp.kron(sp.eye(n_groups), np.ones((size, size)) - np.eye(size)).tolil()
    graph.resize(n, n)
    graph[n - 1, 0] = 1.0
    return graph.tocsr(), histories


def test_neighbours_of_the_same_histories_are_aligned():
    graph, histories = groups()
    found = check_alignment(graph, histories)
    assert found.pairs == 20 * 10 * 9  # without the cold item's
    assert found.share > 0.9 and found.verdict == "aligned"
    assert found.expected == pytest.approx(found.share * 9 / 199, rel=0.2)
    assert check_alignment(graph, histories) == found
    assert check_alignment(graph, histories, seed=1) != found


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_of_other_items_are_not(seed):
    graph, histories = groups()
    order = np.random.default_rng(seed).permutation(graph.shape[0])
    found = check_alignment(graph[order][:, order], histories)
    assert found.verdict == "none"
    assert found.lift == pytest.approx(1.0, abs=0.15) and abs(found.z) < 4


def test_popularity_is_no_alignment():
    """An item's neighbours are as popular as it is, and else any: the check must not see that."""
    rng = np.random.default_rng(3)
    popular = np.arange(600) < 60
    histories = sp.csr_matrix(rng.random((400, 600)) < np.where(popular, 0.3, 0.02), dtype=float)
    left = np.repeat(np.arange(600), 10)
    right = np.where(popular[left], rng.integers(0, 60, 6000), rng.integers(60, 600, 6000))
    apart = left != right
    graph = sp.csr_matrix((np.ones(apart.sum()), (left[apart], right[apart])), shape=(600, 600))
    found = check_alignment(graph, histories)
    assert found.verdict == "none" and found.lift == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    "found, verdict",
    [
        (Alignment(10, 0.4, 0.1, 0.01), "aligned"),
        (Alignment(10, 0.11, 0.1, 0.001), "weak"),
        (Alignment(10, 0.1, 0.1, 0.001), "none"),
        (Alignment(10, 0.05, 0.1, 0.001), "none"),
        (Alignment(10, 0.2, 0.1, 0.1), "unclear"),
        (Alignment(10, 0.2, 0.0, 0.0), "unclear"),
        (Alignment(10, 0.2, 0.2, 0.0), "unclear"),
        (Alignment(0, 0.0, 0.0, 0.0), "unclear"),
    ],
)
def test_verdicts(found, verdict):
    assert found.verdict == verdict


def test_without_pairs():
    empty = sp.csr_matrix((3, 3), dtype=np.float32)
    assert check_alignment(empty, empty) == Alignment(0, 0.0, 0.0, 0.0)


# ---- the order of held-out items -----------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_held_out_order_is_that_of_the_lists(seed):
    rng = np.random.default_rng(seed)
    n_users, n_items = 6, 9
    taken = rng.random((n_users, n_items)) < 0.5
    held = taken & (rng.random(taken.shape) < 0.4)
    train = taken & ~held
    numbers = rng.permutation(n_items)
    above, below, chance = [], [], []
    for u, i in zip(*held.nonzero()):
        history = numbers[train[u]]
        if len(history):
            above.append(all(numbers[i] > history))
            below.append(all(numbers[i] < history))
            chance.append(1 / (len(history) + 1))
    found = held_out_order(sp.csr_matrix(train), numbers, *held.nonzero())
    assert found.pairs == len(above)
    expected = [np.mean(x) if x else 0.0 for x in (above, below, chance)]
    np.testing.assert_allclose((found.above, found.below, found.expected), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("above", "below", "expected", "verdict"),
    [
        (1.0, 0.0, 0.4, "highest"),
        (0.0, 0.95, 0.4, "lowest"),
        (0.94, 0.0, 0.4, None),
        (1.0, 0.0, 0.9, None),  # chance alone leaves most of them there
    ],
)
def test_when_the_order_tells(above, below, expected, verdict):
    assert HeldOutOrder(100, above, below, expected).telling == verdict


@pytest.mark.parametrize("tokens", [["1", "x"], ["1", ""], ["1", "-2"], ["1", "²"], ["9" * 19]])
def test_item_tokens_that_are_no_numbers(tokens):
    assert item_numbers(tokens) is None


def test_item_tokens_that_are_numbers():
    assert item_numbers(["10", "007", "2"]).tolist() == [10, 7, 2]


def test_a_split_cut_from_sorted_lists_is_warned_of(tmp_path, capsys):
    folder = write_mmrec(tmp_path / "data", modalities={"image": features()})
    file = folder / "toy.inter"
    assert not any("held-out" in warning for warning in inspected(folder)["warnings"])
    table = pd.read_csv(file, sep="\t").sort_values(["userID", "itemID"])
    place = table.groupby("userID").cumcount(ascending=False)
    table["x_label"] = np.where(place == 0, 2, np.where(place == 1, 1, 0))
    table.to_csv(file, sep="\t", index=False)
    capsys.readouterr()
    figures = inspected(folder)
    order = figures["held_out_order"]
    assert order == {
        "pairs": 2 * N_USERS,
        "above": 1.0,
        "below": 0.0,
        "expected": pytest.approx(1 / 5),  # four training items each
    }
    warning = figures["warnings"][-1]
    assert "highest" in warning and "20.0 % by chance" in warning
    assert warning in capsys.readouterr().out


# ---- the command ---------------------------------------------------------------------------------


def test_exact_figures(tmp_path):
    image, text = features(), features(seed=1, d=3)
    image[3] = image[5]
    image[7] = 0.0
    text *= 2.0 / np.linalg.norm(text, axis=1, keepdims=True)
    folder = write_mmrec(tmp_path / "data", modalities={"image": image, "text": text})
    before = sorted(folder.iterdir())
    figures = inspected(folder)
    assert sorted(folder.iterdir()) == before
    assert figures["dataset"] == "toy"
    assert (figures["users"], figures["items"]) == (N_USERS, N_ITEMS)
    assert figures["interactions"] == 6 * N_USERS
    assert figures["density"] == pytest.approx(6 / N_ITEMS)
    assert figures["split"] == {"train": 4 * N_USERS, "valid": N_USERS, "test": N_USERS}
    assert (figures["cold_users"], figures["cold_items"]) == (0, 0)
    assert figures["users_degree"] == {"edges": [0, 1, 2, 4, 8], "counts": [0, 0, 0, N_USERS]}
    assert sum(figures["items_degree"]["counts"]) == N_ITEMS
    image, text = figures["modalities"]["image"], figures["modalities"]["text"]
    assert (image["dimension"], text["dimension"]) == (6, 3)
    assert (image["coverage"], image["missing"]) == (0.95, 1)
    assert (text["coverage"], text["missing"]) == (1.0, 0)
    assert (image["duplicate_rows"], text["duplicate_rows"]) == (1, 0)
    for key in ("min", "median", "max"):
        assert text["norms"][key] == pytest.approx(2.0)
    assert sum(image["norms_histogram"]["counts"]) == N_ITEMS - 1
    assert {"alignment_lift", "alignment_z", "alignment_share", "alignment"} <= set(image)


def test_cold_users_and_items(planted):
    figures = inspected(planted.folder)
    assert figures["cold_items"] == len(planted.cold_items)
    assert figures["cold_users"] == 1
    assert figures["items_degree"]["counts"][0] == len(planted.cold_items)
    assert figures["modalities"]["image"]["missing"] == 1


@pytest.mark.parametrize("missing", ["1", "2", "12"])
def test_without_validation_or_test(planted, tmp_path, missing, capsys):
    """Of the missing part's pairs the training part has all: its items have a history then."""
    folder = shutil.copytree(planted.folder, tmp_path / "planted")
    frame = pd.read_csv(folder / "planted.inter", sep="\t", dtype=str)
    frame["x_label"] = frame["x_label"].where(~frame["x_label"].isin(list(missing)), "0")
    frame.to_csv(folder / "planted.inter", sep="\t", index=False)
    figures = inspected(folder, "--html=page.html")
    counts = frame["x_label"].value_counts()
    assert list(figures["split"].values()) == [counts.get(label, 0) for label in "012"]
    assert figures["interactions"] == len(frame)
    held = frame[(frame["x_label"] != "0") & (frame["userID"] != str(planted.test_user))]
    assert figures["held_out_order"]["pairs"] == len(held)
    assert figures["cold_items"] == (0 if "2" in missing else len(planted.cold_items))
    assert figures["warnings"] == []
    assert "warning" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The planted data with enough items for the check."""
    return write_planted(tmp_path_factory.mktemp("data") / "large", groups=20, users_each=25)


def test_aligned_features_are_not_warned_of(large, capsys):
    figures = inspected(large.folder)
    assert figures["warnings"] == []
    for modality in figures["modalities"].values():
        assert modality["alignment"] == "aligned" and modality["alignment_lift"] > 2
    shown = capsys.readouterr().out
    assert shown.strip() == as_text(figures).strip()
    assert "warning" not in shown


def test_shuffled_features_are_warned_of(large, tmp_path, capsys):
    folder = tmp_path / "large"
    shutil.copytree(large.folder, folder)
    rows = np.random.default_rng(0).permutation(large.features["text"])
    np.save(folder / "text_feat.npy", rows)
    figures = inspected(folder)
    assert figures["modalities"]["image"]["alignment"] == "aligned"
    assert figures["modalities"]["text"]["alignment"] == "none"
    assert figures["modalities"]["text"]["alignment_lift"] < 1.3
    [warning] = figures["warnings"]
    assert warning.startswith("modality text: ")
    assert f"warning: {warning}" in capsys.readouterr().out


def test_a_data_set_without_modalities(tmp_path, capsys):
    figures = inspected(write_atomic(tmp_path / "data"))
    assert figures["modalities"] == {}
    assert "no modality" in capsys.readouterr().out


def test_page(large, tmp_path):
    folder = tmp_path / "a<b>"
    shutil.copytree(large.folder, folder)
    (folder / "large.inter").rename(folder / "a<b>.inter")
    inspected(folder, "--html=page.html")
    page = Path("page.html").read_text("utf-8")
    assert page.count("Plotly.newPlot(") >= 4
    assert "<h1>a&lt;b&gt;</h1>" in page and "a<b>" not in page.split("<script")[0]
    assert not re.search(r"<(script|img|link|iframe)[^>]*\s(src|href)=", page)
    assert not list(Path().glob(".page*"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: NAME"),
        (["planned"], "Did you mean 'planted'?"),
        (["planted", "--json=no/f.json"], "there is no folder [no]"),
        (["planted", "--html=."], "[.] is a folder"),
        (["planted", "--knn_q=3"], "unknown config key [knn_q]"),
    ],
)
def test_wrong_arguments(planted, arguments, message, capsys):
    assert run_command("inspect", *arguments, f"--data_path={planted.folder.parent}") == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not DATA, reason="RECBOLE_SIGREC_DATA names no folder of data sets")
@pytest.mark.parametrize("name, least", [("microlens", 3.0), ("baby", 1.8)])
def test_real_features_and_the_same_shuffled(name, least, tmp_path):
    for modality in inspected(Path(DATA) / name)["modalities"].values():
        assert modality["alignment"] == "aligned" and modality["alignment_lift"] > least
    folder = tmp_path / name
    folder.mkdir()
    for file in (Path(DATA) / name).iterdir():
        if file.name.endswith("_feat.npy"):
            rows = np.load(file, allow_pickle=False)
            np.save(folder / file.name, np.random.default_rng(0).permutation(rows))
        else:
            (folder / file.name).symlink_to(file)
    figures = inspected(folder)
    assert len(figures["warnings"]) == len(figures["modalities"]) == 2
    for modality in figures["modalities"].values():
        assert modality["alignment"] == "none" and modality["alignment_lift"] < 1.3
