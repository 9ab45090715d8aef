"""The prose of README and of the site's pages, as proselint reads it.

What is left out is in ``.proselintrc.json``. Code, equations and the targets of links are no prose.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXCEPTIONS = ROOT / ".proselintrc.json"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
MOST_EXCEPTIONS = 10

pytest.importorskip("proselint")
pytestmark = pytest.mark.skipif(not PAGES, reason="the pages are in the repository alone")

NO_PROSE = re.compile(
    r"^```.*?^```|^\$\$.*?\$\$|``.+?``|`[^`]+`|\$[^$\n]+\$|\]\([^)]*\)|https?://\S+", re.M | re.S
)


def prose(page: Path) -> str:
    """The text with a word for each piece that is no prose; lines stay where they are."""
    text = page.read_text("utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    number = itertools.count()  # a word of its own, as proselint looks for repetitions
    return NO_PROSE.sub(lambda match: f"q{next(number)}z" + "\n" * match[0].count("\n"), text)


@pytest.fixture(scope="module")
def config():
    from proselint.checks import __register__
    from proselint.config import load_from
    from proselint.registry import CheckRegistry

    CheckRegistry().register_many(__register__)
    return load_from(EXCEPTIONS)


def found(text: str, config) -> list[str]:
    from proselint.tools import LintFile

    return [
        f"line {result.pos[0]}: {result.check_result.message}"
        for result in LintFile("page", text).lint(config)
    ]


def test_few_exceptions():
    def flat(checks: dict) -> int:
        return sum(flat(value) if isinstance(value, dict) else 1 for value in checks.values())

    assert flat(json.loads(EXCEPTIONS.read_text("utf-8"))["checks"]) <= MOST_EXCEPTIONS


def test_an_error_is_found(config):
    assert len(found("It is a very unique result.\n", config)) >= 1
    assert found("It is a result.\n", config) == []


def test_the_prose(config):
    wrong = {str(page.relative_to(ROOT)): found(prose(page), config) for page in PAGES}
    assert {page: messages for page, messages in wrong.items() if messages} == {}
