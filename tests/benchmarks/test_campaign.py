"""The campaign tells what is well from what is not; it runs itself in .ci/run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from recbole_sigrec.errors import DataError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not (BENCHMARKS / "campaign.py").is_file() or not sys.platform.startswith("linux"):
    pytest.skip("the campaign is in the repository, and for Linux", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import campaign_commands  # noqa: E402
import campaign_fuzz  # noqa: E402
import campaign_kills  # noqa: E402
from campaign_mutations import mutated  # noqa: E402
from campaign_readers import REFUSED, Reader  # noqa: E402
from campaign_text import CANARY  # noqa: E402


def refuse():
    raise DataError("x.json is wrong")


def lack_memory():
    try:
        bytearray(2**40)
    except MemoryError:
        raise DataError("x.json cannot be read") from None


def crash():
    os.kill(os.getpid(), signal.SIGKILL)


def spin():
    while True:
        pass


READS = {
    "accepted": lambda: None,
    "refused": refuse,
    "refused by a command": lambda: REFUSED,
    "traceback": lambda: {}["x"],
    "hang": spin,
    "memory": lack_memory,
    "memory, a crash": crash,
    "executed": lambda: Path(CANARY).touch(),
    "changed": lambda: Path("x.json").read_bytes(),
}
"""Outcome → a reader with it."""


@pytest.mark.parametrize("name", READS)
def test_the_outcome_of_a_reader_is_told(tmp_path, monkeypatch, name):
    (tmp_path / "originals").mkdir()
    (tmp_path / "originals/x.json").write_text('{"a": [1, 2]}')
    reader = Reader(("x.json",), READS[name], hashed=name == "changed")
    monkeypatch.setattr(campaign_fuzz, "READERS", {name: reader})
    monkeypatch.setattr(campaign_fuzz, "HANG", 0.3)
    fuzz = campaign_fuzz.Fuzz(tmp_path / "originals", 1, [name], 1)
    fuzz.spend(0.5)
    outcome = name.partition(",")[0].partition(" ")[0]
    harmless = {"accepted"} if reader.hashed else set()  # a line that is swapped with itself
    assert set(fuzz.counts[name]) - harmless == {outcome}
    found = [what.partition(",")[0] for _, _, what in fuzz.findings()]
    assert found == ([outcome] if outcome in campaign_fuzz.FINDINGS else [])
    assert os.listdir(tmp_path) == ["originals"] and not Path(CANARY).exists()


def test_an_input_depends_on_the_seed_alone():
    content = b'{"users": ["a", "b"], "k": 5}'

    def inputs(seed):
        return [mutated(Random(f"{seed} {n}"), "x.json", content) for n in range(200)]

    assert inputs(1) == inputs(1) != inputs(2)
    assert len(set(inputs(1))) > 150
    assert 30 < sum(is_json(content) for content in inputs(1)) < 170


def is_json(content):
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def test_a_saved_input_is_the_one_that_was_tried(tmp_path, monkeypatch):
    tried, originals = [], tmp_path / "originals"
    originals.mkdir()
    (originals / "x.csv").write_text("user,item\na,b\nc,d\n")
    monkeypatch.setattr(campaign_fuzz, "READERS", {"x": Reader(("x.csv",), lambda: None)})
    for folder in ("one", "two"):
        campaign_fuzz.write_input("x", 7, 1, originals, tmp_path / folder)
        tried.append((tmp_path / folder / "x.csv").read_bytes())
    assert tried[0] == tried[1] != (originals / "x.csv").read_bytes()


def test_processes_that_a_command_leaves_are_found_and_ended(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()

    def leave(arguments):
        subprocess.Popen(["sleep", "1000"])
        time.sleep(float(arguments[0]))
        return 3

    monkeypatch.setattr("recbole_sigrec.cli.main", leave)
    command = campaign_commands.Command(("1000",))
    assert command.wait(1) is None
    command.signal(signal.SIGKILL)
    assert command.wait(10) == -signal.SIGKILL
    assert command.left(0.2) == ["sleep 1000 "] and command.left(0.2) == []
    assert campaign_commands.Command(("0",)).wait(10) == 3


def test_the_place_of_a_difference_is_told():
    one = {"a": [1, {"b": 2}], "c": 3}
    other = {"a": [1, {"b": 4}], "c": 3}
    assert campaign_kills.difference(one, other) == ".a[1].b: 4 for 2"
