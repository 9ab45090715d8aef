"""What the page shows: titles and pictures, a history beside its recommendations, and why."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from recbole_sigrec.errors import DataError, did_you_mean
from recbole_sigrec.serving.recommender import Recommender

PAGE = Path(__file__).parent / "page"
"""The page's files."""
TITLE, PICTURE = "title", "picture"
"""The columns that are shown where a bundle has them."""
SHOWN = 12
"""Recommendations, and items that a search finds."""
SIMILAR = 6
"""Similar items of each kind."""
STRONGEST = 3
"""Items of the history that are shown as reasons of a recommendation."""


def web_address(value: object) -> str | None:
    """A picture's address that a page may load, or None; files of this machine are not served."""
    text = str(value)
    return text if text.startswith(("https://", "http://", "data:image/")) else None


@dataclasses.dataclass(frozen=True)
class Views:
    """What the page shows of a bundle; all of it in JSON's types.

    Args:
        title, picture: columns of the bundle; the token and no picture where it has none.
        address: the value of a picture → its address, or None.
    """

    recommender: Recommender
    title: str = TITLE
    picture: str = PICTURE
    address: Callable[[object], str | None] = web_address

    def check_columns(self) -> None:
        """See that columns with names other than the usual ones are there.

        Raises:
            DataError: one is not.
        """
        columns = self.recommender.columns
        for name in (self.title, self.picture):
            if name not in columns and name not in (TITLE, PICTURE):
                raise DataError(
                    f"the bundle has no column [{name}].{did_you_mean(name, columns)} It has: "
                    f"{', '.join(columns) or 'none'}"
                )

    def about(self) -> dict[str, Any]:
        """Of what the page is."""
        manifest = self.recommender.manifest
        return {"model": manifest["model"], "dataset": manifest["dataset"]}

    def cards(self, tokens: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Item → its title and picture."""
        return {token: self._card(token) for token in tokens}

    def users(self, search: str) -> list[str]:
        """The first users whose token has a text in it."""
        return list(islice((u for u in self.recommender.users.names if search in u), SHOWN))

    def items(self, search: str) -> dict[str, Any]:
        """The first items whose token or title has a text in it, in upper or lower case."""
        search, names = search.casefold(), self.recommender.items.names
        titles = self.recommender.columns.get(self.title, names)
        found = (
            token
            for token, title in zip(names, titles)
            if search in token.casefold() or search in str(title or "").casefold()
        )
        tokens = list(islice(found, SHOWN))
        return {"found": tokens, "items": self.cards(tokens)}

    def view(self, user: str | None, history: Sequence[str] = ()) -> dict[str, Any]:
        """The recommendations for a user, or for a history, and why.

        Returns:
            ``history``: tokens; ``recommended``: for each its item, score, ``parts`` and
            ``sources``: pairs of a name and what it adds to the score; ``items``: see
            :meth:`cards`. An empty history gets the most popular items, without reasons.
        """
        whose: dict[str, Any] = {"history": list(history)} if user is None else {"user": user}
        k = min(SHOWN, len(self.recommender.items))
        if user is None:
            found = self.recommender.rank(history=[history], k=k, unknown="new")
        else:
            seen, rows = self.recommender.seen, self.recommender.users.find([user])
            taken = [] if seen is None else seen[rows].indices
            history = self.recommender.items.names[taken].tolist()
            has = "none" if seen is None else "seen"
            found = self.recommender.rank(user, k, exclude=has)
        best, scores = found.items[0].tolist(), found.scores[0].tolist()
        why = {} if user is None and not history else self._reasons(whose, best)
        none: dict[str, Any] = {"parts": [], "sources": []}
        return {
            "history": list(history),
            "recommended": [
                {"item": item, "score": score, **why.get(item, none)}
                for item, score in zip(best, scores)
            ],
            "items": self.cards([*history, *best, *_sources(why)]),
        }

    def similar(self, items: Sequence[str]) -> dict[str, Any]:
        """The items most like some.

        Returns:
            ``by``: item → behavior or a modality → pairs of a similar item and its score, which is
            positive; ``items``: see :meth:`cards`.
        """
        k = min(SIMILAR, len(self.recommender.items))
        kinds = ("behavior", *self.recommender.content.modalities)
        by: dict[str, Any] = {item: {kind: [] for kind in kinds} for item in items}
        shown = dict.fromkeys(items)
        for kind in kinds:
            table = self.recommender.similar(items, k, by=kind)
            for item, other, score in zip(table["item"], table["similar"], table["score"].tolist()):
                if score > 0:
                    by[item][kind].append([other, score])
                    shown[other] = None
        return {"by": by, "items": self.cards(list(shown))}

    def _card(self, token: str) -> dict[str, Any]:
        row, columns = self.recommender.items.rows[token], self.recommender.columns
        title, picture = (
            columns[name][row] if name in columns else None for name in (self.title, self.picture)
        )
        address = self.address(picture) if picture else None
        return {"title": str(title) if title else token, "picture": address}

    def _reasons(self, whose: dict[str, Any], items: list[str]) -> dict[str, dict[str, Any]]:
        """Item → the sums of its parts, and of the strongest items of the history."""
        parts: dict[str, Any] = defaultdict(lambda: defaultdict(float))
        sources: dict[str, Any] = defaultdict(lambda: defaultdict(float))
        table = self.recommender.explain(items=items, **whose)
        for item, part, source, addend in table.itertuples(index=False):
            parts[item][part] += addend
            if source != "learned" and addend:
                sources[item][source] += addend
        return {
            item: {
                "parts": list(parts[item].items()),
                "sources": sorted(sources[item].items(), key=lambda s: -abs(s[1]))[:STRONGEST],
            }
            for item in items
        }


def _sources(why: dict[str, dict[str, Any]]) -> list[str]:
    return [source for reasons in why.values() for source, _ in reasons["sources"]]
