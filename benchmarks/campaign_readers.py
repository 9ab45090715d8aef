"""The readers of files that campaign.py feeds with mutated files.

A reader is called in a folder that holds the original files, one of which is mutated. It returns
what it read, or the exit status 2 of a command that has refused it; refusing may raise
``SIGRecError``. Anything else that it raises is a finding.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from campaign_originals import (
    COMPARE,
    ENCODE,
    GRAPHS,
    SMALL,
    TABLE,
    TUNE,
    VECTORS,
    kept_graph,
)

REFUSED = "refused"


@dataclasses.dataclass(frozen=True)
class Reader:
    """What reads files.

    Attributes:
        files: patterns of the files that are mutated, in the folder of the originals.
        read: reads them; see the module's text.
        needs: patterns of the other files that it needs.
        hashed: whether the files carry a hash, so that what is accepted must be what was written.
    """

    files: tuple[str, ...]
    read: Callable[[], Any]
    needs: tuple[str, ...] = ()
    hashed: bool = False


def _command(*arguments: str, result: str | None = None) -> Callable[[], Any]:
    """A command, whose result is the content of a file."""

    def read() -> Any:
        from recbole_sigrec.cli import main

        status = main(list(arguments))
        if status == 2:
            return REFUSED
        if status != 0:
            raise RuntimeError(f"exit status {status}")
        return result and Path(result).read_bytes()

    return read


def _imported(file: str, *more: str) -> Callable[[], Any]:
    return _command("import", file, *TABLE, *more)


def _of_folder(kind: str) -> Callable[[], Any]:
    return _command("import", kind, f"--format={kind}", "--name=made")


def _data(name: str, **values: Any) -> None:
    """A data set and its parts."""
    from recbole_sigrec import Config
    from recbole_sigrec.data.parts import create_dataset, data_preparation

    small = {"data_path": "data", "topk": [5, 20], "use_gpu": False, "gpu_id": ""}
    config = Config("SIGRec", name, config_dict={**small, "state": "ERROR", **values})
    data_preparation(config, create_dataset(config))


def _config() -> None:
    from recbole_sigrec import Config

    Config("SIGRec", "tiny", config_file_list=["config.yaml"])


def _values() -> None:
    """Each line is an argument of the command line."""
    from recbole_sigrec import Config

    lines = Path("values.txt").read_text("utf-8", "replace").split("\n")
    Config(
        "SIGRec", "atomic", config_dict={"data_path": "data"}, command_line=[*filter(None, lines)]
    )


def _space(file: str) -> None:
    from recbole_sigrec.comparison.arms import Arm, Setting
    from recbole_sigrec.tuning.space import check_space, read_space

    setting = Setting("tiny", (), {"data_path": "data"})
    arm = Arm("tuned", "ContentKNN" if file.endswith("params") else "SIGRec")
    check_space(*read_space("SIGRec", file), lambda values: setting.config(arm, **values))


def _models() -> None:
    from recbole_sigrec.tuning.outputs import read_models

    read_models(Path(), "tiny")


def _checkpoint() -> Any:
    """Every number and text that a checkpoint holds."""
    from recbole_sigrec.training import checkpoint
    from recbole_sigrec.training.load import load_data_and_model

    load_data_and_model("saved/best.pth", data_path="data")
    return repr_of(checkpoint.load("saved/best.pth"))


def repr_of(value: Any) -> str:
    """A text that differs where tensors, arrays or plain values do."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {repr_of(value[key])}' for key in sorted(value))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(repr_of, value))}]"
    if hasattr(value, "numpy"):
        value = value.numpy()
    if hasattr(value, "tobytes"):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    return repr(value)


def _bundle() -> Any:
    """A bundle's lists and explanations, of users and of a history."""
    from recbole_sigrec.serving.recommender import Recommender

    shop = Recommender.load("shop.rec")
    lists = shop.recommend(shop.users.names[:3], k=3)
    new = shop.recommend(history=[shop.items.names[:2]], k=3)
    similar = shop.similar(shop.items.names[0], 3)
    why = shop.explain(shop.users.names[0], shop.items.names[:2])
    return "\n".join(table.to_csv() for table in (lists, new, similar, why))


def _resealed_bundle() -> Any:
    """A bundle whose hashes fit its files, whatever these hold: that of a stranger."""
    from recbole_sigrec.files import sha256

    manifest = Path("shop.rec/manifest.json")
    with contextlib.suppress(Exception):  # the manifest is no manifest any more
        held = json.loads(manifest.read_bytes())
        held["files"] = {name: sha256(Path("shop.rec", name)) for name in held["files"]}
        manifest.write_text(json.dumps(held))
    Path("shop.rec/manifest.sha256").write_text(sha256(manifest))
    return _bundle()


def _graph() -> Any:
    """A graph from the cache, or built anew where its file is not as it was written."""
    return repr_of(kept_graph().toarray())


def _encoder() -> Any:
    from recbole_sigrec.encode import encode_text

    return repr_of(encode_text(["title 1 word1 A", "picture"], like="like_feat.npy"))


def _pictures() -> None:
    from recbole_sigrec.encode.images import read_image

    for path in Path().glob("picture.*"):
        read_image(path)


@functools.cache
def _service() -> Any:
    from recbole_sigrec.service.app import create_app
    from recbole_sigrec.service.live import Live

    return create_app(Live("shop.rec")), asyncio.new_event_loop()


def _request(method: str, path: bytes, body: bytes = b"") -> int:
    """The status of an answer; an error of the service's own is raised."""
    app, loop = _service()
    path, _, query = path.partition(b"?")
    sent: list[dict[str, Any]] = []
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method},
        **{"path": unquote(path.decode("latin1"), errors="replace"), "raw_path": path},
        **{"query_string": query, "root_path": "", "scheme": "http", "server": ("a", 80)},
        "headers": [(b"content-type", b"application/json"), (b"host", b"a")],
        "client": ("127.0.0.1", 1),
    }
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive() -> dict[str, Any]:
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    loop.run_until_complete(app(scope, receive, send))
    status = sent[0]["status"]
    if status >= 500:
        raise RuntimeError(f"{method} {path!r} is answered by {status}")
    return status


def _bodies() -> Any:
    for file in sorted(Path("requests").glob("*.json")):
        path = "/" + file.stem.removesuffix("-new").replace("-", "/")
        if _request("POST", path.encode(), file.read_bytes()) >= 400:
            return REFUSED
    return None


def _paths() -> Any:
    for line in Path("requests/paths.txt").read_bytes().split(b"\n"):
        if line and _request("GET", line) >= 400:
            return REFUSED
    return None


_FEATURES = ("f.npy", "f.npz", "f.safetensors")
_ITEMS = ("--id_column=item", "--columns=title", "--model=tfidf", "--out=new_feat.npy")
_TINY = ("data/tiny/*",)
_RATED = ("--rating=rating", "--min_rating=3", "--split_column=part", "--split=given")
_TIMED = ("--timestamp=time", "--split=temporal")

READERS: dict[str, Reader] = {
    "config file": Reader(("config.yaml",), _config, _TINY),
    "config values": Reader(("values.txt",), _values, ("data/atomic/*",)),
    "interactions": Reader(("data/tiny/tiny.inter",), lambda: _data("tiny"), _TINY),
    "atomic files": Reader(
        ("data/atomic/*",),
        lambda: _data(
            "atomic",
            item_modalities={"text": {"columns": ["title"]}},
            load_col=None,
            val_interval=None,
        ),
    ),
    "features": Reader(("data/tiny/*_feat.npy",), lambda: _data("tiny"), _TINY),
    "import csv": Reader(("t.csv",), _imported("t.csv", *_TIMED)),
    "import tsv": Reader(("t.tsv",), _imported("t.tsv", *_RATED)),
    "import jsonl": Reader(("t.jsonl",), _imported("t.jsonl", *_TIMED)),
    "import csv.gz": Reader(("t.csv.gz",), _imported("t.csv.gz", *_RATED)),
    "import jsonl.gz": Reader(("t.jsonl.gz",), _imported("t.jsonl.gz", *_TIMED)),
    "import parquet": Reader(("t.parquet",), _imported("t.parquet", *_TIMED)),
    "import lattice": Reader(("lattice/*",), _of_folder("lattice")),
    "import mmssl": Reader(("mmssl/*.pkl",), _of_folder("mmssl"), ("mmssl/*",)),
    **{
        f"import {file}": Reader(
            (file,),
            _imported("t.csv", f"--features=image={file},ids=ids.txt"),
            ("t.csv", "ids.txt"),
        )
        for file in _FEATURES
    },
    **{
        f"import {file}": Reader(
            (file,), _imported("t.csv", f"--features=image=f.npy,ids={file}"), ("t.csv", "f.npy")
        )
        for file in ("ids.txt", "ids.csv", "ids.npy")
    },
    "encode text": Reader(("named.csv",), _command("encode", "text", "--items=named.csv", *_ITEMS)),
    "begun encoding": Reader(
        (".begun_feat.npy.part/rows.npy", ".begun_feat.npy.part/progress.json"),
        _command(*ENCODE, result="begun_feat.npy"),
        ("named.csv",),
        hashed=True,
    ),
    "encoder": Reader(("like_encoder.safetensors",), _encoder, ("like_*",)),
    "pictures": Reader(("picture.*",), _pictures),
    "checkpoint": Reader(("saved/best.pth",), _checkpoint, _TINY),  # torch.save may change one
    "resumed run": Reader(
        ("saved/begun.last.pth",),
        _command(
            *("run", "--model=SIGRec", "--epochs=2", "--checkpoint_dir=saved2", *SMALL, *GRAPHS),
            "--resume=saved/begun.last.pth",
        ),
        _TINY,
    ),
    "items of export": Reader(
        ("items.csv",),
        _command(
            *("export", "saved/best.pth", "--out=new.rec", "--data_path=data"),
            *("--items=items.csv", "--id_column=item", "--columns=title"),
        ),
        ("saved/best.pth", *_TINY),
    ),
    "bundle": Reader(("shop.rec/*",), _bundle, hashed=True),
    "bundle of a stranger": Reader(("shop.rec/*",), _resealed_bundle),
    "earlier vectors": Reader(("vectors/*.json",), _command(*VECTORS), ("vectors/*", "shop.rec/*")),
    "users of recommend": Reader(
        ("users.txt",),
        _command("recommend", "shop.rec", "--users=users.txt", "--k=3", "--out=top.csv"),
        ("shop.rec/*",),
    ),
    "request bodies": Reader(("requests/*.json",), _bodies, ("shop.rec/*",)),
    "request paths": Reader(("requests/paths.txt",), _paths, ("shop.rec/*",)),
    "cached graphs": Reader(("kept/*.npz",), _graph, hashed=True),
    "runs of a comparison": Reader(
        ("comparison/runs/*.json", "comparison/runs/*.npz"),
        _command(*COMPARE, result="comparison/results.csv"),
        ("comparison/**/*", *_TINY),
        hashed=True,
    ),
    "record of a comparison": Reader(
        ("comparison/comparison.json",),
        _command(*COMPARE, result="comparison/results.csv"),
        ("comparison/**/*", *_TINY),
        hashed=True,
    ),
    "study": Reader(
        ("tuning/study.db",),
        _command(*TUNE, result="tuning/best.yaml"),
        ("space.params", "tuning/*", *_TINY),
        hashed=True,
    ),
    "models file": Reader(("models.yaml",), _models),
    "search space yaml": Reader(("space.yaml",), lambda: _space("space.yaml")),
    "search space lines": Reader(("space.params",), lambda: _space("space.params")),
}
"""Name → reader."""
