"""Chromium without a window, told what to do over a pipe by its DevTools protocol."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

NAMES = (
    *("chromium", "chromium-browser", "chromium-headless-shell", "headless_shell"),
    *("google-chrome", "chrome"),
)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
START = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for place, pipe in zip((3, 4), pipes):
    os.dup2(pipe, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads from file 3 and writes to file 4."""


def find_browser() -> str:
    """The program; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium")
    return found


class Page:
    """A page in a browser.

    Attributes:
        complaints: what the console or the page's policy says, and errors of scripts.
        asked: the addresses that were asked for.
    """

    def __init__(self, reading: int, writing: int):
        self._reading, self._writing, self._rest, self._last = reading, writing, b"", 0
        self._session, self.complaints, self.asked = None, [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """A command's result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        end, answer = time.monotonic() + 60, None
        while answer is None:
            for one in self._messages(end):  # events may follow the answer in the same read
                if one.get("id") == self._last:
                    answer = one
                else:
                    self._note(one)
        assert "error" not in answer, answer
        return answer["result"]

    def _messages(self, end):
        ready, _, _ = select.select([self._reading], [], [], max(0, end - time.monotonic()))
        assert ready, "the browser does not answer"
        data = os.read(self._reading, 2**20)
        assert data, "the browser has gone"
        *whole, self._rest = (self._rest + data).split(b"\0")
        return [json.loads(one) for one in whole]

    def _note(self, event):
        given = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(given["exceptionDetails"])
        if event["method"] == "Runtime.consoleAPICalled":
            self.complaints.append(given["args"])
        if event["method"] == "Log.entryAdded":
            self.complaints.append(given["entry"]["text"])
        if event["method"] == "Network.requestWillBeSent":
            self.asked.append(given["request"]["url"])

    def open(self, address):
        """Go to an address; its scripts may still be waiting for answers."""
        self.call("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && location.href === {address!r}")

    def run(self, script):
        """The value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script):
        """Wait until an expression is true; its value."""
        end = time.monotonic() + 60
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)
        return value

    def take_complaint(self, word):
        """Wait for a complaint that has a word, and take it off the list."""
        end = time.monotonic() + 60
        while not (found := [one for one in self.complaints if word in one]):
            assert time.monotonic() < end, f"no complaint has: {word}"
            self.run("0")
        self.complaints.remove(found[0])

    def click(self, element):
        """Click on an element, an expression of JavaScript, where it is on the screen."""
        self.run(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.run(f"{element}.getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **where)

    def type(self, text):
        """Type a text where the focus is; ``\\n`` is the Enter key."""
        for letter in text:
            key = {"text": "\r", "key": "Enter", "windowsVirtualKeyCode": 13}
            key = key if letter == "\n" else {"text": letter}
            self.call("Input.dispatchKeyEvent", type="keyDown", **key)
            self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def show(self, width, height, scheme):
        """Set the size of the screen, and whether it is ``light`` or ``dark``."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)


@contextlib.contextmanager
def browsing(profile: Path):
    """A page; ``profile`` is a new folder. Nothing but this machine is reached from it."""
    program = find_browser()
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    options = [*QUIET, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(theirs_in), str(theirs_out), program, *options],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for one in (theirs_in, theirs_out):
        os.close(one)
    try:
        yield Page(ours_in, ours_out)
    finally:
        process.kill()
        process.wait()
        for one in (ours_in, ours_out):
            os.close(one)
