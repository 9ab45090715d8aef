"""Killing commands at random moments, and giving them again until they end; for campaign.py."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from campaign_commands import END, SCENARIOS, SERVE, Command, answer, enter, temporary_files

LONGEST = 120
"""Seconds in which every command here must have ended."""

_AT_FORK = "Exception ignored in: <function _releaseLock"
"""Python's logging lets go of an interrupt that comes in while a process is forked, which is done
here alone: the command goes on."""

_SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGINT)


class Disturbed:
    """Commands that are disturbed: counts by command, and the findings.

    Args:
        folder: where the commands work.
        originals: the folder of the originals.
        seed: of what happens to them.
        names: of the commands.

    Attributes:
        counts: command → kind of disturbance → how often.
    """

    kinds: tuple[str, ...] = ()
    _expected: ClassVar[dict[str, tuple[Any, float]]] = {}

    def __init__(self, folder: Path, originals: Path, seed: int, names: list[str]):
        self.seed, self._folder, self._originals = seed, folder, originals
        self.counts = {name: Counter() for name in names}
        self._found: list[tuple[str, int, str]] = []

    def round(self, name: str) -> None:
        """Disturb a command once."""
        raise NotImplementedError

    def spend(self, seconds: float) -> None:
        """Rounds of all commands in turn, for some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name in sorted(self.counts, key=lambda name: self.counts[name].total()):
                if time.monotonic() < end:
                    self.round(name)

    def note(self, name: str, number: int, findings: Iterable[str]) -> None:
        """Keep findings, and print them."""
        for what in findings:
            self._found.append((name, number, what))
            print(
                f"{name}, round {number}: {what.splitlines()[0]:.200}", file=sys.stderr, flush=True
            )

    def findings(self) -> list[tuple[str, int, str]]:
        """(command, round, what) of each."""
        return self._found

    def expected(self, name: str) -> tuple[Any, float]:
        """(result, seconds) of a command that is left alone."""
        if name not in self._expected:
            before = os.getcwd()
            folder = self.enter(name, "alone", SCENARIOS[name].needs)
            start = time.monotonic()
            command = Command(SCENARIOS[name].arguments())
            status, log = command.wait(LONGEST), command.log()
            command.left()
            if status != 0:
                raise RuntimeError(f"{name}, left alone, ended with {status}:\n{log[-3000:]}")
            self._expected[name] = SCENARIOS[name].result(), time.monotonic() - start
            self.leave(folder)
            os.chdir(before)
        return self._expected[name]

    def enter(self, name: str, what: object, needs: tuple[str, ...]) -> Path:
        """A new working directory with the originals that a command needs."""
        folder = self._folder / f"{re.sub('[^a-z0-9]+', '-', name)}-{what}"
        shutil.rmtree(folder, ignore_errors=True)
        enter(folder, self._originals, needs)
        return folder

    def leave(self, folder: Path) -> None:
        """Remove a working directory."""
        os.chdir(self._folder)
        shutil.rmtree(folder)

    def whole(self, name: str, expected: Any) -> Iterator[str]:
        """Let the command end, and compare what it has made."""
        age_temporary_files()
        command = Command(SCENARIOS[name].arguments())
        status, log = command.wait(LONGEST), command.log()
        if left := command.left():
            yield f"processes left after the end: {left}"
        if status != 0 and not _is_there(log):
            yield f"ended with {status}: {command.arguments}\n{log[-3000:]}"
            return
        try:
            made = SCENARIOS[name].result()
        except (OSError, ValueError, KeyError) as error:
            yield f"its result cannot be read: {error!r}"
            return
        if made != expected:
            yield f"another result: {difference(expected, made)}"
        if files := temporary_files():
            yield f"temporary files: {files}"

    def table(self) -> str:
        """The counts, a line for each command."""
        lines = [f"{'command':20}" + "".join(f"{k:>13}" for k in self.kinds) + f"{'findings':>10}"]
        rows = [*self.counts.items(), ("all", sum(self.counts.values(), Counter()))]
        for name, counts in rows:
            found = sum(name in ("all", other) for other, *_ in self._found)
            cells = "".join(f"{counts[kind]:>13}" for kind in self.kinds)
            lines.append(f"{name:20}{cells}{found:>10}")
        return "\n".join(lines)


def age_temporary_files() -> None:
    """Make those of killed commands a minute old: then a command that writes there removes them."""
    for part in Path().rglob(".recbole_sigrec-*.tmp"):
        os.utime(part, (time.time() - 90,) * 2)


class Kills(Disturbed):
    """Commands that get signals at random moments, see :class:`Disturbed`."""

    kinds = ("rounds", *(sent.name for sent in dict.fromkeys(_SIGNALS)))

    def round(self, name: str) -> None:
        """Kill a command a few times, let it end, and compare what it made."""
        number = self.counts[name]["rounds"]
        self.counts[name]["rounds"] += 1
        self.note(name, number, (self._serve if name == "serve" else self._killed)(name, number))

    def _killed(self, name: str, number: int) -> Iterator[str]:
        scenario = SCENARIOS[name]
        expected, lasts = self.expected(name)
        rng = Random(f"{self.seed} {name} {number}")
        folder = self.enter(name, number, scenario.needs)
        for _ in range(rng.randint(1, 4)):
            moment, sent = rng.uniform(0, lasts), rng.choice(_SIGNALS)
            age_temporary_files()
            command = Command(scenario.arguments())
            if command.wait(moment) is None:
                self.counts[name][sent.name] += 1
                yield from self._ended(command, sent)
            else:
                command.left()
                break
        yield from self.whole(name, expected)
        self.leave(folder)

    def _ended(self, command: Command, sent: signal.Signals) -> Iterator[str]:
        """Send a signal, and see that all of the command ends, and how."""
        command.signal(sent)
        status = command.wait(END)
        log = command.log()
        if status is None:
            yield f"no end {END} s after {sent.name}: {command.arguments}"
            command.signal(signal.SIGKILL)
        elif sent == signal.SIGINT and "Traceback" in log and _AT_FORK not in log:
            yield f"a traceback after {sent.name}: {command.arguments}\n{log[-3000:]}"
        if left := command.left():
            yield f"processes left {END} s after {sent.name}: {left}"

    def _serve(self, name: str, number: int) -> Iterator[str]:
        rng = Random(f"{self.seed} {name} {number}")
        folder = self.enter(name, number, ("shop.rec/*",))
        answers = []
        for sent in (signal.SIGKILL, rng.choice(_SIGNALS), signal.SIGTERM, signal.SIGINT):
            command = Command(SERVE)
            if rng.random() < 0.5 and sent == signal.SIGKILL:
                time.sleep(rng.uniform(0, 0.5))
            else:
                port = _port(command)
                if port is None:
                    yield f"it does not serve:\n{command.log()[-3000:]}"
                else:
                    answers.append(answer(port))
            self.counts[name][sent.name] += 1
            yield from self._ended(command, sent)
        if len(set(answers)) > 1:
            yield f"other answers: {answers}"
        self.leave(folder)


def _is_there(log: str) -> bool:
    """Whether a command has refused since it had ended already when it was to be killed."""
    return "there already" in log or "exists" in log


def _port(command: Command) -> int | None:
    """The port of a service, once it is ready."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end and command.wait(0.02) is None:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", command.log())
        if found:
            return int(found[1])
    return None


def difference(expected: Any, made: Any, where: str = "") -> str:
    """The first place in which two results differ."""
    if isinstance(expected, dict) and isinstance(made, dict):
        for key in sorted({*expected, *made}, key=str):
            if expected.get(key) != made.get(key):
                return difference(expected.get(key), made.get(key), f"{where}.{key}")
    if isinstance(expected, list | tuple) and isinstance(made, list | tuple):
        for place, pair in enumerate(zip(expected, made)):
            if pair[0] != pair[1]:
                return difference(*pair, f"{where}[{place}]")
    return f"{where}: {made!r:.600} for {expected!r:.600}"
