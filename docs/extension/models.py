"""The reference of the models, made from the list of their names.

``.. models-table::`` is a table of all; ``.. models::`` writes a section for each, with the text of
its module, which has the equations and the deviations, and its class.
"""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.rst import escape

from extension.sections import SectionsDirective, indented
from recbole_sigrec.model_names import KNOWN, MODELS


class ModelsTable(SphinxDirective):
    """``.. models-table::``, see the module."""

    def run(self) -> list[nodes.Node]:
        """Write it."""
        rows = [("model", "published", "what it does")]
        for name, known in KNOWN.items():
            link = f":py:class:`~recbole_sigrec.{name}`"
            rows.append((link, escape(known.published), escape(known.about)))
        lines = [f"* - {first}\n  - {second}\n  - {third}" for first, second, third in rows]
        text = ".. list-table::\n   :header-rows: 1\n\n" + indented("\n".join(lines))
        return self.parse_text_to_nodes(text)


class Models(SectionsDirective):
    """``.. models::``, see the module."""

    def run(self) -> list[nodes.Node]:
        """Write them."""
        made = [
            self.section(
                name,
                f".. automodule:: {module}\n   :no-members:\n\n"
                f".. autoclass:: recbole_sigrec.{name}\n   :show-inheritance:\n",
            )
            for name, module in MODELS.items()
        ]
        for section in made:
            for signature in section.findall(addnodes.desc_signature):
                signature["_toc_name"] = ""  # the section is in the table of contents already
        return list(made)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("models-table", ModelsTable)
    app.add_directive("models", Models)
    return {"parallel_read_safe": True}
