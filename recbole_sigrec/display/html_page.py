"""HTML pages that need nothing else: Plotly's script is inside (some 5 MB)."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from recbole_sigrec.display.page_style import STYLE

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
{style}</style>
<script>{plotly}</script>
<main>
<h1>{title}</h1>
{body}
</main>
<script>
// A chart gets the colour of the page's text, and is higher by its legend, however long that is.
const charts = [...document.querySelectorAll(".plotly-graph-div")];
const paint = (chart) =>
  Plotly.relayout(chart, {{"font.color": getComputedStyle(document.body).color}});
const fit = (chart) => {{
  const legend = chart.querySelector(".legend")?.getBoundingClientRect().height ?? 0;
  const height = Number(chart.closest("[data-height]").dataset.height) + legend;
  if (Math.abs(height - chart.layout.height) < 1) return;
  chart.parentElement.style.height = `${{height}}px`;
  Plotly.relayout(chart, {{height}});
}};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(paint));
charts.forEach((chart) => {{
  chart.on("plotly_afterplot", () => fit(chart));
  paint(chart);
}});
</script>
</html>
"""


def html_page(title: str, sections: Iterable[tuple[str, str]]) -> str:
    """A page of sections.

    Args:
        title: plain text.
        sections: a heading and its content each, both HTML.
    """
    title = html.escape(title)
    body = "\n".join(f"<section><h2>{head}</h2>\n{text}</section>" for head, text in sections)
    style = STYLE.read_text("utf-8")
    return PAGE.format(title=title, style=style, plotly=get_plotlyjs(), body=body)


def wide(table: str, about: str) -> str:
    """A table, HTML, in a frame that is scrolled by itself, by keyboard too.

    Args:
        about: plain text that names the table.
    """
    about = html.escape(about, quote=True)
    return f'<div class="wide" role="region" aria-label="{about}" tabindex="0">{table}</div>'


def chart(name: str, figure: go.Figure, about: str, height: int = 380) -> str:
    """A figure as a part of the page, in its style, with its values as a table.

    Args:
        name: of the chart in the page.
        about: plain text that stands for the chart where it is not seen.
        height: of the chart without its legend, pixels.
    """
    figure.update_layout(
        height=height,
        margin={"l": 50, "r": 15, "t": 20, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#777"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    axis = {"gridcolor": "rgba(128,128,128,.25)", "zeroline": False, "automargin": True}
    figure.update_xaxes(rangemode="nonnegative", **axis)  # else of zeros alone: from -1
    figure.update_yaxes(rangemode="nonnegative", **axis)
    config = {"displayModeBar": False, "responsive": True}
    drawn = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"chart-{name}", config=config
    )
    label, values = html.escape(about, quote=True), wide(_values(figure), f"values: {about}")
    image = f'<div role="img" aria-label="{label}" data-height="{height}">{drawn}</div>'
    return f"<figure>{image}<details><summary>As a table</summary>{values}</details></figure>\n"


def _values(figure: go.Figure) -> str:
    """The points of a figure as a table: the trace's ``meta`` or name, if it has one; x and y."""
    traces: Any = figure.data
    axes = (figure.layout.xaxis, figure.layout.yaxis)
    rows = [["", *(axis.title.text or "" for axis in axes)]]
    for trace in traces:
        name = trace.meta or trace.name or ""
        rows += [[name, *map(_cell, point)] for point in zip(trace.x, trace.y)]
    named = any(name for name, *_ in rows)
    return html_table(rows if named else [row[1:] for row in rows])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("<br>", " ")


def html_table(rows: Sequence[Sequence[str]], foot: Sequence[str] = ()) -> str:
    """A table; the cells are HTML, and the first row is its head."""

    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    head, *body = rows
    lines = "\n".join(row(cells, "td") for cells in body)
    last = f"<tfoot>{row(foot, 'td')}</tfoot>" if foot else ""
    return f"<table><thead>{row(head, 'th')}</thead>\n<tbody>{lines}</tbody>{last}</table>"
