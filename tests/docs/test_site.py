"""The site: it is built from docs/ without a warning, and its reference leaves nothing out."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

import recbole_sigrec
from recbole_sigrec.cli import COMMANDS, command_module
from recbole_sigrec.config import Keys
from recbole_sigrec.config.keys import UNTYPED, PluginKeys, RecBoleKeys
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.model_names import MODELS

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


def test_every_command_and_argument_is_there(site):
    found = entries(site[0], "std:cmdoption")
    for name in COMMANDS:
        for action in command_module(name).parser()._actions:
            for option in action.option_strings or [action.metavar or action.dest]:
                assert f"recbole-sigrec-{name}.{option}" in found
    page = site[0].env.get_doctree("reference/commands").astext()
    assert all(f"recbole-sigrec {name}\n" in page for name in COMMANDS)


def test_every_public_name_is_there(site):
    found = entries(site[0], "py:function") | entries(site[0], "py:class")
    assert {f"recbole_sigrec.{name}" for name in recbole_sigrec.__all__} <= found


def test_every_command_of_the_site_is_one(site):
    """In its blocks of shell: a command that there is, with arguments that it has."""
    used = set()
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"(?:\$ )?recbole-sigrec (\S+)", line)
                if match and not match[1].startswith("-"):
                    used.add(match[1])
    assert used <= set(COMMANDS)
    assert len(used) > 8


def test_the_links_of_other_documents_lead_somewhere():
    """README and the like are no pages of the site: their links to files are looked at here."""
    lost = []
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text("utf-8")):
            if "://" not in target and not target.startswith(("#", "mailto:")):
                path, _, _ = target.partition("#")
                lost += [] if (ROOT / path).exists() else [f"{name}: {target}"]
    assert lost == []
