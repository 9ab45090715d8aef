"""What the commands share in reading their arguments."""

from __future__ import annotations

import argparse
import os
import shlex
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from recbole_sigrec.errors import ConfigError, SIGRecError, did_you_mean
from recbole_sigrec.extras import need
from recbole_sigrec.files import place_written
from recbole_sigrec.model_names import MODELS
from recbole_sigrec.user_paths import user_path


class Parser(argparse.ArgumentParser):
    """A parser without abbreviations.

    Its errors are raised, and the command line prints its help.

    Args:
        prog: the command and how it is called, ``recbole-sigrec run``.
        example: a whole command, for the end of the help; a line ends in a backslash as in a shell.
        keys: what the command does with arguments ``--KEY=VALUE``; none given: it takes none.
        epilog: text between the options and the example.
    """

    def __init__(
        self,
        prog: str,
        description: str = "",
        example: str = "",
        keys: str = "",
        epilog: str = "",
        **kwargs: Any,
    ):
        end = [f"  --KEY=VALUE           {keys}"] if keys else []
        end += [epilog] if epilog else []
        end += ["example:\n" + textwrap.indent(example, "  ")] if example else []
        super().__init__(
            prog=prog,
            description=description,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="\n\n".join(end),
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)

    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """As argparse does; the nearest option is named where one is not known."""
        known, rest = self.parse_known_args(args, namespace)
        if rest:
            near = did_you_mean(rest[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(rest)}.{near}")
        return known

    def once(self, *names: str, **how: Any) -> None:
        """An option that may be given once."""
        self.add_argument(*names, action=Once, **how)

    def dataset(self) -> None:
        """The option of a data set that is read."""
        about = "a folder in data_path; default ml-100k, which RecBole bundles"
        self.once("--dataset", "-d", metavar="NAME", help=about)

    @staticmethod
    def text_form(group: Any) -> None:
        """The options of how a table of text is written.

        Args:
            group: a parser, or a group of its options.
        """
        separator = "the sign between two values, as ';' or tab; default: found from the header"
        group.add_argument("--separator", action=Once, metavar="SIGN", help=separator)
        encoding = "as cp1252; default UTF-8, or UTF-16 if the file starts with its mark"
        group.add_argument("--encoding", action=Once, metavar="NAME", help=encoding)

    def config_files(self) -> None:
        """The option of config files."""
        about = "yaml files, separated by spaces"
        self.once("--config_files", metavar="FILES", type=_files, default=(), help=about)

    def jobs(self, what: str) -> None:
        """The options of how many are made at a time, and where."""
        self.add_argument("--jobs", type=int, default=1, help=f"{what} at the same time; default 1")
        about = (
            f"workers that make the {what} instead: the address of a Dask scheduler, or how many "
            "are started, as local:3, or slurm:8, pbs:8, lsf:8, sge:8"
        )
        self.once("--cluster", metavar="WHERE", help=about)


class Once(argparse.Action):
    """Store a value; refuse a second, different one, as for the config's keys."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) not in (self.default, values):
            raise argparse.ArgumentError(self, "given twice, with different values")
        setattr(namespace, self.dest, values)


def _files(text: str) -> list[str]:
    """Those of ``--config_files "a.yaml b.yaml"``; a name with a space is quoted in it."""
    try:
        return [str(user_path(file)) for file in split_files(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"[{text}]: {error}") from None


def split_files(text: str, windows: bool = os.name == "nt") -> list[str]:
    """The names in a text, as a shell splits it; on Windows a backslash separates folders."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    if windows:
        lexer.escape = ""
    return list(lexer)


def names(text: str) -> list[str]:
    """Those of ``--models=A,B``, as the type of an argument; spaces around a comma do not count."""
    return [name.strip() for name in text.split(",") if name.strip()]


def table_file(text: str) -> Path:
    """The path of a table, as the type of an argument; what its suffix needs is installed."""
    path = user_path(text)
    if path.suffix == ".parquet":
        try:
            need("parquet", text)
        except SIGRecError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return path


def output_file(text: str) -> Path:
    """The path of a file to write, as the type of an argument: its folder must be there."""
    path = table_file(text)
    if len(os.fsencode(path.name)) > 255:
        raise argparse.ArgumentTypeError(f"[{text[:100]}…] is too long for the name of a file")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"[{path}] is a folder; name a file")
    place = place_written(path)
    if not place.exists():
        raise argparse.ArgumentTypeError(f"[{path}]: there is no folder [{place}]")
    if not os.access(place, os.W_OK):
        raise argparse.ArgumentTypeError(f"[{path}]: [{place}] cannot be written")
    return path


def model_source(text: str) -> str:
    """A pretrained model's name, or the path of its folder, as the type of an argument."""
    return str(user_path(text))


def model_names() -> str:
    """The names of our models, for a help text."""
    return f"{', '.join(MODELS)}, or any general model of RecBole's: LightGCN, …"


def config_keys(arguments: list[str], **elsewhere: str) -> dict[str, Any]:
    """The config keys among a command's arguments.

    Args:
        arguments: those that are no options of the command.
        elsewhere: a key that the command does not read → what to give instead.

    Raises:
        ConfigError: an argument sets one of these keys, or is not ``--key=value``.
    """
    from recbole_sigrec.config.values import parse_command_line

    values = parse_command_line(arguments)
    for key in elsewhere.keys() & values.keys():
        raise ConfigError(f"--{key} is not read by this command: {elsewhere[key]}")
    return values


def need_text_encoder(model: str | None) -> None:
    """See that the library of a text encoder is installed, where the user names one.

    Raises:
        SIGRecError: it is not.
    """
    if model not in (None, "tfidf"):
        need("text", f"model [{model}]", ", or name the model `tfidf`")


def need_recbole() -> None:
    """See that RecBole is installed.

    Raises:
        SIGRecError: it is not; on Python 3.12 and later pip leaves it out.
    """
    if find_spec("recbole") is None:
        raise SIGRecError(
            "RecBole is not installed; on Python 3.12 and later it is installed on its own: "
            "pip install --no-deps recbole==1.2.1"
        )
