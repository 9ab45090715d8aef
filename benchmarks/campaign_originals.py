"""The real files that campaign.py mutates, and the small data sets of the commands that it kills.

All is made by the commands themselves, in the working directory, and small: a command takes a
fraction of a second where the libraries are in memory already.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

N_USERS, N_ITEMS, LABELS = 24, 20, (0, 0, 0, 0, 1, 2)

SMALL = (
    *("--data_path=data", "--dataset=tiny", "--embedding_size=4", "--topk=[5,20]"),
    *("--train_batch_size=64", "--use_gpu=False", "--gpu_id=", "--show_progress=False"),
    *("--threads=1", "--state=ERROR"),
)
"""Arguments with which a model trains in no time."""

TABLE = ("--format=table", "--name=made", "--user=user", "--item=item")

COMPARE = ("compare", "--models=ContentKNN,Pop", "--seeds=1", "--out=comparison", *SMALL)
TUNE = (
    *("tune", "--model=ContentKNN", "--out=tuning", "--trials=2"),
    *("--params_file=space.params", *SMALL),
)


def command(*arguments: str) -> None:
    """Run a command of ``recbole-sigrec`` in this process, which must succeed."""
    from recbole_sigrec.cli import main

    status = main(list(arguments))
    if status != 0:
        raise RuntimeError(f"{' '.join(arguments)} ended with {status}")


def write_originals() -> None:
    """Everything, into the working directory."""
    _write_data()
    _write_tables()
    _write_other_layouts()
    command("run", "--model=SIGRec", "--epochs=2", "--checkpoint_dir=saved", *SMALL, *GRAPHS)
    (checkpoint,) = (p for p in Path("saved").glob("*.pth") if not p.name.endswith(".last.pth"))
    (last,) = Path("saved").glob("*.last.pth")
    checkpoint.rename("saved/best.pth")
    last.rename("saved/begun.last.pth")
    items = ("--items=items.csv", "--id_column=item", "--columns=title")
    command("export", "saved/best.pth", "--out=shop.rec", "--data_path=data", *items)
    text = ("--items=items.csv", "--id_column=item", "--columns=title", "--model=tfidf")
    command("encode", "text", *text, "--out=like_feat.npy")
    kept_graph()
    command(*COMPARE)
    Path("space.params").write_text("knn_k choice [3,5,10]\ncenter choice [True,False]\n")
    Path("space.yaml").write_text("search_space:\n  knn_k: [3, 5]\n  learning_rate: [1.0e-3]\n")
    command(*TUNE)
    command(*VECTORS)
    head = "# The best values of models on tiny, for --config_files\n"
    Path("models.yaml").write_text(
        head + "model_defaults: {SIGRec: {knn_k: 5}, BM3: {epochs: 3}}\n"
    )
    _begin_encoding()
    for folder in ("log", "log_tensorboard"):
        shutil.rmtree(folder, ignore_errors=True)


VECTORS = "export", "shop.rec", "--to=parquet", "--out=vectors", "--force"
ENCODE = (
    *("encode", "text", "--items=named.csv", "--id_column=item", "--columns=title"),
    *("--model=tfidf", "--batch_size=4", "--out=begun_feat.npy"),
)
GRAPHS = ("--graph_cache_dir=graphs", "--knn_k=3", "--collab_knn_k=3")


def pairs() -> list[tuple[int, int, int]]:
    """(user, item, part): 4 items for training, 1 for validation, 1 for the test."""
    return [
        (user, (user + 3 * n) % N_ITEMS, label)
        for user in range(N_USERS)
        for n, label in enumerate(LABELS)
    ]


def features(seed: int) -> np.ndarray:
    """A random matrix, float32 [N_ITEMS, 6]."""
    return np.random.default_rng(seed).normal(size=(N_ITEMS, 6)).astype(np.float32)


def _begin_encoding() -> None:
    """What ``ENCODE`` leaves where it is killed after the second block of rows."""
    from recbole_sigrec.encode import store, text

    def work() -> None:
        text.TfidfTexts.size = 4
        write, blocks = store._write, []

        def cut_off(*arguments: Any) -> None:
            write(*arguments)
            blocks.append(arguments)
            if len(blocks) == 3:
                os._exit(0)

        store._write = cut_off
        command(*ENCODE)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()


def kept_graph() -> sp.csr_matrix:
    """A small graph, from the cache in the folder ``kept`` or put there."""
    from recbole_sigrec.graph.cache import cached_graph

    rows = features(0)
    return cached_graph(
        "kept", "semantic", {"x": rows}, {"k": 6}, lambda: sp.csr_matrix(rows @ rows.T)
    )


def _write_data() -> None:
    """``data/tiny`` in MMRec's layout, ``data/atomic`` in RecBole's."""
    for name in ("tiny", "atomic"):
        Path("data", name).mkdir(parents=True)
    rows = "".join(f"{user}\t{item}\t{label}\n" for user, item, label in pairs())
    Path("data/tiny/tiny.inter").write_text("userID\titemID\tx_label\n" + rows)
    Path("data/tiny/image_ids.txt").write_text("".join(f"{n}\n" for n in range(N_ITEMS)))
    rows = "".join(f"u{user}\ti{item}\t{5 - n % 3}.0\t{n}\n" for n, (user, item, _) in _numbered())
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    Path("data/atomic/atomic.inter").write_text(head + rows)
    rows = "".join(f"i{n}\tword{n % 5} other{n % 3}\tkind{n % 4}\n" for n in range(N_ITEMS))
    head = "item_id:token\ttitle:token_seq\tkind:token\n"
    Path("data/atomic/atomic.item").write_text(head + rows)
    for seed, modality in enumerate(("image", "text")):
        np.save(f"data/tiny/{modality}_feat.npy", features(seed))
    Path("config.yaml").write_text(_CONFIG)


def _numbered():
    return enumerate(pairs())


def _write_tables() -> None:
    """Tables of interactions and of items, features, ids, users and requests."""
    import pyarrow as arrow
    from pyarrow import parquet
    from safetensors.numpy import save_file

    records = [
        {"user": f"u{user}", "item": f"i{item}", "rating": 5 - n % 3, "time": n, "part": label}
        for n, (user, item, label) in _numbered()
    ]
    lines = [",".join(records[0]), *(",".join(map(str, r.values())) for r in records)]
    Path("t.csv").write_text("\n".join(lines) + "\n")
    Path("t.tsv").write_text("\n".join(lines).replace(",", "\t") + "\n")
    Path("t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    Path("t.csv.gz").write_bytes(gzip.compress(Path("t.csv").read_bytes(), mtime=0))
    Path("t.jsonl.gz").write_bytes(gzip.compress(Path("t.jsonl").read_bytes(), mtime=0))
    parquet.write_table(arrow.Table.from_pylist(records), "t.parquet")
    rows = "".join(f"i{n},title {n % 7} word{n % 5},A picture {n}.\n" for n in range(N_ITEMS))
    Path("named.csv").write_text("item,title,text\n" + rows)
    rows = "".join(f"{n},title {n % 7} word{n % 5},A picture {n}.\n" for n in range(N_ITEMS))
    Path("items.csv").write_text("item,title,text\n" + rows)
    np.savez("f.npz", features=features(3))
    np.save("f.npy", features(3))
    save_file({"features": features(3)}, "f.safetensors")
    Path("ids.txt").write_text("".join(f"i{n}\n" for n in range(N_ITEMS)))
    Path("ids.csv").write_text("item_id\n" + "".join(f"i{n}\n" for n in range(N_ITEMS)))
    np.save("ids.npy", np.array([f"i{n}" for n in range(N_ITEMS)]))
    Path("users.txt").write_text("".join(f"{n}\n" for n in range(N_USERS)))
    Path("requests").mkdir()
    for name, body in _REQUESTS.items():
        Path(f"requests/{name}.json").write_text(json.dumps(body))
    Path("requests/paths.txt").write_text("\n".join(_PATHS) + "\n")
    Path("values.txt").write_text("\n".join(_VALUES) + "\n")
    with contextlib.suppress(ImportError):
        from PIL import Image

        image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
        for ending in ("png", "jpg", "gif", "webp", "bmp", "tiff"):
            image.save(f"picture.{ending}")


def _write_other_layouts() -> None:
    """``lattice`` and ``mmssl``: folders of other toolboxes."""
    for folder in ("lattice", "mmssl"):
        os.mkdir(folder)
        np.save(f"{folder}/image_feat.npy", features(0))
    for label, (name, other) in enumerate((("train", "trn"), ("val", "val"), ("test", "tst"))):
        own = [(user, item) for user, item, part in pairs() if part == label]
        lists = {str(u): [item for user, item in own if user == u] for u in range(N_USERS)}
        Path(f"lattice/{name}.json").write_text(json.dumps(lists))
        users, items = zip(*own)
        matrix = sp.coo_matrix((np.ones(len(own)), (users, items)), (N_USERS, N_ITEMS))
        kind = {"trn": sp.csr_matrix, "val": sp.coo_matrix, "tst": sp.csc_matrix}[other]
        Path(f"mmssl/{other}Mat.pkl").write_bytes(pickle.dumps(kind(matrix), 2 + label))


_REQUESTS = {
    "recommend": {
        **{"users": ["1", "2"], "k": 5, "exclude": "seen", "diversity": 0.3, "unknown": "new"},
        **{"candidates": ["1", "2", "3"], "where": {"title": ["title 1 word1", None]}},
    },
    "recommend-new": {"histories": [["1", "2"], []], "k": 3, "unknown": "new"},
    "explain": {"user": "1", "items": ["2", "3"]},
    "explain-new": {"history": ["1", "4"], "items": ["2", "3"]},
    "page-view": {"user": "1", "history": ["1"]},
}
_PATHS = (
    *("/recommend/1?k=3&exclude=none", "/similar/3?k=4&by=content", "/similar/3?by=image"),
    *("/page/users?search=1", "/page/items?search=title", "/page/similar?item=3", "/health"),
    *("/metrics", "/page/about", "/", "/docs"),
)
_VALUES = (
    *("--topk=[5,10]", "--learning_rate=1e-3", "--metrics=[Recall,NDCG]", "--valid_metric=NDCG@5"),
    *("--eval_args={split: {RS: [8,1,1]}, group_by: user, order: RO, mode: full}", "--seed=3"),
    *("--train_neg_sample_args={distribution: uniform, sample_num: 2}", "--modalities=[image]"),
    *("--item_modalities={text: {columns: [title], encoder: tfidf}}", "--knn_k=4", "--epochs=3"),
)
_CONFIG = """\
epochs: 3
learning_rate: 1e-3
topk: [5, 10]
metrics: [Recall, NDCG]
valid_metric: NDCG@5
seed: 7
modalities: [image, text]
knn_k: 4
eval_args: {split: {RS: [8, 1, 1]}, group_by: user, order: RO, mode: full}
train_neg_sample_args: {distribution: uniform, sample_num: 1}
model_defaults: {SIGRec: {embedding_size: 8}}
missing_modality: mean
data_path: data
checkpoint_dir: saved
"""
