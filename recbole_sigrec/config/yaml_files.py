"""YAML of a user's, read with bounds.

A small text can stand for more than memory holds, and PyYAML reads some 10,000 values a second.
"""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar

import yaml

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.user_paths import user_path

MOST_BYTES = 2**18
"""Of a file."""
MOST_LEVELS = 100
"""Of lists and mappings in one another."""
MOST_VALUES = 10_000
"""In one text; what an alias stands for counts each time."""

_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")


class YamlLoader(yaml.SafeLoader):
    """A safe YAML loader that reads 1e-3 as a number, as RecBole's does, and dates as text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    yaml_constructors: ClassVar = {  # no sets, bytes, dates and pairs: JSON has none
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _KINDS
    }

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._level = 0
        self._values: dict[yaml.Node, int] = {}  # how many stand in a node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node of the text, which may stand there before, under an alias."""
        alias = self.check_event(yaml.AliasEvent)
        self._level += 1
        if self._level > MOST_LEVELS:
            raise yaml.YAMLError(f"it nests more than {MOST_LEVELS} levels, which is the limit")
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return None
        if alias and node not in self._values:
            raise yaml.YAMLError("a value holds itself")
        self._values[node] = self._count(node)
        return node

    def _count(self, node: yaml.Node) -> int:
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in inner for part in pair]
        total = 1 + sum(self._values[part] for part in inner)
        if max(total, len(self._values)) > MOST_VALUES:
            raise yaml.YAMLError(
                f"it holds more than {MOST_VALUES:,} values, which is the limit; what an alias "
                f"stands for counts each time"
            )
        return total


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is none, or larger than it may be.
    """
    try:
        return yaml.load(text, Loader=YamlLoader)
    # PyYAML's own code fails in all of these ways, as at `!!bool x` and at `0b_`.
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(error)) from None


def read_text(file: str | os.PathLike[str], what: str) -> str:
    """The text of a user's file.

    Args:
        file: its path.
        what: what it is, for the errors.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with open(user_path(file), "rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{what} [{file}] does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{what} [{file}] cannot be read: {reason}") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{what} [{file}] has more than {MOST_BYTES:,} bytes, which is the limit")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} [{file}] cannot be read: it is not YAML in UTF-8 ({error})"
        ) from None


def yaml_of(text: str, where: str) -> Any:
    """The value of a file's text; ``where`` names the file, for the error.

    Raises:
        ConfigError: it is not YAML, or is larger than it may be.
    """
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not YAML: {error}") from None


def read_yaml(file: str | os.PathLike[str], what: str) -> Any:
    """The value of a user's YAML file; see :func:`read_text` and :func:`yaml_of`."""
    return yaml_of(read_text(file, what), f"{what} [{file}]")
