"""A disk that is full, a folder that cannot be written, two processes in one folder; for
campaign.py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from campaign_commands import SCENARIOS, Command
from campaign_kills import LONGEST, Disturbed

_ENDED = (0, 1, 2)  # 1: a comparison or a search whose runs have failed


class Limits(Disturbed):
    """Counts of commands by case, and the findings, see :class:`Disturbed`."""

    kinds = ("full disk", "read-only", "two at once")

    def round(self, name: str) -> None:
        """One case of a command, another one in each round."""
        number = self.counts[name].total()
        kind = self.kinds[number % 3]
        self.counts[name][kind] += 1
        case = (self._full_disk, self._read_only, self._two)[number % 3]
        folder = self.enter(name, f"{kind.replace(' ', '-')}-{number}", SCENARIOS[name].needs)
        self.note(name, number, case(name, number))
        self.leave(folder)

    def _full_disk(self, name: str, number: int) -> Iterator[str]:
        """No file may grow beyond some bytes; afterwards it may."""
        expected, _ = self.expected(name)
        size = int(2 ** Random(f"{self.seed} {name} {number}").uniform(0, 17))
        command = Command(SCENARIOS[name].arguments(), file_size=size)
        yield from self._clear(command, f"with files of at most {size} bytes")
        yield from self.whole(name, expected)

    def _read_only(self, name: str, number: int) -> Iterator[str]:
        """The working directory may not be written; afterwards it may."""
        expected, _ = self.expected(name)
        if os.geteuid() != 0:
            return
        for path in Path().rglob("*"):
            path.chmod(path.stat().st_mode | 0o444)
        before = sorted(map(str, Path().rglob("*")))
        command = Command(SCENARIOS[name].arguments(), as_nobody=True)
        yield from self._clear(command, "as nobody", ended=(2,))
        if (after := sorted(map(str, Path().rglob("*")))) != before:
            yield f"it wrote {sorted({*after} - {*before})} as nobody"
        yield from self.whole(name, expected)

    def _two(self, name: str, number: int) -> Iterator[str]:
        """Two of the same begin within a fifth of a second: one must succeed."""
        expected, _ = self.expected(name)
        arguments = SCENARIOS[name].arguments()
        first = Command(arguments)
        time.sleep(Random(f"{self.seed} {name} {number}").uniform(0, 0.2))
        second = Command(arguments)
        statuses = [command.wait(LONGEST) for command in (first, second)]
        for command in (first, second):
            yield from self._clear(command, "beside another", ended=(0, 2))
        if 0 not in statuses:
            yield f"of two at once none succeeded: {statuses}"
        yield from self.whole(name, expected)

    def _clear(self, command: Command, how: str, ended: tuple[int, ...] = _ENDED) -> Iterator[str]:
        """See that a command ends with a clear error, if it does not succeed."""
        status, log = command.wait(LONGEST), command.log()
        if status not in ended or "Traceback" in log:
            yield f"ended with {status} {how}: {command.arguments}\n{log[-3000:]}"
        if left := command.left():
            yield f"processes left {how}: {left}"
