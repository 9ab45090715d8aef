"""The commands that campaign.py disturbs, and running one in a process of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from campaign_originals import SMALL
from campaign_readers import repr_of
from tqdm import tqdm

END = 10
"""Seconds in which all processes of a command have ended after a signal."""

_TRAIN = ("--graph_cache_dir=graphs", "--knn_k=3", "--collab_knn_k=3", *SMALL)
_MANY = 3000  # rows of the tables that are encoded and imported
_NOBODY = 65534
_FORK = multiprocessing.get_context("fork")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A command, and what must be the same however often it was cut off.

    Attributes:
        arguments: what is given; called in the command's folder, for the paths that change.
        result: what it has made, in the command's folder.
        needs: patterns of the originals that it needs.
        jobs: whether it starts processes.
    """

    arguments: Callable[[], tuple[str, ...]]
    result: Callable[[], Any]
    needs: tuple[str, ...] = ("data/tiny/*",)
    jobs: bool = False


def _always(*arguments: str) -> Callable[[], tuple[str, ...]]:
    return lambda: arguments


def _run(*more: str) -> Callable[[], tuple[str, ...]]:
    """A run, which goes on from the last checkpoint that there is."""

    def arguments() -> tuple[str, ...]:
        last = sorted(Path("saved").glob("*.last.pth"), key=lambda path: path.stat().st_mtime_ns)
        resume = (f"--resume={last[-1]}",) if last else ()
        given = "--model=SIGRec", "--epochs=25", "--checkpoint_dir=saved", "--result_file=r.json"
        return ("run", *given, *_TRAIN, *more, *resume)

    return arguments


def _run_result() -> Any:
    from recbole_sigrec.training import checkpoint

    made = _without_times(json.loads(Path("r.json").read_text("utf-8")))
    state = checkpoint.load(json.loads(Path("r.json").read_text("utf-8"))["checkpoint"])
    return made, repr_of(state["state_dict"])


def _without_times(value: Any) -> Any:
    """A result without what depends on the machine's load, on where it was, and on the cut."""
    if isinstance(value, dict):
        free = ("seconds", "peak", "checkpoint", "resume", "path", "time", "config_hash", "hash")
        return {k: _without_times(v) for k, v in value.items() if not k.startswith(free)}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _compare_result() -> Any:
    results = json.loads(Path("comparison/results.json").read_text("utf-8"))
    for arm in results["arms"]:
        for figures in (arm["mean"], arm["std"]):
            for cost in ("seconds_per_epoch", "seconds_per_evaluation", "peak_rss_mb"):
                figures.pop(cost)
    kept = sorted(
        [run.name, *sorted("".join(file.suffixes[-2:]) for file in run.glob("*"))]
        for run in Path("comparison/runs").glob("*/")
    )
    return _without_times(results), Path("comparison/results.csv").read_text("utf-8"), kept


def _tune_result() -> Any:
    """The configurations that were tried and their scores; a number counts what was cut off."""
    import csv

    with open("tuning/trials.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] != "cut off"]
    for row in rows:
        for name in [n for n in row if n in ("trial", "number") or n.startswith("seconds")]:
            row.pop(name)
    best = Path("tuning/best.yaml").read_text("utf-8").splitlines()
    found = [line for line in best if not line.startswith("#")]
    return sorted(json.dumps(row) for row in rows), found


def files_in(*names: str) -> Callable[[], dict[str, str]]:
    """The hash of each file in folders, or of files, but for locks."""

    def result() -> dict[str, str]:
        paths = [path for name in names for path in (Path(name), *Path(name).rglob("*"))]
        files = sorted({path for path in paths if path.is_file() and path.suffix != ".lock"})
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return result


def write_many() -> None:
    """Tables and features whose encoding and import last a second, into the working directory."""
    rows = "".join(f"i{n},word{n % 89} word{n % 97} word{n % 83}\n" for n in range(_MANY))
    Path("many.csv").write_text("item,title\n" + rows, encoding="ascii")
    taken = (f"u{n % 701},i{(n * 7 + n // 701) % _MANY}\n" for n in range(20 * _MANY))
    Path("taken.csv").write_text("user,item\n" + "".join(taken), encoding="ascii")
    array = np.random.default_rng(0).normal(size=(_MANY, 64)).astype(np.float32)
    np.save("many.npy", array)
    Path("many.txt").write_text("".join(f"i{n}\n" for n in range(_MANY)), encoding="ascii")


_ENCODE = (
    *("encode", "text", "--items=many.csv", "--id_column=item", "--columns=title"),
    *("--model=tfidf", "--batch_size=32", "--out=text_feat.npy"),
)
_IMPORT = (
    *("import", "taken.csv", "--format=table", "--name=made", "--user=user", "--item=item"),
    "--features=image=many.npy,ids=many.txt",
)
_COMPARE = (
    *("compare", "--models=SIGRec,Pop", "--seeds=2", "--epochs=12", "--out=comparison", *_TRAIN),
)
_TUNE = ("tune", "--model=SIGRec", "--trials=3", "--epochs=6", "--out=tuning", *_TRAIN)
_RECOMMEND = "recommend", "shop.rec", "--k=5", "--out=top.csv"

SCENARIOS: dict[str, Scenario] = {
    "recommend": Scenario(_always(*_RECOMMEND), files_in("top.csv"), ("shop.rec/*",)),
    "export": Scenario(
        _always("export", "saved/best.pth", "--out=new.rec", "--data_path=data"),
        files_in("new.rec"),
        ("saved/best.pth", "data/tiny/*"),
    ),
    "encode": Scenario(
        _always(*_ENCODE),
        files_in("text_feat.npy", "text_ids.txt", "text_encoder.safetensors"),
        ("many.csv",),
    ),
    "import": Scenario(
        _always(*_IMPORT), files_in("dataset"), ("taken.csv", "many.npy", "many.txt")
    ),
    "run": Scenario(_run(), _run_result),
    "compare": Scenario(_always(*_COMPARE), _compare_result),
    "tune": Scenario(_always(*_TUNE), _tune_result),
    "compare --jobs=2": Scenario(_always(*_COMPARE, "--jobs=2"), _compare_result, jobs=True),
    "tune --jobs=2": Scenario(_always(*_TUNE, "--jobs=2"), _tune_result, jobs=True),
    "run --nproc=2": Scenario(_run("--nproc=2"), _run_result, jobs=True),
}
"""Name → scenario; all end by themselves, the quick ones first. ``serve`` is a case of its own."""

SERVE = "serve", "shop.rec", "--port=0"


def enter(folder: Path, originals: Path, needs: Iterable[str]) -> None:
    """Make a folder with copies of the originals the working directory."""
    for pattern in needs:
        for path in filter(Path.is_file, originals.glob(pattern)):
            copy = folder / path.relative_to(originals)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    (folder / "tmp").mkdir(parents=True)
    os.chdir(folder)


class Command:
    """A command at work, in a session of its own, in the working directory.

    Args:
        arguments: as for ``recbole-sigrec``.
        file_size: most bytes of a file; none given: no limit.
        as_nobody: whether it has no rights.
    """

    def __init__(
        self, arguments: tuple[str, ...], file_size: int | None = None, as_nobody: bool = False
    ):
        self.arguments = arguments
        handle, name = tempfile.mkstemp(suffix=".log")
        os.close(handle)
        self._log = Path(name)
        self._process = _FORK.Process(target=self._work, args=(file_size, as_nobody))
        self._process.start()

    def _work(self, file_size: int | None, as_nobody: bool) -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with open(self._log, "w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        os.environ["TMPDIR"], tempfile.tempdir = os.path.abspath("tmp"), None
        tqdm.set_lock(threading.RLock())  # its own is shared with processes that are killed
        multiprocessing.get_context = lambda method=None: _FORK  # workers without long imports
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        if as_nobody:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        from recbole_sigrec.cli import main

        sys.exit(main(list(self.arguments)))

    def wait(self, seconds: float) -> int | None:
        """The exit status; None where it has not ended by then."""
        self._process.join(max(0.0, seconds))
        return self._process.exitcode

    def signal(self, number: int) -> None:
        """Send a signal to the command's first process."""
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def log(self) -> str:
        """What it has written to stdout and stderr."""
        return self._log.read_text("utf-8", "replace")

    def left(self, seconds: float = END) -> list[str]:
        """The command lines of processes of its session that are there after some seconds.

        They are ended.
        """
        end = time.monotonic() + seconds
        while (found := self._session()) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        self._process.join()
        self._log.unlink(missing_ok=True)
        return list(found.values())

    def _session(self) -> dict[int, str]:
        """Process id → command line of what is alive in the session."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text("latin1").rpartition(")")[2].split()
                line = stat.with_name("cmdline").read_text("latin1").replace("\0", " ")
            except OSError:  # it has ended
                continue
            if int(fields[3]) == self._process.pid and fields[0] != "Z":
                found[int(stat.parent.name)] = line
        return found


def answer(port: int) -> str:
    """A list of the service."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/recommend/1?k=5", timeout=5) as got:
        return got.read().decode()


def temporary_files() -> list[str]:
    """What looks left over in the working directory."""
    endings = (".tmp", ".part", ".earlier", "-journal", "-wal")
    found = [path for path in Path().rglob("*") if path.name.endswith(endings)]
    found += [path for path in Path("tmp").iterdir() if "torchinductor" not in path.name]
    return [str(path) for path in found]
