"""A split by items: what is held out is never trained on; the figures among held-out items."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_sigrec import compare, load_data_and_model, run
from recbole_sigrec.cli import run_command

N_USERS, N_ITEMS, GROUPS = 30, 60, 3


@pytest.fixture
def planted_groups(tmp_path):
    """Users take half of the items of their group; an item's features are near its group's."""
    rng = np.random.default_rng(3)
    pairs = [
        (f"u{user}", f"i{item}")
        for user in range(N_USERS)
        for item in rng.permutation(np.arange(user % GROUPS, N_ITEMS, GROUPS))[:10]
    ]
    pd.DataFrame(pairs, columns=["u", "i"]).to_csv("t.csv", index=False)
    noise = rng.normal(scale=0.05, size=(N_ITEMS, GROUPS))  # or scores are equal
    np.save("image_feat.npy", np.eye(GROUPS)[np.arange(N_ITEMS) % GROUPS] + noise)
    (tmp_path / "image_ids.txt").write_text("\n".join(f"i{n}" for n in range(N_ITEMS)))
    return tmp_path


def made(folder, *more):
    told = ["t.csv", "--format=table", "--name=cold", "--user=u", "--item=i"]
    assert run_command("import", *told, "--features=image=image_feat.npy", *more) == 0
    frame = pd.read_csv(folder / "dataset" / "cold" / "cold.inter", sep="\t")
    return {part: rows for part, rows in frame.groupby("x_label")}


@pytest.mark.parametrize(
    ("ratios", "sizes"), [("8:1:1", (48, 6, 6)), ("6:0:4", (36, 0, 24)), ("98:1:1", (58, 1, 1))]
)
def test_items_are_divided(planted_groups, ratios, sizes):
    parts = made(planted_groups, "--split=cold-items", f"--ratios={ratios}")
    items = [set(parts[part]["itemID"]) if part in parts else set() for part in range(3)]
    assert tuple(map(len, items)) == sizes and len(set.union(*items)) == N_ITEMS
    assert sum(map(len, parts.values())) == 10 * N_USERS


def test_the_seed_decides_which(planted_groups):
    inter = planted_groups / "dataset" / "cold" / "cold.inter"
    found = set()
    for seed in (1, 1, 2):
        made(planted_groups, "--split=cold-items", f"--seed={seed}")
        found.add(inter.read_text())
        inter.parent.rename(
            inter.parent.with_name(f"cold{len(list(inter.parent.parent.iterdir()))}")
        )
    assert len(found) == 2


KEYS = {
    "data_path": "dataset",
    "topk": [3, 20],
    "valid_metric": "Recall@20",
    "metrics": ["Recall", "NDCG"],
    "state": "ERROR",
    "epochs": 2,
}


def by_hand(checkpoint, k):
    """(recall@k among all items, among held-out items), user by user, from the scores."""
    _, model, data, *loaders = load_data_and_model(checkpoint)
    train, valid, test = (
        {(int(u), int(i)) for u, i in zip(part.inter_feat["user_id"], part.inter_feat["item_id"])}
        for part in (loader.dataset for loader in loaders)
    )
    trained = {item for _, item in train}
    cold = [item for item in range(1, data.item_num) if item not in trained]
    found = [], []
    for user in sorted({user for user, _ in test}):
        with torch.no_grad():
            scores = model.full_sort_predict(Interaction({"user_id": torch.tensor([user])})).view(
                -1
            )
        scores = scores.numpy().copy()
        wanted = {item for u, item in test if u == user}
        for u, item in train | valid:
            if u == user:
                scores[item] = -np.inf
        for candidates, recalls in zip((range(1, data.item_num), cold), found):
            top = sorted(candidates, key=lambda item: (-scores[item], item))[:k]
            recalls.append(len(wanted & set(top)) / len(wanted))
    return [float(np.mean(recalls)) for recalls in found]


def test_content_finds_the_held_out_items(planted_groups):
    """A group has at most 12 held-out items, of which content ranks the user's group first."""
    parts = made(planted_groups, "--split=cold-items")
    result = run("ContentKNN", "cold", config_dict={**KEYS, "center": False, "knn_k": 60})
    of_group = parts[2].drop_duplicates("itemID")["itemID"].str[1:].astype(int) % GROUPS
    assert of_group.value_counts().max() <= 12
    test = result.test_result
    assert test["cold_recall@20"] == 1.0
    everywhere, cold = by_hand(result.checkpoint, 3)
    assert test["recall@3"] == pytest.approx(everywhere, abs=1e-5)
    assert test["cold_recall@3"] == pytest.approx(cold, abs=1e-5)
    assert 0 < everywhere < cold
    ids = run("ItemKNN", "cold", config_dict=KEYS).test_result  # it knows no item that is new
    assert ids["recall@3"] == 0.0 and ids["cold_recall@3"] < 1.0
    assert set(ids) == {
        f"{cold}{name}@{k}"
        for cold in ("", "cold_")
        for name in ("recall", "ndcg")
        for k in (3, 20)
    }


def test_a_part_with_trained_items_has_no_such_figures(planted_groups):
    made(planted_groups, "--split=random")
    result = run("ContentKNN", "cold", config_dict=KEYS)
    assert not [name for name in result.test_result if name.startswith("cold_")]


def test_compare_reports_them(planted_groups):
    made(planted_groups, "--split=cold-items")
    results = compare(["ContentKNN", "ItemKNN"], "cold", config_dict=KEYS, seeds=(1,), out="out")
    alone = run("ContentKNN", "cold", config_dict={**KEYS, "seed": 1}).test_result
    (table_row,) = (line for line in results.table.splitlines() if line.startswith("ContentKNN"))
    assert "cold_recall@20" in results.table and f"{alone['cold_recall@20']:.4f}" in table_row
    with open("out/results.csv", newline="") as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    assert float(rows["ContentKNN"]["cold_recall@20"]) == alone["cold_recall@20"]
    written = json.loads((planted_groups / "out" / "results.json").read_text())
    assert written["arms"][0]["mean"]["cold_ndcg@3"] == alone["cold_ndcg@3"]
    page = (planted_groups / "out" / "report.html").read_text("utf-8")
    assert "<th>cold_<wbr>recall@20</th>" in page
