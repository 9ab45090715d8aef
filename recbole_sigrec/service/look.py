"""The page as one file, for some users, with all that it shows."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
from pathlib import Path
from typing import Any

import numpy as np

from recbole_sigrec.display.page_style import STYLE
from recbole_sigrec.errors import DataError
from recbole_sigrec.files import write_text
from recbole_sigrec.service.page_views import PAGE, Views, web_address
from recbole_sigrec.serving.recommender import Recommender

MOST_BYTES, MOST_BYTES_IN_ALL = 200_000, 30_000_000
"""Of a picture that is embedded, and of all."""
_BATCH = 64  # items whose similar ones are sought at a time


class Pictures:
    """Addresses of pictures: those of the web as they are, files with their content.

    Args:
        folder: where the files are, unless they are named in full.

    Attributes:
        left_out: files that are not there, no pictures, or too large.
    """

    def __init__(self, folder: Path):
        self._folder, self._known, self._bytes = folder, {}, 0
        self.left_out: list[str] = []

    def address(self, value: object) -> str | None:
        """The address of a picture, or None."""
        if value not in self._known:
            self._known[value] = web_address(value) or self._content(str(value))
        return self._known[value]

    def _content(self, name: str) -> str | None:
        kind, content = mimetypes.guess_type(name)[0] or "", b""
        try:
            file = self._folder / name
            if kind.startswith("image/") and file.stat().st_size <= MOST_BYTES:
                content = file.read_bytes()
        except (OSError, ValueError):
            pass
        if not content or self._bytes + len(content) > MOST_BYTES_IN_ALL:
            self.left_out.append(name)
            return None
        self._bytes += len(content)
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write_look(
    recommender: Recommender, out: Path, title: str, picture: str, pictures: Pictures, users: int
) -> None:
    """Write the page of some users, spread evenly over those who have taken something.

    Args:
        title, picture: columns of the recommender.
        pictures: embeds the pictures.
        users: how many, at most.

    Raises:
        DataError: the number of users is not positive, a column is lacking, or the file cannot be
            written.
    """
    if users < 1:
        raise DataError(f"users = [{users}]: give a whole number from 1")
    views = Views(recommender, title, picture, pictures.address)
    views.check_columns()
    seen = recommender.seen
    rows = np.arange(len(recommender.users))
    if seen is not None and seen.nnz:
        rows = np.flatnonzero(np.diff(seen.indptr))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(users, len(rows))).astype(np.int64))]
    data: dict[str, Any] = {"about": views.about(), "views": {}, "by": {}, "items": {}}
    for user in recommender.users.names[rows]:
        view = views.view(user)
        data["items"] |= view.pop("items")
        data["views"][user] = view
    shown = list(data["items"])
    for start in range(0, len(shown), _BATCH):
        similar = views.similar(shown[start : start + _BATCH])
        data["by"] |= similar["by"]
        data["items"] |= similar["items"]
    write_text(_page(data), out)


def _page(data: dict[str, Any]) -> str:
    page, style, own, script = (
        path.read_text("utf-8")
        for path in (PAGE / "index.html", STYLE, PAGE / "page.css", PAGE / "page.js")
    )
    style += own
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src http: https: data:; base-uri 'none'; form-action 'none'"
    )
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    embedded = f'<script type="application/json" id="data">{text}</script>'
    for linked, whole in {
        '<meta charset="utf-8">': '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<link rel="stylesheet" href="style.css">\n<link rel="stylesheet" href="page.css">': (
            f"<style>{style}</style>"
        ),
        '<script src="page.js"></script>': f"{embedded}\n<script>{script}</script>",
    }.items():
        before, after = page.split(linked)
        page = before + whole + after
    return page


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
