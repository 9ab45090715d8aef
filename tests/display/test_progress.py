"""Progress bars: on a terminal alone, and only where they are wanted."""

from __future__ import annotations

import io

import pytest

from recbole_sigrec.display import progress as module
from recbole_sigrec.display.progress import bars_wanted, progress, wipe_bars, working


class Terminal(io.StringIO):
    """Keeps what is written to it; says that it is a terminal, if it shall."""

    def __init__(self, is_terminal: bool):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.fixture
def shown(monkeypatch):
    """What a loop and a step write to stderr."""
    monkeypatch.setattr(module, "DELAY", 0)
    monkeypatch.setenv("COLUMNS", "80")

    def write(is_terminal=True):
        terminal = Terminal(is_terminal)
        monkeypatch.setattr("sys.stderr", terminal)
        assert list(progress("reading", range(3), "rows")) == [0, 1, 2]
        with progress("writing", unit="B", total=2000) as bar:
            bar.update(2000)
        with working("ridge graph"):
            pass
        return terminal.getvalue()

    return write


def test_a_terminal_shows_bars_and_keeps_none(shown):
    found = shown()
    for words in ("reading", "rows/s", "/2.00k", "ridge graph …"):
        assert words in found
    assert "\n" not in found
    assert found.split("\r")[-1].strip() == found.split("\r")[-2].strip() == ""  # wiped


def test_a_line_of_the_log_does_not_run_into_a_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal(True))
    with working("ridge graph"):
        wipe_bars()
        terminal.write("a line of the log\n")
    written = [piece for piece in terminal.getvalue().split("\r") if piece.strip(" ")]
    assert written == ["ridge graph …", "a line of the log\n"]


def test_a_file_has_none(shown):
    assert shown(is_terminal=False) == ""


def test_nor_has_a_terminal_where_they_are_not_wanted(shown):
    with bars_wanted(False):
        with bars_wanted(True):
            assert shown() == ""
        assert shown() == ""
    assert shown() != ""


def test_what_is_short_shows_none(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal(True))
    assert list(progress("reading", range(1000), "rows")) == list(range(1000))
    assert terminal.getvalue() == ""
