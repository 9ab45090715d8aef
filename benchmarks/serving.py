"""How good a bundle is for users and items that were not trained, and how fast it serves.

    python benchmarks/serving.py --data DIR --datasets tiktok,baby --epochs 30 [--out FOLDER]
    python benchmarks/serving.py --speed BUNDLE

New users: 10 % of the users, drawn at random, are left out of the data; after training, their
training items are given as histories, and what is recommended is compared with their test items.
Their training and validation items are not recommended, and the ranking is of all items, as in the
evaluation of a model. The same users in a model that was trained with them, for as many epochs as
its best one has here, are the standard; ItemKNN and the most popular items get the same histories.

New items: 5 % of the items are left out and then added by their features. Counted are the users
with such an item in their test part: the recall of these items, among all items that were left out,
and in the whole ranking. ContentKNN knows their features, but no interactions of theirs; what it
gives no score comes in random order.

Data is in MMRec's layout, with its own split. Both parts also show the validation parts, by which
the ways of serving were chosen. With --folder, data and bundles are kept there, and a bundle that
is there is not trained again.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

import recbole_sigrec
from recbole_sigrec import Recommender
from recbole_sigrec.serving.output import write_recommendations

USERS, ITEMS = 0.1, 0.05  # shares that are left out
K = 20
TRAIN, VALID, TEST = 0, 1, 2
PARTS = {"valid": VALID, "test": TEST}


class Source:
    """A user's data set.

    Attributes:
        frame: user, item, part.
        features: modality → [n_items, d_m], by item number.
        users, items: which are left out, by number.
    """

    def __init__(self, folder: Path, seed: int):
        self.name = folder.name
        frame = pd.read_csv(folder / f"{folder.name}.inter", sep="\t")
        self.frame = frame.set_axis(["user", "item", "part"], axis=1)
        files = sorted(folder.glob("*_feat.npy"))
        self.features = {file.name.removesuffix("_feat.npy"): np.load(file) for file in files}
        rng = np.random.default_rng(seed)
        self.users, self.items = (
            np.sort(
                rng.choice(found := self.frame[column].unique(), int(share * len(found)), False)
            )
            for column, share in (("user", USERS), ("item", ITEMS))
        )
        self.n_users = 1 + self.frame["user"].max()
        self.n_items = len(next(iter(self.features.values())))

    def matrix(self, *parts: int) -> sp.csr_matrix:
        """The users' items of some parts, binary [n_users, n_items]."""
        pairs = self.frame[self.frame["part"].isin(parts)]
        data = np.ones(len(pairs), dtype=np.float32)
        shape = self.n_users, self.n_items
        return sp.csr_matrix((data, (pairs["user"], pairs["item"])), shape=shape)

    def write(self, folder: Path, kind: str) -> Path:
        """The data without what is left out: ``users``, ``items``, or ``all``, which has it all.

        ``content``: items that are left out have their interactions in the test part alone.
        """
        place = folder / kind / self.name
        if place.is_dir():
            return place.parent
        place.mkdir(parents=True)
        frame, new_items = self.frame.copy(), self.frame["item"].isin(self.items)
        if kind == "users":
            frame = frame[~frame["user"].isin(self.users)]
        elif kind == "items":
            frame = frame[~new_items]
        elif kind == "content":
            frame.loc[new_items, "part"] = TEST
        frame = frame.set_axis(["userID", "itemID", "x_label"], axis=1)
        frame.to_csv(place / f"{self.name}.inter", sep="\t", index=False)
        known = np.sort(frame["itemID"].unique())
        for name, rows in self.features.items():
            np.save(place / f"{name}_feat.npy", rows[known])
            np.save(place / f"{name}_ids.npy", known.astype(str))
        return place.parent


def bundle(
    source: Source, folder: Path, kind: str, model: str, saved: bool = True, **values: int
) -> tuple[Recommender, int]:
    """The bundle of a model that is trained on a kind of data, and how many epochs it had.

    Args:
        kind: see :meth:`Source.write`.
        saved: whether the best epoch is taken, not the last.
        values: of the config.
    """
    out = folder / f"{source.name}-{model}-{kind}.rec"
    result = out.with_suffix(".json")
    if not out.is_dir():
        settings = {
            "data_path": str(source.write(folder, kind)),
            "checkpoint_dir": str(folder / "checkpoints"),
            "graph_cache_dir": str(folder / "graphs"),
            **values,
            "threads": 1,
            "show_progress": False,
            "bundle": str(out),
            "result_file": str(result),
        }
        recbole_sigrec.run(model, source.name, config_dict=settings, saved=saved, command_line=())
    found = json.loads(result.read_text("utf-8"))
    return Recommender.load(out), found["best_epoch"] + 1 if saved else found["epochs"]


# ---- measures ------------------------------------------------------------------------------------


def measured(ranked: list[np.ndarray], wanted: list[np.ndarray]) -> dict[str, float]:
    """Recall and NDCG of rankings, as means over those who want something."""
    recall, ndcg = [], []
    discount = 1 / np.log2(np.arange(2, K + 2))
    for best, items in zip(ranked, wanted, strict=True):
        hits = np.isin(best[:K], items)
        recall.append(hits.sum() / len(items))
        ndcg.append(discount[: len(hits)][hits].sum() / discount[: len(items)].sum())
    return {f"Recall@{K}": float(np.mean(recall)), f"NDCG@{K}": float(np.mean(ndcg))}


def rows(matrix: sp.csr_matrix, users: np.ndarray) -> list[np.ndarray]:
    """The items of some users."""
    return [matrix[user].indices for user in users]


def ranked(recommender: Recommender, users=None, **how) -> list[np.ndarray]:
    """The best items of users or histories, as numbers."""
    return [items.astype(int) for items in recommender.rank(users, K, **how).items]


# ---- new users -----------------------------------------------------------------------------------


def new_users(source: Source, folder: Path, model: str, values: dict[str, int]) -> list[dict]:
    """A row of the table for each part and way."""
    without, best = bundle(source, folder, "users", model, **values)
    trained, _ = bundle(source, folder, "all", model, False, **{**values, "epochs": best})
    knn, _ = bundle(source, folder, "users", "ItemKNN")
    table = []
    for part in PARTS:
        users, histories, seen, wanted = asked(source, part)

        def folded(recommender: Recommender, histories=histories, seen=seen) -> list[np.ndarray]:
            known = [[i for i in h if str(i) in recommender.items.rows] for h in histories]
            left_out = {
                place: [i for i in s if str(i) in recommender.items.rows]
                for place, s in enumerate(seen)
            }
            return ranked(recommender, history=known, exclude=left_out, unknown="new")

        taken = dict(zip(map(str, users), seen))
        ways = {
            "trained with them": ranked(trained, users, exclude=taken),
            "new": folded(without),
            "ItemKNN": folded(knn),
            "popular": folded(without, [[]] * len(users)),
        }
        for way, found in ways.items():
            row = {"dataset": source.name, "model": model, "epochs": best, "part": part}
            table.append({**row, "users": len(users), "way": way, **measured(found, wanted)})
    return table


def asked(
    source: Source, part: str
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """The new users with items in a part: who, their histories, what they have seen, those items.

    Those without training items are not among them.
    """
    training, target = source.matrix(TRAIN), source.matrix(PARTS[part])
    before = source.matrix(*range(PARTS[part]))
    some = (np.diff(training.indptr) > 0) & (np.diff(target.indptr) > 0)
    users = source.users[some[source.users]]
    return users, rows(training, users), rows(before, users), rows(target, users)


# ---- new items -----------------------------------------------------------------------------------


def new_items(source: Source, folder: Path, model: str, values: dict[str, int]) -> list[dict]:
    """A row of the table for each part and way."""
    recommender, best = bundle(source, folder, "items", model, **values)
    content, _ = bundle(source, folder, "content", "ContentKNN")
    tokens = source.items.astype(str)
    before = {part: others(source, recommender, part) for part in PARTS}
    features = {name: rows[source.items] for name, rows in source.features.items()}
    recommender.add_items(tokens, features)
    table = []
    for part in PARTS:
        users, wanted = wanting(source, recommender, part)
        lot = np.random.default_rng(0)
        ways = {
            "added": ranked(recommender, users, candidates=tokens, exclude="none"),
            "ContentKNN": filled(content, users, source.items, lot),
            "random": [lot.permutation(source.items)[:K] for _ in users],
        }
        whole = {"added": recommender, "ContentKNN": content}
        for way, found in ways.items():
            row = {"dataset": source.name, "model": model, "epochs": best, "part": part}
            row |= {"users": len(users), "way": way, **measured(found, wanted)}
            if way in whole:
                row[f"whole ranking: Recall@{K}"], row["other items"] = (
                    measured(ranked(whole[way], users), wanted)[f"Recall@{K}"],
                    others(source, whole[way], part),
                )
            table.append({**row, "other items before": before[part]} if way == "added" else row)
    return table


def filled(
    recommender: Recommender, users: np.ndarray, items: np.ndarray, lot: np.random.Generator
) -> list[np.ndarray]:
    """The best of some items; those without a score in random order.

    Their order in the data set would tell how often they were taken.
    """
    found = recommender.rank(users, K, candidates=items.astype(str), exclude="none")
    best = [names[scores > 0].astype(int) for names, scores in zip(found.items, found.scores)]
    return [np.append(own, lot.permutation(np.setdiff1d(items, own)))[:K] for own in best]


def wanting(
    source: Source, recommender: Recommender, part: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The users with new items in a part, and these items.

    Interactions of new items in the training part are not trained with, and count as validation.
    """
    target = source.matrix(TEST) if part == "test" else source.matrix(TRAIN, VALID)
    keep = np.isin(np.arange(source.n_items), source.items)
    target = sp.csr_matrix(target @ sp.diags(keep.astype(np.float32)))
    target.eliminate_zeros()
    return _known(recommender, target)


def others(source: Source, recommender: Recommender, part: str) -> float:
    """The recall of trained items in the whole ranking, over all users."""
    keep = ~np.isin(np.arange(source.n_items), source.items)
    target = sp.csr_matrix(source.matrix(PARTS[part]) @ sp.diags(keep.astype(np.float32)))
    target.eliminate_zeros()
    users, wanted = _known(recommender, target)
    training = recommender.training[recommender.users.find(users)]
    taken = {
        str(user): recommender.items.names[training[place].indices]
        for place, user in enumerate(users)
    }
    found = ranked(recommender, users, exclude="seen" if part == "test" else taken)
    return measured(found, wanted)[f"Recall@{K}"]


def _known(recommender: Recommender, target: sp.csr_matrix) -> tuple[np.ndarray, list[np.ndarray]]:
    """The trained users who have something in a matrix, and what."""
    users = np.flatnonzero(np.diff(target.indptr))
    users = users[[str(user) in recommender.users.rows for user in users]]
    has = np.diff(recommender.training.indptr)[recommender.users.find(users)] > 0
    return users[has], rows(target, users[has])


# ---- speed ---------------------------------------------------------------------------------------


def resident(field: str) -> float:
    """A field of /proc/self/status, in MiB; Linux only."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def loading(path: Path) -> str:
    """Time and memory of a bundle that is read and has answered once."""
    before, started = resident("VmRSS"), time.perf_counter()
    recommender = Recommender.load(path)
    seconds = time.perf_counter() - started
    recommender.rank(recommender.users.names[:1])
    return f"{seconds:.2f} s, {resident('VmRSS') - before:.0f} MiB after one answer"


def one_user(path: Path, graph: bool) -> str:
    """The time of one user's 10 best items, as a median and the slowest of 20, of 200 users."""
    recommender = Recommender.load(path)
    if not graph:
        recommender.scorer = dataclasses.replace(recommender.scorer, graph=None)
    times = []
    for user in np.random.default_rng(0).choice(recommender.users.names, 220):
        started = time.perf_counter()
        recommender.rank(user)
        times.append(1000 * (time.perf_counter() - started))
    found = np.percentile(times[20:], (50, 95))  # the first ones warm up
    return "median {:.2f} ms, 95th percentile {:.2f} ms".format(*found)


def all_users(path: Path) -> str:
    """Time and peak memory of all users' 10 best items as a Parquet file."""
    recommender, started = Recommender.load(path), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        n = write_recommendations(recommender, Path(folder) / "all.parquet")
    seconds = time.perf_counter() - started
    return f"{n:,} users in {seconds:.1f} s, peak {resident('VmHWM'):.0f} MiB of the process"


MEASURES = {
    "load": loading,
    "one user": lambda path: one_user(path, graph=True),
    "one user, no item scores": lambda path: one_user(path, graph=False),
    "all users to Parquet": all_users,
}


def in_processes(path: Path) -> None:
    """Print the measures, each of a fresh process."""
    for name in MEASURES:
        command = [sys.executable, __file__, "--speed", str(path), "--measure", name]
        done = subprocess.run(command, capture_output=True, text=True)
        said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
        print(f"{name}: {said[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder with a folder for each data set")
    parser.add_argument("--datasets", default="tiktok,baby,microlens")
    parser.add_argument("--model", default="SIGRec")
    parser.add_argument("--no_item_scores", action="store_true", help="train without item scores")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="draws who and what is left out")
    parser.add_argument("--folder", type=Path, help="keep data and bundles there")
    parser.add_argument("--out", type=Path, help="write the tables there as CSV")
    parser.add_argument("--speed", type=Path, metavar="BUNDLE", help="measure this bundle's speed")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(MEASURES[options.measure](options.speed))
        return
    if options.speed:
        in_processes(options.speed)
        return
    if not options.data:
        parser.error("give --data or --speed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        values = {"epochs": options.epochs}
        if options.no_item_scores:
            values["item_score_weight"] = 0
        tables = {"new_users": [], "new_items": []}
        for name in options.datasets.split(","):
            source = Source(options.data / name, options.seed)
            given = source, folder, options.model, values
            tables["new_users"] += new_users(*given)
            if source.features:
                tables["new_items"] += new_items(*given)
    for title, found in tables.items():
        frame = pd.DataFrame(found)
        print(f"\n{title}\n{frame.round(4).to_string(index=False)}")
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            frame.to_csv(options.out / f"{title}.csv", index=False)


if __name__ == "__main__":
    main()
