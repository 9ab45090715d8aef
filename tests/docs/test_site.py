"""The site: it is built from docs/ without a warning, and its reference leaves nothing out."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
import sys
from pathlib import Path
from typing import get_type_hints as type_hints

import pytest

import recbole_sigrec
from recbole_sigrec.cli import COMMANDS, command_module
from recbole_sigrec.config import Keys
from recbole_sigrec.config.keys import UNTYPED, PluginKeys, RecBoleKeys
from recbole_sigrec.config.property_files import known_keys
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.config.values import parse_command_line
from recbole_sigrec.model_names import MODELS

LAZY = {"Client": object}  # Dask's, which is imported where a cluster is used
RESULTS_OF = ("run", "compare", "ablate", "tune")  # they return a class of their own
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
pytest.importorskip("sphinx")
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is in the repository alone")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as Sphinx has read it and resolved its links, and what it warned of."""
    from sphinx.application import Sphinx

    folder, warnings = tmp_path_factory.mktemp("site"), io.StringIO()
    path = list(sys.path)
    app = Sphinx(
        *(DOCS, DOCS, folder / "out", folder / "trees", "dummy"),
        confoverrides={"nitpicky": True},
        status=None,
        warning=warnings,
    )
    with contextlib.closing(warnings):
        app.build()
        found = warnings.getvalue()
    sys.path[:] = path
    return app, found


def entries(app, kind: str) -> set[str]:
    """What has an entry of a kind, as ``std:confval``."""
    domain, _, of = kind.partition(":")
    return {name for name, _, kind, *_ in app.env.domains[domain].get_objects() if kind == of}


def declared_keys() -> set[str]:
    """Every key that a class declares, wherever the class is, and RecBole's that have a role."""
    found, classes = set(UNTYPED), [PluginKeys, RecBoleKeys]
    classes += [resolve_model(model).Keys for model in MODELS]
    for keys in classes:
        assert issubclass(keys, Keys)
        found |= {*keys.model_fields}
    return found


def test_nothing_is_warned_of(site):
    """Among others: a link that leads nowhere, a page in no table of contents."""
    assert site[1] == ""


def test_every_config_key_is_there(site):
    assert declared_keys() <= entries(site[0], "std:confval")


def test_the_entry_of_a_key_tells_what_is_declared(site):
    page = " ".join(site[0].env.get_doctree("reference/config-keys").astext().split())
    page = page.replace(" , ", ", ")
    for told in (
        "collab_weight Type float, at least 0, at most 1 α, the share of collaborative signals",
        "fusion Type mean, attention, behavior How the h^m are fused. Default mean: SIGRec.",
        "topk Type list of int, above 0 Default [5, 10, 20, 50] Their cutoffs.",
        "device Refused: give use_gpu: False for the CPU, or gpu_id for a GPU.",
    ):
        assert told in page


def programs() -> dict[str, argparse.ArgumentParser]:
    """Each command and the commands inside it: name → parser."""
    found = {f"recbole-sigrec {name}": command_module(name).parser() for name in COMMANDS}
    for name, parser in list(found.items()):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= {f"{name} {inner}": one for inner, one in action.choices.items()}
    return found


def test_every_command_and_argument_is_there(site):
    found = entries(site[0], "std:cmdoption")
    page = site[0].env.get_doctree("reference/commands").astext()
    assert "recbole-sigrec encode text" in programs()
    for name, parser in programs().items():
        assert f"{name}\n" in page
        for action in parser._actions:
            for option in action.option_strings or [action.metavar or action.dest]:
                assert f"{name.replace(' ', '-')}.{option}" in found


def test_every_public_name_is_there(site):
    found = entries(site[0], "py:function") | entries(site[0], "py:class")
    assert {f"recbole_sigrec.{name}" for name in recbole_sigrec.__all__} <= found
    results = {
        type_hints(getattr(recbole_sigrec, name), localns=LAZY).get("return") for name in RESULTS_OF
    }
    assert {f"{one.__module__}.{one.__name__}" for one in results} <= found


def commands_of_the_pages() -> list[list[str]]:
    """The commands in the blocks of shell and in the lines of README and the site's pages."""
    found = []
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        text = page.read_text("utf-8").replace("\\\n", " ")
        lines = re.findall(r"`(recbole-sigrec [^`\n]+)`", text)
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S):
            lines += [line for line in block.splitlines() if line.startswith("recbole-sigrec ")]
        found += [shlex.split(line, comments=True)[1:] for line in lines]
    return found


def test_every_command_of_the_pages_can_be_read(tmp_path, monkeypatch):
    """There is such a command, it has these options, and what remains are known config keys."""
    monkeypatch.chdir(tmp_path)
    known, used = known_keys() | declared_keys(), set()
    for name, *arguments in commands_of_the_pages():
        if name.startswith("-") or name == "COMMAND":
            continue
        used.add(name)
        if not arguments or arguments[0] not in ("text", "image"):
            parser = command_module(name).parser()
        else:
            parser = programs()[f"recbole-sigrec {name} {arguments.pop(0)}"]
        for needed in (*parser._actions, *parser._mutually_exclusive_groups):
            needed.required = False  # a line may show an option alone
        for action in parser._actions:
            action.nargs = action.nargs if action.option_strings else "*"
        _, rest = parser.parse_known_args([one for one in arguments if one not in ("…", "--help")])
        assert {*parse_command_line(rest)} <= known, (name, arguments)
    assert used == set(COMMANDS)


def test_the_version_is_the_same_everywhere():
    version = recbole_sigrec.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest[1] == version


def test_the_links_of_other_documents_lead_somewhere():
    """README and the like are no pages of the site: their links to files are looked at here."""
    lost = []
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text("utf-8")):
            if "://" not in target and not target.startswith(("#", "mailto:")):
                path, _, _ = target.partition("#")
                lost += [] if (ROOT / path).exists() else [f"{name}: {target}"]
    assert lost == []
