"""The command ``recbole-sigrec``: finds the module of a command and reports its errors."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from keyword import iskeyword
from types import ModuleType

from recbole_sigrec import __version__
from recbole_sigrec.errors import SIGRecError, did_you_mean

COMMANDS = {
    "run": "train a model on a data set, and test it",
    "compare": "several models × seeds on one split, side by side",
    "ablate": "SIGRec without its parts, over its values, on corrupted content",
    "tune": "search for the best configuration on the validation part",
    "prepare": "make a public data set from its published files",
    "import": "make a data set of your table, or of another toolbox's folder",
    "encode": "make a feature file of texts or images",
    "models": "the models that can be named, and what they do",
    "inspect": "tell whether a data set is sound",
    "export": "a trained model as a bundle that needs neither its data nor torch",
    "recommend": "the best items of users, from a bundle, as a file",
    "serve": "a bundle that answers over HTTP, and a page to look at it",
    "look": "what a bundle recommends and why, as one page in a file",
}
"""Command → what it does; each is a module of :mod:`recbole_sigrec.commands`."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        The exit status: 0 only if the command did its work, 2 where the input is wrong.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        hint = did_you_mean(arguments[0], COMMANDS)
        print(
            f"recbole-sigrec: unknown command [{arguments[0]}].{hint}\n\n{overview()}",
            file=sys.stderr,
        )
        return 2
    return run_command(*arguments)


def overview() -> str:
    """The commands, and the usage of the first, which most want."""
    usage = command_module("run").parser().format_help()
    lines = [f"  {name:<10}{about}" for name, about in COMMANDS.items()]
    more = "recbole-sigrec COMMAND --help shows a command's arguments"
    return "\n".join(["recbole-sigrec COMMAND …", "", *lines, "", more, "", usage])


def command_module(name: str) -> ModuleType:
    """The module of a command; a name that Python reserves (``import``) gets an underscore."""
    return import_module(f"recbole_sigrec.commands.{name}{'_' * iskeyword(name)}")


def run_command(name: str, *arguments: str) -> int:
    """A command by its name; its errors about the input are printed without a traceback.

    Returns:
        The exit status, see :func:`main`; 130 after Ctrl-C.
    """
    try:
        module = command_module(name)
        if "-h" in arguments or "--help" in arguments:
            print(module.parser().format_help(), end="")
            return 0
        return module.main(list(arguments))
    except (SIGRecError, argparse.ArgumentError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
