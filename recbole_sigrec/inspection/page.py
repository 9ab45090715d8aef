"""The figures of a data set as one HTML page, with histograms."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from recbole_sigrec.display.html_page import chart, html_page
from recbole_sigrec.inspection.figures import MODALITY_COLUMNS, as_text, modality_rows


def as_page(figures: dict[str, Any]) -> str:
    """The figures of :func:`recbole_sigrec.inspection.inspect` as HTML."""
    summary = as_text({**figures, "modalities": {}, "warnings": []}).splitlines()[:2]
    table = "".join(
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, rows in (("th", [MODALITY_COLUMNS]), ("td", modality_rows(figures)))
        for row in rows
    )
    about = [
        *(f"<p>{escape(line)}</p>" for line in summary),
        f'<div class="wide"><table>{table}</table></div>',
        *(f'<p class="warning">{escape(warning)}</p>' for warning in figures["warnings"]),
    ]
    return html_page(figures["dataset"], [("Figures", "\n".join(about)), *_charts(figures)])


def _charts(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and chart of each histogram."""
    degrees = (("Training interactions of a user", "users_degree"),)
    degrees += (("Training interactions of an item", "items_degree"),)
    for title, key in degrees:
        histogram = figures[key]
        spans = [_span(*pair) for pair in pairwise(histogram["edges"])]
        yield title, _bars(key, spans, histogram["counts"], "interactions", "category")
    for n, (name, modality) in enumerate(figures["modalities"].items()):
        histogram = modality["norms_histogram"]
        middles = [(a + b) / 2 for a, b in pairwise(histogram["edges"])]
        drawn = _bars(f"norms-{n}", middles, histogram["counts"], "norm", "linear")
        yield f"Norms of {escape(name)}", drawn


def _bars(name: str, x: list, counts: list[int], axis: str, kind: str) -> str:
    figure = go.Figure(go.Bar(x=x, y=counts))
    figure.update_layout(bargap=0.05).update_xaxes(title=axis, type=kind)
    return chart(name, figure, height=320)


def _span(first: int, beyond: int) -> str:
    """The counts of a bin as text: ``4–7``."""
    return str(first) if beyond == first + 1 else f"{first}–{beyond - 1}"
