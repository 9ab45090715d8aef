"""Curves over a parameter: a chart for each, a CSV, and a table for the terminal."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from recbole_sigrec.comparison.report import line_styles, marked_line
from recbole_sigrec.comparison.results import ComparisonResult, cell, shown_metrics
from recbole_sigrec.display.html_page import chart, html_page
from recbole_sigrec.display.terminal import text_table
from recbole_sigrec.files import write_csv, write_text


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a curve."""

    name: str  # of the horizontal axis
    label: str  # of the line
    x: float
    arm: dict[str, Any]  # of a comparison's results: ``mean`` and ``std`` of each test metric


def write(title: str, points: Sequence[Point], results: ComparisonResult, folder: Path) -> str:
    """Write ``curves.csv`` and ``curves.html``.

    Args:
        results: of a comparison with the points' metrics.

    Returns:
        The table: for each curve a line per label, a column per x.
    """
    metric = shown_metrics(results)[-1]
    names = dict.fromkeys(point.name for point in points)
    curves = {name: [point for point in points if point.name == name] for name in names}
    sections = [
        (html.escape(name), chart(f"curve-{n}", _figure(own, metric), f"test {metric} over {name}"))
        for n, (name, own) in enumerate(curves.items())
    ]
    write_csv(_rows(points), folder / "curves.csv")
    write_text(html_page(title, sections), folder / "curves.html")
    tables = (_table(own, metric) for own in curves.values())
    return "\n\n".join([f"{title}: test {metric}", *tables])


def _figure(points: Sequence[Point], metric: str) -> go.Figure:
    """Mean and standard deviation over x, a line per label."""
    figure = go.Figure()
    labels = dict.fromkeys(point.label for point in points)
    for label, style in line_styles(labels).items():
        own = [point for point in points if point.label == label]
        line = marked_line(
            label,
            style,
            x=[point.x for point in own],
            y=[point.arm["mean"][metric] for point in own],
            error_y={"array": [point.arm["std"][metric] or 0 for point in own]},
            showlegend=len(labels) > 1,
            hovertemplate="%{fullData.name}, %{x}: %{y:.4f}<extra></extra>",
        )
        figure.add_trace(line)
    xaxis = {"title": points[0].name, "tickvals": [point.x for point in points]}
    return figure.update_layout(xaxis=xaxis, yaxis_title=f"test {metric}")


def _table(points: Sequence[Point], metric: str) -> str:
    xs = list(dict.fromkeys(point.x for point in points))
    rows = [[points[0].name, *map(str, xs)]]
    for label in dict.fromkeys(point.label for point in points):
        own = {point.x: cell(point.arm, metric) for point in points if point.label == label}
        rows.append([label, *(own[x] for x in xs)])
    return text_table(rows)


def _rows(points: Sequence[Point]) -> Iterator[tuple]:
    """A line per point and metric."""
    yield ("curve", "label", "x", "metric", "mean", "std")
    for point in points:
        for metric, mean in point.arm["mean"].items():
            if "@" in metric:
                yield point.name, point.label, point.x, metric, mean, point.arm["std"][metric]
