"""Files that are whole or not there, and locks between processes."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from recbole_sigrec.errors import DataError, SIGRecError, write_error
from recbole_sigrec.json_object import jsonable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # pyright: ignore[reportAssignmentType]

_PART = re.compile(r"\.recbole_sigrec-[0-9a-f]{16}\.tmp")

_QUIET = 60  # seconds since the last write of a file that nobody has locked and that is abandoned

_DAY = 86400  # … where there are no locks

_FORCE = ", or replace it with --force (in Python: force=True)"


@contextlib.contextmanager
def synced(path: Path) -> Iterator[IO[bytes]]:
    """A new binary file whose content is on the disk when the block ends."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def written_whole(path: str | Path, new: bool = False) -> Iterator[IO[bytes]]:
    """A binary file that gets its name when the block ends; it replaces an earlier one.

    Of a link, the file that it points at is replaced. A device, a FIFO, and what this process's
    output goes to are never replaced: they are written as the block goes on.

    Until then the file is ``.recbole_sigrec-<16 hexadecimal digits>.tmp`` in the same folder. An
    error in the block removes it; after a kill, a call for that folder a minute later does.

    Args:
        path: the file.
        new: whether no earlier file is replaced, whatever other processes do meanwhile.

    Raises:
        DataError: there is a file of that name, and none is to be replaced.
        WriteError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    if is_passed_through(path):
        with _write_errors(path, pipe=True), _opened(path) as file:
            yield file
        return
    final = Path(os.path.realpath(path))
    with _write_errors(path, final):
        _remove_abandoned(final.parent)
        with _new_part(final.parent) as file:
            part = Path(file.name)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:
                    file.close()  # Windows renames no open file
                if new:
                    _name_new(part, final)
                else:
                    os.replace(part, final)  # while it is locked
            except BaseException:
                with contextlib.suppress(OSError):  # what is left in memory does not fit either
                    file.close()
                part.unlink(missing_ok=True)
                raise


def _name_new(part: Path, final: Path) -> None:
    """Give a temporary file its name, which no other file may have."""
    there = DataError(f"{final} is there already, and is not overwritten")
    try:
        os.link(part, final)
    except FileExistsError:
        raise there from None
    except OSError:  # a file system may know no links
        if final.exists():
            raise there from None
        os.replace(part, final)
    else:
        part.unlink()


def is_passed_through(path: Path) -> bool:
    """Whether a path is a device, a FIFO, or where this process's output goes."""
    return path.exists() and not path.is_dir() and (not path.is_file() or bool(_streams(path)))


def place_written(path: Path) -> Path:
    """What must be there and be writable before a file can be written: a folder, or itself."""
    if is_passed_through(path):
        return path
    return Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent


def _streams(path: Path) -> list[int]:
    """Which of the output streams 1 and 2 go to a file."""
    found = []
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # it may be closed
            if os.path.samestat(path.stat(), os.fstat(stream)):
                found.append(stream)
    return found


def _opened(path: Path) -> IO[bytes]:
    """A file that is not replaced; an output stream goes on where it is."""
    for stream in _streams(path):
        sys.stdout.flush()
        return os.fdopen(os.dup(stream), "wb")
    return open(path, "wb")


def _new_part(folder: Path) -> IO[bytes]:
    """A new temporary file, locked by this process.

    A lock, unlike a number of a process, means the same in all containers of a host that share the
    folder. Other hosts may not see it.
    """
    while True:
        file = open(folder / f".recbole_sigrec-{secrets.token_hex(8)}.tmp", "xb")
        if fcntl is None:
            return file
        with contextlib.suppress(OSError):  # a file system may know no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process found it before it was locked


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of processes that were killed.

    Those that nobody has locked, and that nobody has written for a minute: a network drive may keep
    the locks of each host to itself. Where there are no locks, files of the last day stay.
    """
    parts: list[os.DirEntry[str]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as files:  # it may not be listed
        parts = [file for file in files if _PART.fullmatch(file.name)]
    for part in parts:
        with contextlib.suppress(OSError):  # it was renamed, it is not ours
            quiet = time.time() - part.stat().st_mtime
            if fcntl is None:  # Windows removes no open file; it is closed just before its renaming
                if quiet > _DAY:
                    os.unlink(part)
            elif quiet > _QUIET:
                with open(part, "rb+") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    except OSError:  # a file system may know no locks
                        if quiet <= _DAY:
                            continue
                    os.unlink(part)


def remove_parts(folder: Path) -> None:
    """Remove all temporary files of :func:`written_whole` from a folder in which nobody writes."""
    for path in folder.glob(".*.tmp"):
        if _PART.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _write_errors(*names: Path, pipe: bool = False) -> Iterator[None]:
    """What the system says where a file cannot be written, as an error of ours.

    Args:
        names: the file, and what it is a link to.
        pipe: whether it may be a pipe or a socket, whose reader may go.
    """
    others = (TimeoutError, InterruptedError, *(() if pipe else (ConnectionError,)))
    handled = sys.exc_info()[1]
    try:
        yield
    except SIGRecError:
        raise
    except Exception as error:
        cause = _system_error(error, handled)
        if cause is None or isinstance(cause, others):
            raise
        if not (cause.filename is None or _is_of(Path(cause.filename), names)):
            raise
        raise write_error(names[0], cause) from error


def _system_error(error: BaseException | None, handled: BaseException | None) -> OSError | None:
    """The system's error that led to an error: PyTorch and zipfile raise others for it.

    Args:
        error: the error.
        handled: what was handled before the block; it is the context of each error of the block.
    """
    while error and error is not handled:
        if isinstance(error, OSError):
            return error
        error = error.__context__
    return None


def _is_of(path: Path, names: tuple[Path, ...]) -> bool:
    """Whether an error about a path is about a file, its temporary file or its folder."""
    return bool(_PART.fullmatch(path.name)) or path in names or path == names[-1].parent


def write_text(text: str, path: str | Path) -> None:
    """Write a text in UTF-8, see :func:`written_whole`."""
    with written_whole(path) as file:
        file.write(text.encode("utf-8"))


def write_json(value: Any, path: str | Path) -> None:
    """Write JSON, see :func:`written_whole` and :func:`~recbole_sigrec.json_object.jsonable`."""
    write_text(json.dumps(jsonable(value), indent=2) + "\n", path)


def write_csv(rows: Iterable[Iterable[Any]], path: str | Path) -> None:
    """Write rows as CSV, see :func:`written_whole`; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(text.getvalue(), path)


def check_free(name: str | Path, there: bool, force: bool, otherwise: str = _FORCE) -> None:
    """See that nothing is overwritten that is not to be replaced.

    Args:
        name: of what is to be written, for the message.
        there: whether there is something of that name.
        force: whether it may be replaced.
        otherwise: another remedy than to give another name.

    Raises:
        DataError: it may not.
    """
    if there and not force:
        raise DataError(
            f"{name} is there already, and is not overwritten; give another name{otherwise}"
        )


@contextlib.contextmanager
def new_folder(final: str | Path, replace: bool = False) -> Iterator[Path]:
    """A folder to write in, which gets its name when the block ends.

    Until then it is ``.<name>.part`` beside it: after an error it is removed, and after a kill the
    next run removes it, so that ``final`` is there only if it is whole.

    Args:
        final: the folder; those above it are made.
        replace: whether an earlier one is replaced.

    Raises:
        DataError: there is such a folder and it is not to be replaced, another process is writing
            it, or what is written does not fit on the disk.
    """
    final = Path(final)
    if final.is_symlink():
        final = final.resolve()
    name, part = final.name, final.with_name(f".{final.name}.part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        busy = DataError(f"another process is writing {final}; wait for it")
        with locked(final.with_name(f".{name}.lock"), busy):
            check_free(final, final.exists(), replace, ", or move that one away")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                yield part
                if final.exists():
                    earlier = final.with_name(f".{name}.earlier")
                    shutil.rmtree(earlier, ignore_errors=True)
                    final.rename(earlier)
                    try:
                        part.rename(final)
                    except OSError:
                        earlier.rename(final)
                        raise
                    shutil.rmtree(earlier, ignore_errors=True)
                else:
                    part.rename(final)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{final} was not written: {error.strerror or error} ({error.filename or part}). "
            f"Nothing is left of it; mend that, or name another folder, and run it again"
        ) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits; it is not held in memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path, busy: Exception) -> Iterator[None]:
    """Hold a lock file; the operating system drops the lock when this process ends.

    Args:
        path: the lock file.
        busy: what is raised where another process holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        lock.release()
