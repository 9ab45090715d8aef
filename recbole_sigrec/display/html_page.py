"""HTML pages that need nothing else: Plotly's script is inside (some 5 MB)."""

from __future__ import annotations

import html
from collections.abc import Iterable

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: light-dark(#1a1a1a, #e6e6e6); background: light-dark(#fff, #16181a); }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .75rem; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
thead th, tfoot td {{ border-bottom: 1px solid #8888; border-top: 1px solid #8888; }}
.wide {{ overflow-x: auto; }}
figure {{ margin: 0; }}
.warning {{ color: light-dark(#b00020, #ff8a80); }}
</style>
<script>{plotly}</script>
<h1>{title}</h1>
{body}
<script>
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.querySelectorAll(".plotly-graph-div").forEach(chart =>
  Plotly.relayout(chart, {{"font.color": getComputedStyle(document.body).color}}));
dark.addEventListener("change", paint);
paint();
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
    return PAGE.format(title=title, plotly=get_plotlyjs(), body=body)


def chart(name: str, figure: go.Figure, height: int = 420) -> str:
    """A figure as a part of the page, in its style; ``height`` in pixels."""
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#777"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor="rgba(128,128,128,.25)", zeroline=False, automargin=True)
    config = {"displayModeBar": False, "responsive": True}
    drawn = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"chart-{name}", config=config
    )
    return f"<figure>{drawn}</figure>\n"
