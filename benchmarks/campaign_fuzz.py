"""Feeding readers with mutated files, each in a worker process with limits; for campaign.py."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import resource
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random

import psutil
from campaign_mutations import mutated
from campaign_readers import READERS, REFUSED, Reader
from campaign_text import CANARY

HANG, WAIT, MEMORY = 10, 90, 2**31
"""Seconds of the processor for one input, seconds by the clock (other processes may be at work),
and bytes beyond what a worker has before it."""

OUTCOMES = ("accepted", "refused", "traceback", "hang", "memory", "executed", "changed")
FINDINGS = OUTCOMES[2:]

_EACH = 400  # inputs of one worker process, since commands leave things in it
_FORK = multiprocessing.get_context("fork")


@dataclasses.dataclass(frozen=True)
class Finding:
    """An input that a reader did not take well.

    Attributes:
        reader, number: the input, see :func:`write_input`.
        outcome: one of ``FINDINGS``.
        kind: the same for findings of one cause.
        told: a traceback.
    """

    reader: str
    number: int
    outcome: str
    kind: str
    told: str


def originals_of(reader: Reader, folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of a reader: name → content, and the names of those that are mutated."""

    def named(patterns: tuple[str, ...]) -> list[str]:
        found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
        return [str(path.relative_to(folder)) for path in found if path.is_file()]

    names = named(reader.files)
    contents = {name: (folder / name).read_bytes() for name in (*names, *named(reader.needs))}
    return contents, names


def write_input(name: str, number: int, seed: int, originals: Path, folder: Path) -> None:
    """Write input ``number`` of a reader, all its files, into a folder."""
    contents, names = originals_of(READERS[name], originals)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    _write(name, number, seed, contents, names)


def _write(name: str, number: int, seed: int, contents: dict, names: list[str]) -> None:
    rng = Random(f"{seed} {name} {number}")
    chosen = rng.choice(names)
    changed = {**contents, chosen: mutated(rng, chosen, contents[chosen])}
    _write_files(changed)


def _write_files(contents: dict[str, bytes]) -> None:
    for file, content in contents.items():
        os.makedirs(os.path.dirname(file) or ".", exist_ok=True)
        Path(file).write_bytes(content)


def outcome_of(reader: Reader, expected: object = None) -> tuple[str, str, str]:
    """(outcome, kind, traceback) of a reader in the working directory."""
    from recbole_sigrec.errors import SIGRecError

    try:
        found = reader.read()
    except SIGRecError as error:
        return ("refused", "", "") if not _lacked_memory(error) else _memory(error)
    except MemoryError as error:
        return _memory(error)
    except BaseException as error:
        return "traceback", _cause(error), traceback.format_exc()
    finally:
        executed = os.path.exists(CANARY)
    if executed:
        os.unlink(CANARY)
        return "executed", "executed", ""
    if found == REFUSED:
        return "refused", "", ""
    if expected is not None and found != expected:
        return "changed", "changed", f"expected {expected!r:.2000}\nfound    {found!r:.2000}"
    return "accepted", "", ""


def _memory(error: BaseException) -> tuple[str, str, str]:
    return "memory", f"memory {_cause(error)}", "".join(traceback.format_exception(error))


def _lacked_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__context__
    return False


def _cause(error: BaseException) -> str:
    """The type of an error, and the last line of ours that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "recbole_sigrec/recbole_sigrec" in f.filename] or [
        f for f in frames if "recbole_sigrec" in f.filename
    ]
    last = (own or frames)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.name}: {last.line}"


class Worker:
    """A process that feeds one reader with inputs, beginning with one of a number."""

    def __init__(self, name: str, first: int, seed: int, folder: Path, seconds: float):
        self.name, self.number, self.ended = name, first, False
        self._last, self._spent = time.monotonic(), 0.0
        self.pipe, other = _FORK.Pipe(duplex=False)
        given = name, first, seed, folder, other, seconds
        self.process = _FORK.Process(target=_work, args=given)
        self.process.start()
        other.close()
        self.work = folder.parent / f"work-{self.process.pid}"

    def results(self) -> Iterator[tuple[str, str, str]]:
        """What is there now; ends with a crash's, where the process has ended by itself."""
        try:
            while self.pipe.poll():
                message = self.pipe.recv()
                self._last, self._spent = time.monotonic(), self._seconds()
                if message is not None:
                    yield message
                    self.number += 1
        except EOFError:
            self.ended = True
            self.process.join()
            if self.process.exitcode:
                yield "memory", f"ended with {self.process.exitcode}", ""

    @property
    def hangs(self) -> bool:
        """Whether it has been at one input for too long."""
        spent, waited = self._seconds() - self._spent, time.monotonic() - self._last
        return self.process.is_alive() and (spent > HANG or waited > WAIT)

    def _seconds(self) -> float:
        """Of the processor, that the process has taken."""
        with contextlib.suppress(psutil.Error):
            return sum(psutil.Process(self.process.pid).cpu_times()[:2])
        return 0.0

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        shutil.rmtree(self.work, ignore_errors=True)


def _work(name: str, first: int, seed: int, folder: Path, pipe: Connection, seconds: float) -> None:
    """The worker's process: one message for each input, after one that it has begun."""
    reader = READERS[name]
    contents, names = originals_of(reader, folder)
    work = folder.parent / f"work-{os.getpid()}"
    try:
        _silence()
        expected = None
        if reader.hashed:
            _enter(work)
            _write_files(contents)
            expected = reader.read()
            if expected == REFUSED:
                raise RuntimeError(f"{name} refuses the originals")
        limit_memory()
        until = time.monotonic() + seconds
        for number in range(first, first + _EACH):
            if time.monotonic() > until:
                break
            _enter(work)
            _write(name, number, seed, contents, names)
            pipe.send(None)
            pipe.send(outcome_of(reader, expected))
    except Exception as error:
        pipe.send(("traceback", f"before the first input: {error}", traceback.format_exc()))
    finally:
        os.chdir(folder)
        shutil.rmtree(work, ignore_errors=True)
    os._exit(0)


def _enter(work: Path) -> None:
    """An empty working directory."""
    os.chdir("/")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    os.chdir(work)


def _silence() -> None:
    with open(os.devnull, "w", encoding="ascii") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)


def limit_memory() -> None:
    """Let this process have ``MEMORY`` bytes more of addresses than it has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


class Fuzz:
    """Counts of inputs by reader and outcome, and the findings, one of each kind.

    Attributes:
        counts: reader → outcome → inputs.
        found: the first finding of each kind.
        times: kind → how often.
    """

    def __init__(self, folder: Path, seed: int, names: list[str], workers: int):
        self._folder, self._seed, self._workers = folder, seed, workers
        self.counts = {name: Counter() for name in names}
        self.found: dict[tuple[str, str], Finding] = {}
        self.times: Counter[tuple[str, str]] = Counter()

    def spend(self, seconds: float) -> None:
        """Feed the readers in turn, each for some seconds."""
        end = time.monotonic() + seconds
        each = min(6.0, max(0.3, seconds * self._workers / len(self.counts)))
        waiting = list(self.counts)
        at_work: list[Worker] = []
        try:
            while at_work or time.monotonic() < end:
                while len(at_work) < self._workers and time.monotonic() < end:
                    waiting.append(name := waiting.pop(0))
                    if any(worker.name == name for worker in at_work):
                        break
                    left = min(each, end - time.monotonic())
                    first = self.counts[name].total()
                    at_work.append(Worker(name, first, self._seed, self._folder, left))
                wait([worker.pipe for worker in at_work], timeout=0.5)
                at_work = [worker for worker in at_work if self._goes_on(worker)]
        finally:
            for worker in at_work:
                worker.end()

    def _goes_on(self, worker: Worker) -> bool:
        for outcome, kind, told in worker.results():
            self._count(worker, worker.number, outcome, kind, told)
        if worker.hangs:
            self._count(worker, worker.number, "hang", "hang", f"no end after {HANG} s")
            worker.end()
            return False
        if worker.ended:
            worker.end()
        return not worker.ended

    def _count(self, worker: Worker, number: int, outcome: str, kind: str, told: str) -> None:
        self.counts[worker.name][outcome] += 1
        if outcome in FINDINGS:
            self.times[worker.name, kind] += 1
            finding = Finding(worker.name, number, outcome, kind, told)
            if self.found.setdefault((worker.name, kind), finding) is finding:
                print(f"{worker.name} {number}: {outcome}: {kind}", file=sys.stderr, flush=True)

    def findings(self) -> list[tuple[str, int, str]]:
        """(reader, number, what) of the first input of each kind, and how often there was one."""
        return [
            (
                one.reader,
                one.number,
                f"{one.outcome}, {self.times[key]} times: {one.kind}\n{one.told}",
            )
            for key, one in self.found.items()
        ]

    def table(self) -> str:
        """The counts, a line for each reader."""
        lines = [f"{'reader':24}{'tried':>9}" + "".join(f"{o:>11}" for o in OUTCOMES)]
        rows = [*self.counts.items(), ("all", sum(self.counts.values(), Counter()))]
        for name, counts in rows:
            cells = "".join(f"{counts[outcome]:>11,}" for outcome in OUTCOMES)
            lines.append(f"{name:24}{counts.total():>9,}{cells}")
        return "\n".join(lines)
