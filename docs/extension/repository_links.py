"""Links into the repository that the site has no page for: it shows their text alone.

MyST offers any other file outside of docs/ for download. It has nothing for a folder, and takes a
Markdown file for a page.
"""

from __future__ import annotations

from pathlib import Path

from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class RepositoryLinks(SphinxTransform):
    """Replaces the link to a folder, or to a Markdown file outside of docs/, by the link's text."""

    default_priority = 5

    def apply(self, **kwargs: object) -> None:
        """Look at every link of the page."""
        root = Path(self.env.srcdir)
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link.get("reftype") != "myst":
                continue
            if link.get("refdomain") == "doc":
                place = root / f"{link['reftarget']}.md"
            else:
                place = Path(self.env.relfn2path(link["reftarget"], self.env.docname)[1])
            outside = root not in place.resolve().parents and place.is_file()
            if place.is_dir() or outside:
                link.replace_self(link.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(RepositoryLinks)
    return {"parallel_read_safe": True}
