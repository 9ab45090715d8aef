"""A JSON file's object, one member after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHUNK = 2**16  # characters read at a time
_LONGEST = 2**26  # characters of one member
_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r"
_AFTER = _SPACE + ":,}"  # what can stand after a value


def members(path: Path) -> Iterator[tuple[str, Any]]:
    """The names and values of the object that a file holds, in order.

    As ``json.loads``, it reads UTF-8, UTF-16 and UTF-32.

    Raises:
        ValueError: it is no JSON, or another value than an object; or a member has more than 2²⁶
            characters.
        OSError, RecursionError: it cannot be read.

    Memory: for the longest member.
    """
    with open(path, "rb") as file:
        encoding = json.detect_encoding(file.read(4))
    with open(path, encoding=encoding) as file:
        text = _Window(file)
        text.mark("{", "it must be an object")
        if text.peek() == "}":
            text.mark("}")
        else:
            while True:
                if text.peek() != '"':
                    text.refuse("expecting a name in double quotes")
                name = text.value()
                text.mark(":")
                yield name, text.value()
                if text.mark(",}") == "}":
                    break
        if text.peek():
            text.refuse("more than one value")


class _Window:
    """The part of a text file that is not yet decoded, as far as it is read."""

    def __init__(self, file):
        self._file, self._text, self._at, self._read = file, "", 0, 0
        self._whole = False

    def _more(self) -> None:
        """Read on; twice as much as before of a long value, of which each attempt starts anew."""
        left = self._text[self._at :]
        chunk = self._file.read(max(_CHUNK, len(left)))
        self._text, self._at, self._read = left + chunk, 0, self._read + len(chunk)
        self._whole = not chunk

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or self._whole:
                return self._text[self._at : self._at + 1]
            self._more()

    def mark(self, allowed: str, why: str = "") -> str:
        """Pass over the next character, which must be one of these."""
        found = self.peek()
        if not found or found not in allowed:
            self.refuse(why or f"expecting {' or '.join(allowed)}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Pass over the next value and return it."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._whole:
                    self._at = min(error.pos, len(self._text))
                    self.refuse(error.msg)
            else:
                after = self._text[end : end + 1]
                if self._whole or (after and after in _AFTER):  # else a number may go on
                    self._at = end
                    return value
            if len(self._text) - self._at > _LONGEST:
                self.refuse(f"a value is broken, or has more than {_LONGEST:,} characters,")
            self._more()

    def refuse(self, why: str) -> None:
        place = self._read - len(self._text) + self._at
        after = self._text[self._at : self._at + 20]
        raise ValueError(
            f"{why} at character {place}, {'before ' + repr(after) if after else 'its end'}"
        )
