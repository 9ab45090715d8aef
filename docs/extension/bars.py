"""Bars in docstrings, as of a set's size: reStructuredText takes two of them for a substitution."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

_LITERAL_OR_BAR = re.compile(r"(``.*?``)|(?<!\\)\|")


def escape_bars(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Put a backslash before each bar that stands in no literal text."""
    lines[:] = [_LITERAL_OR_BAR.sub(lambda m: m[1] or r"\|", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it for all docstrings."""
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True}
