"""The figures of a data set as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import Any

from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.inspection.figures import MODALITY_COLUMNS, as_text, modality_rows

STYLE = (
    "body { font-family: sans-serif; max-width: 75rem; margin: 2rem auto }"
    "td, th { padding: .2rem .7rem; text-align: right } .warning { color: #b00020 }"
)


def need_plotly():
    """Plotly's graph objects.

    Raises:
        SIGRecError: Plotly is not installed.
    """
    try:
        import plotly.graph_objects as graph_objects
    except ImportError:
        raise SIGRecError(
            'an HTML page needs Plotly: pip install "recbole_sigrec[report]"'
        ) from None
    return graph_objects


def as_page(figures: dict[str, Any]) -> str:
    """The figures of :func:`recbole_sigrec.inspection.inspect` as HTML, with histograms.

    Plotly's script is in the page (some 5 MB), which so can be read without a network.

    Raises:
        SIGRecError: Plotly is not installed.
    """
    graph_objects = need_plotly()
    charts = [
        ("Training interactions of a user", "interactions", figures["users_degree"], True),
        ("Training interactions of an item", "interactions", figures["items_degree"], True),
        *(
            (f"Norms of {name}", "norm", modality["norms_histogram"], False)
            for name, modality in figures["modalities"].items()
        ),
    ]
    parts = []
    for title, axis, histogram, doubling in charts:
        edges = histogram["edges"]
        if doubling:
            names = [_span(*pair) for pair in pairwise(edges)]
        else:
            names = [(a + b) / 2 for a, b in pairwise(edges)]
        chart = graph_objects.Figure(graph_objects.Bar(x=names, y=histogram["counts"]))
        chart.update_layout(title=title, height=320, bargap=0.05, template="plotly_white")
        chart.update_xaxes(title=axis, type="category" if doubling else "linear")
        parts.append(chart.to_html(full_html=False, include_plotlyjs=not parts))
    table = "".join(
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, rows in (("th", [MODALITY_COLUMNS]), ("td", modality_rows(figures)))
        for row in rows
    )
    summary = as_text({**figures, "modalities": {}, "warnings": []}).splitlines()[:2]
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f"<title>{escape(figures['dataset'])}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(figures['dataset'])}</h1>",
            *(f"<p>{escape(line)}</p>" for line in summary),
            f"<table>{table}</table>",
            *(f'<p class="warning">{escape(warning)}</p>' for warning in figures["warnings"]),
            *parts,
            "</body></html>\n",
        ]
    )


def _span(first: int, beyond: int) -> str:
    """The counts of a bin as text: ``4–7``."""
    return str(first) if beyond == first + 1 else f"{first}–{beyond - 1}"
