"""The figures of a data set as one HTML page, with histograms."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from recbole_sigrec.display.html_page import chart, html_page, html_table, wide
from recbole_sigrec.display.page_style import COLOURS
from recbole_sigrec.inspection.figures import MODALITY_COLUMNS, as_text, modality_rows


def as_page(figures: dict[str, Any]) -> str:
    """The figures of :func:`recbole_sigrec.inspection.inspect` as HTML."""
    summary = as_text({**figures, "modalities": {}, "warnings": []}).splitlines()[:2]
    rows = [MODALITY_COLUMNS, *modality_rows(figures)]
    table = html_table([[escape(cell) for cell in row] for row in rows])
    about = [
        *(f"<p>{escape(line)}</p>" for line in summary),
        wide(table, "modalities"),
        *(f'<p class="warning">{escape(warning)}</p>' for warning in figures["warnings"]),
    ]
    return html_page(figures["dataset"], [("Figures", "\n".join(about)), *_charts(figures)])


def _charts(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and chart of each histogram."""
    for one, many in (("a user", "users"), ("an item", "items")):
        histogram = figures[f"{many}_degree"]
        spans = [_span(*pair) for pair in pairwise(histogram["edges"])]
        axes, about = ("interactions", many), f"numbers of {many} by their training interactions"
        drawn = _bars(f"{many}_degree", spans, histogram["counts"], axes, about)
        yield f"Training interactions of {one}", drawn
    for n, (name, modality) in enumerate(figures["modalities"].items()):
        histogram = modality["norms_histogram"]
        middles = [(a + b) / 2 for a, b in pairwise(histogram["edges"])]
        axes, about = ("norm", "items"), f"numbers of items by the norm of {name}"
        drawn = _bars(f"norms-{n}", middles, histogram["counts"], axes, about)
        yield f"Norms of {escape(name)}", drawn


def _bars(name: str, x: list, counts: list[int], axes: tuple[str, str], about: str) -> str:
    figure = go.Figure(go.Bar(x=x, y=counts, marker={"color": COLOURS[0]}))
    figure.update_layout(bargap=0.05).update_yaxes(title=axes[1])
    figure.update_xaxes(title=axes[0], type="category" if isinstance(x[0], str) else "linear")
    return chart(name, figure, about, height=320)


def _span(first: int, beyond: int) -> str:
    """The counts of a bin as text: ``4–7``."""
    return str(first) if beyond == first + 1 else f"{first}–{beyond - 1}"
