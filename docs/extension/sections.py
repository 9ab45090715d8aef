"""What the directives share that write sections of reStructuredText."""

from __future__ import annotations

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class SectionsDirective(SphinxDirective):
    """Base of a directive whose content is made from declarations: titles, and text below each."""

    def section(self, title: str, text: str) -> nodes.section:
        """A section.

        Args:
            title: of the section; its identifier is made of it.
            text: reStructuredText.
        """
        made = nodes.section(names=[nodes.fully_normalize_name(title)])
        made += nodes.title("", title)
        self.set_source_info(made)
        self.state.document.note_implicit_target(made, made)
        made += self.parse_text_to_nodes(text)
        return made


def indented(text: str, by: int = 3) -> str:
    """A text with each line that is not empty moved to the right."""
    return "\n".join(" " * by + line if line.strip() else "" for line in text.splitlines())
