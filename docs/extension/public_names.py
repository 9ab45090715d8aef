"""References by a public name's own module lead to its entry, which has the public name."""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import recbole_sigrec


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.reference | None:
    """The link to the entry of a name that is exported by ``recbole_sigrec``; else none."""
    name = str(node.get("reftarget")).rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in recbole_sigrec.__all__:
        return None
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"recbole_sigrec.{name}", node, content
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it for references that lead nowhere else."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
