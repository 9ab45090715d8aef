"""Files are written whole or not at all, and nothing of the user's is replaced that is no file."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_data import SMALL, write_mmrec

from recbole_sigrec import files
from recbole_sigrec.cli import main
from recbole_sigrec.errors import DataError, WriteError, write_error
from recbole_sigrec.files import place_written, write_json, write_text, written_whole

posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")


def set_back(path: Path, seconds: float) -> None:
    """Make a file one that was written so long ago."""
    os.utime(path, (time.time() - seconds,) * 2)


def temporary(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix == ".tmp")


# ---- what is no regular file ---------------------------------------------------------------------


def read_later(path: Path) -> tuple[threading.Thread, list[bytes]]:
    """A thread that reads a FIFO, as a program beside ours would."""
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    thread.start()
    return thread, found


@posix
def test_a_fifo_is_written_through(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader, found = read_later(fifo)
    write_text("a text", fifo)
    reader.join(60)
    assert found == [b"a text"] and fifo.is_fifo() and os.listdir(tmp_path) == ["fifo"]


@posix
def test_a_command_writes_to_a_fifo_and_through_a_link(tmp_path):
    write_mmrec(tmp_path / "data")
    os.mkfifo("fifo")
    Path("there").mkdir()
    Path("link").symlink_to("there/result.json")
    common = ["--data_path=data", *(f"--{key}={value}" for key, value in SMALL.items())]
    reader, found = read_later(Path("fifo"))
    assert main(["run", "--model=BPR", "--dataset=toy", "--result_file=fifo", *common]) == 0
    reader.join(60)
    assert main(["inspect", "toy", "--data_path=data", "--json=link"]) == 0
    assert json.loads(found[0])["model"] == "BPR"
    assert json.loads(Path("there/result.json").read_text("utf-8"))["dataset"] == "toy"
    assert Path("link").is_symlink() and Path("fifo").is_fifo()


@posix
@pytest.mark.parametrize("there", [True, False])
def test_the_target_of_a_link_is_replaced_beside_itself(tmp_path, there):
    place, link = tmp_path / "place", tmp_path / "link"
    place.mkdir()
    if there:
        (place / "target").write_text("earlier")
    link.symlink_to("place/target")
    with written_whole(link) as file:
        file.write(b"new")
        assert len(temporary(place)) == 1 and temporary(tmp_path) == []
        assert (place / "target").exists() == there
    assert link.is_symlink() and (place / "target").read_bytes() == b"new"
    assert temporary(place) == []


@posix
def test_a_device_is_written_through(tmp_path):
    """Through a link in a folder of our own: the machine's device is never at stake."""
    link = tmp_path / "link"
    link.symlink_to(os.devnull)
    write_text("a text", link)
    assert link.is_symlink() and Path(os.devnull).is_char_device()
    assert os.listdir(tmp_path) == ["link"]
    assert place_written(link) == link


@posix
def test_a_device_that_is_full_is_named(tmp_path):
    if not Path("/dev/full").is_char_device():
        pytest.skip("the system has no device that is always full")
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"link cannot be written: No space left on device"):
        write_text("a text", link)
    assert link.is_symlink() and Path("/dev/full").is_char_device()


@posix
@pytest.mark.parametrize("name", ["/dev/stdout", "out.txt"])
def test_what_output_goes_to_keeps_what_was_printed(tmp_path, name):
    """As with ``--json=/dev/stdout >> log.txt``."""
    if not Path("/dev/stdout").exists():
        pytest.skip("the system has no such link")
    program = (
        "import sys; from recbole_sigrec.files import write_text; print('before'); "
        "write_text('written\\n', sys.argv[1]); print('after')"
    )
    (tmp_path / "out.txt").write_text("earlier\n")
    with open(tmp_path / "out.txt", "a") as out:
        command = [sys.executable, "-c", program, name]
        subprocess.run(command, stdout=out, cwd=tmp_path, timeout=120, check=True)
    assert (tmp_path / "out.txt").read_text() == "earlier\nbefore\nwritten\nafter\n"


# ---- a full disk, a folder without rights --------------------------------------------------------


@contextlib.contextmanager
def small_disk():
    """No file may grow beyond 4096 bytes, as where the disk is full.

    Not for the time of a whole test: pytest's own output may go to a file.
    """
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "bytes": lambda file: file.write(bytes(100_000)),
    "torch": lambda file: torch.save({"a": torch.zeros(100_000)}, file),
    "savez": lambda file: np.savez(file, a=np.zeros(100_000), b=np.zeros(3)),
    "savez_compressed": lambda file: np.savez_compressed(
        file, a=np.random.default_rng(0).random(100_000), b=np.zeros(3)
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_with_the_file_and_leaves_nothing(writer, tmp_path):
    path = tmp_path / "name.bin"
    path.write_bytes(b"earlier")
    with pytest.raises(WriteError, match=r"name\.bin cannot be written: File too large") as caught:
        with small_disk(), written_whole(path) as file:
            WRITERS[writer](file)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert os.listdir(tmp_path) == ["name.bin"] and path.read_bytes() == b"earlier"


def test_the_error_passes_from_process_to_process(tmp_path):
    """Those of a pool and of a group are pickled."""
    error = write_error(tmp_path / "name", OSError(errno.ENOSPC, "No space left on device"))
    passed = pickle.loads(pickle.dumps(error))
    assert type(passed) is WriteError and str(passed) == str(error)


def test_the_error_passes_from_a_worker_of_dask(tmp_path):
    """Once Dask is imported, this makes what is pickled of an error."""
    tblib = pytest.importorskip("tblib.pickling_support")
    error = write_error(tmp_path / "name", OSError(errno.ENOSPC, "No space left on device"))
    make, parts = tblib.pickle_exception(error)[:2]
    passed = make(*parts)
    assert type(passed) is WriteError and str(passed) == str(error)


def test_a_disk_that_is_full_when_the_file_is_closed(tmp_path):
    """What Python holds in memory until then."""
    with pytest.raises(WriteError, match=r"name cannot be written: File too large"):
        with small_disk(), written_whole(tmp_path / "name") as file:
            file.write(bytes(4000))
            file.write(bytes(4000))
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_on_a_full_disk(tmp_path, capsys):
    write_mmrec(tmp_path / "data")
    values = {**SMALL, "data_path": "data", "checkpoint_dir": "c", "embedding_size": 64}
    arguments = [f"--{key}={value}" for key, value in {**values, "state": "ERROR"}.items()]
    with small_disk():
        status = main(["run", "--model=BPR", "--dataset=toy", *arguments])
    said = capsys.readouterr().err
    assert status == 2
    assert "error:" in said and ".pth cannot be written: File too large" in said
    assert os.listdir("c") == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none/name", "none/name cannot be written: No such file or directory"),
        ("file/name", "file/name cannot be written: Not a directory"),
        ("folder", "folder cannot be written: Is a directory"),
    ],
)
@posix
def test_a_place_that_is_none(tmp_path, name, says):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match=says):
        write_json({}, name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_folder_that_may_be_written_but_not_listed(tmp_path, monkeypatch):
    """Of mode 333; the system lists every folder for root."""

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", refused)
        write_text("a text", tmp_path / "name")
    assert (tmp_path / "name").read_text() == "a text"


def test_other_errors_of_the_block_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="other"), written_whole(tmp_path / "name"):
        open(tmp_path / "other")
    with pytest.raises(DataError, match=r"^the data$"), written_whole(tmp_path / "name"):
        raise DataError("the data")
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "name"):
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []


def test_what_was_handled_before_the_block_is_no_error_of_writing(tmp_path):
    outer = OSError(errno.EIO, "outer trouble")
    try:
        raise outer
    except OSError:
        with pytest.raises(KeyError), written_whole(tmp_path / "name"):
            {}.pop("inner")
        with pytest.raises(OSError, match="outer trouble") as caught, written_whole("name"):
            raise
        assert caught.value is outer
        with pytest.raises(WriteError, match="name cannot be written: No space left on device"):
            with written_whole(tmp_path / "name"):
                try:
                    raise OSError(errno.ENOSPC, "No space left on device")
                except OSError:
                    raise RuntimeError("as PyTorch does") from None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [TimeoutError, BrokenPipeError, InterruptedError])
def test_errors_of_a_network_and_of_signals_are_none_of_writing(tmp_path, kind):
    with pytest.raises(kind) as caught, written_whole(tmp_path / "name"):
        raise kind
    assert type(caught.value) is kind and os.listdir(tmp_path) == []


@posix
def test_a_fifo_whose_reader_goes_cannot_be_written(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    threading.Thread(target=lambda: open(fifo, "rb").close(), daemon=True).start()
    with pytest.raises(WriteError, match=r"fifo cannot be written: Broken pipe"):
        with written_whole(fifo) as file:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                file.write(bytes(100))
                file.flush()


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_text("", tmp_path / "name")
    finally:
        os.umask(before)
    assert (tmp_path / "name").stat().st_mode & 0o777 == mode


# ---- what killed processes leave -----------------------------------------------------------------


def _write_and_wait(path):
    with written_whole(path) as file:
        file.write(b"half")
        file.flush()
        time.sleep(600)


@posix
def test_files_of_dead_processes_are_removed_and_those_of_others_stay(tmp_path):
    """… whatever their processes' numbers: one that lives is known by its lock alone."""
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_write_and_wait, args=(tmp_path / "a",)) for _ in range(2)]
    names: list[str] = []
    for child in children:
        child.start()
        deadline = time.monotonic() + 60
        while len(parts := temporary(tmp_path)) <= len(names):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        names += [name for name in parts if name not in names]
    foreign = [".name.4711.tmp", ".recbole_sigrec-0123.tmp", "x.tmp", f"{names[0]}.tmp"]
    for name in foreign:
        (tmp_path / name).write_text("the user's")
    for name in (*names, *foreign):
        set_back(tmp_path / name, 90_000)
    write_text("", tmp_path / "b")
    assert temporary(tmp_path) == sorted([*names, *foreign])  # both live
    os.kill(children[0].pid, signal.SIGKILL)
    children[0].join()
    write_text("", tmp_path / "b")
    assert temporary(tmp_path) == sorted([names[1], *foreign])
    children[1].kill()
    children[1].join()
    write_text("", tmp_path / "b")
    assert temporary(tmp_path) == sorted(foreign)
    assert not (tmp_path / "a").exists()


@posix
def test_a_link_that_is_called_so_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("the user's")
    set_back(tmp_path / "mine", 90_000)
    (tmp_path / f".recbole_sigrec-{'0' * 16}.tmp").symlink_to("mine")
    write_text("", tmp_path / "b")
    assert (tmp_path / "mine").read_text() == "the user's"


@posix
def test_many_writers_in_one_folder_lose_nothing(tmp_path):
    """Each looks for abandoned files while others have just made theirs."""
    fork = multiprocessing.get_context("fork")

    def write(number):
        for turn in range(200):
            write_text(str(turn), tmp_path / str(number))

    children = [fork.Process(target=write, args=(number,)) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * 4
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2", "3"]
    assert {(tmp_path / str(number)).read_text() for number in range(4)} == {"199"}


@posix
def test_a_file_that_was_written_in_the_last_minute_stays(tmp_path):
    """Its writer may be on another host, which keeps its locks to itself."""
    old, new = (tmp_path / f".recbole_sigrec-{digit * 16}.tmp" for digit in "01")
    for part, seconds in ((old, 70), (new, 40)):
        part.touch()
        set_back(part, seconds)
    write_text("a text", tmp_path / "name")
    assert temporary(tmp_path) == [new.name]


@pytest.mark.parametrize("system", ["Windows", "a file system without locks"])
def test_without_locks_the_files_of_the_last_day_stay(tmp_path, monkeypatch, system):
    if system == "Windows":
        monkeypatch.setattr(files, "fcntl", None)
    else:

        def no_locks(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", no_locks)
    old, new = (tmp_path / f".recbole_sigrec-{digit * 16}.tmp" for digit in "01")
    for part, seconds in ((old, 90_000), (new, 80_000)):
        part.touch()
        set_back(part, seconds)
    write_text("a text", tmp_path / "name")
    assert (tmp_path / "name").read_text() == "a text"
    assert temporary(tmp_path) == [new.name]


# ---- a name that no other file may have ----------------------------------------------------------


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_replaces_none(tmp_path, monkeypatch, links):
    if not links:  # as on some network drives

        def no_links(*_):
            raise OSError(errno.ENOTSUP, "Operation not supported")

        monkeypatch.setattr("os.link", no_links)
    path = tmp_path / "name"
    with written_whole(path, new=True) as file:
        file.write(b"first")
        assert not path.exists()  # a kill here leaves no empty file
    with pytest.raises(DataError, match=r"name is there already, and is not overwritten"):
        with written_whole(path, new=True) as file:
            file.write(b"second")
    assert os.listdir(tmp_path) == ["name"] and path.read_bytes() == b"first"
