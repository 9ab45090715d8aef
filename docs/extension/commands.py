"""The reference of the commands, made from their parsers.

``.. commands::`` writes a section for each command; each argument is an ``option`` of the program.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.rst import escape

from extension.sections import SectionsDirective, indented
from recbole_sigrec.cli import COMMANDS, command_module


def option(action: argparse.Action) -> str:
    """The entry of an argument."""
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if isinstance(value, tuple):
        value = " ".join(value)
    if not action.option_strings:
        names = str(action.metavar or action.dest)
    else:
        names = ", ".join(f"{name} {value}".strip() for name in action.option_strings)
    text = (action.help or "") % {**vars(action), "prog": ""}
    needed = "Required. " if action.required and action.option_strings else ""
    if action.choices:
        text += f" (one of {', '.join(map(str, action.choices))})"
    text = needed + escape(text[:1].upper() + text[1:])
    return f".. option:: {names}\n\n{indented(text)}\n\n"


def parsers(
    name: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A command and the commands inside it: name, parser."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, one in action.choices.items():
                yield from parsers(f"{name} {inner}", one)


def command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """The text of a command's section."""
    yield f".. program:: {name}\n\n"
    yield f".. code-block:: text\n\n{indented(parser.format_usage().strip())}\n\n"
    if parser.description:
        yield f"{escape(parser.description)}\n\n"
    for group in parser._action_groups:
        own_title = group.title not in ("options", "positional arguments", "optional arguments")
        if group._group_actions and own_title:
            yield f"**{escape(str(group.title))}**\n\n"
            if group.description:
                yield f"{escape(group.description)}\n\n"
        for action in group._group_actions:
            if action.help != argparse.SUPPRESS:
                yield option(action)
    if parser.epilog:
        yield f".. code-block:: text\n\n{indented(parser.epilog)}\n\n"


class Commands(SectionsDirective):
    """``.. commands::``: all sections, see the module."""

    def run(self) -> list[nodes.Node]:
        """Write them."""
        return [
            self.section(title, "".join(command(title, parser)))
            for name in COMMANDS
            for title, parser in parsers(f"recbole-sigrec {name}", command_module(name).parser())
        ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
