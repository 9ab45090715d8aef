"""The layout of the package: layers of imports, sizes of files and functions."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_sigrec

PACKAGE = Path(recbole_sigrec.__file__).parent
ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports_command as command; command()"
MOST_LINES = {"of a file": 400, "of a function": 50}


def test_imports_keep_to_the_layers():
    """The contract is in pyproject.toml."""
    pytest.importorskip("importlinter")
    if not (ROOT / "pyproject.toml").is_file() or PACKAGE.parent != ROOT:
        pytest.skip("the package is not that of the repository")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as c; c()",
            "--no-cache",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "2 kept, 0 broken" in done.stdout, done.stdout + done.stderr


def test_no_file_is_long():
    long = {
        str(file.relative_to(PACKAGE)): n
        for file in PACKAGE.rglob("*.py")
        if (n := len(file.read_text("utf-8").splitlines())) > MOST_LINES["of a file"]
    }
    assert long == {}


LONG_FUNCTIONS = {
    "model/losses.py:forward": "InfoNCE's loss and gradients, whose blocks share a dozen tensors",
}
"""Functions of more than 50 lines: name → why."""


def test_no_function_is_long():
    """A docstring does not count: shapes, errors and sources take the lines that they need."""
    long = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                n = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node) is not None:
                    n -= node.body[0].end_lineno - node.body[0].lineno + 1
                if n > MOST_LINES["of a function"]:
                    long.add(f"{file.relative_to(PACKAGE)}:{node.name}")
    assert long == set(LONG_FUNCTIONS)


def test_every_public_function_is_annotated():
    """Parameters and results of all functions and methods whose name has no underscore."""
    bare = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            given += filter(None, (node.args.vararg, node.args.kwarg))
            names = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
            if names or node.returns is None:
                bare.append(f"{file.relative_to(PACKAGE)}:{node.lineno} {node.name} {names}")
    assert bare == []


POSIX_ONLY = set("crypt fcntl grp nis posix pty pwd resource spwd syslog termios tty".split())


def imported_always(body):
    """The modules that statements import when they are run, but in a ``try`` and in functions."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.ClassDef | ast.With | ast.If):
            yield from imported_always([*node.body, *getattr(node, "orelse", [])])


def test_no_module_needs_a_posix_system():
    """Such a module is imported in a ``try``; the memory of a process is told by psutil."""
    example = ast.parse("import a.b\ntry:\n    import c\nexcept ImportError:\n    c = None\n")
    assert list(imported_always(example.body)) == ["a"]
    found = {
        str(file.relative_to(PACKAGE)): wrong
        for file in PACKAGE.rglob("*.py")
        if (wrong := POSIX_ONLY & set(imported_always(ast.parse(file.read_text("utf-8")).body)))
        or "ru_maxrss" in file.read_text("utf-8")  # in KiB here, in bytes on macOS
    }
    assert found == {}


def test_no_two_files_have_one_name():
    names = [file.name for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    commands = {file.name for file in (PACKAGE / "commands").glob("*.py")}  # named as users type
    twice = {name for name in names if names.count(name) > 1}
    assert twice <= commands
