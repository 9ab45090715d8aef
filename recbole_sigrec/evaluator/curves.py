"""Curves over a parameter: a chart for each, a CSV, and a table for the terminal."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from texttable import Texttable

from recbole_sigrec.evaluator.report import chart, line_styles, write_page
from recbole_sigrec.evaluator.results import cell, shown_metrics
from recbole_sigrec.quick_start import write_text


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a curve.

    Attributes:
        name: what the horizontal axis is.
        label: which line it is on.
        x: where.
        arm: ``mean`` and ``std`` of each test metric, see the ``arms`` of a comparison's results.
    """

    name: str
    label: str
    x: float
    arm: dict[str, Any]


def write(title: str, points: Sequence[Point], results: dict[str, Any], folder: Path) -> str:
    """Write ``curves.csv`` and ``curves.html``.

    Args:
        results: of a comparison with the points' metrics.

    Returns:
        The table: for each curve a line per label, a column per x.
    """
    metric = shown_metrics(results)[-1]
    names = list(dict.fromkeys(point.name for point in points))
    sections = [
        (html.escape(name), chart(f"curve-{n}", _figure(_of(points, name), metric)))
        for n, name in enumerate(names)
    ]
    write_text(_csv(points), folder / "curves.csv")
    write_page(title, sections, folder / "curves.html")
    tables = (_table(_of(points, name), metric) for name in names)
    return "\n\n".join([f"{title}: test {metric}", *tables])


def _of(points: Sequence[Point], name: str) -> list[Point]:
    return [point for point in points if point.name == name]


def _figure(points: Sequence[Point], metric: str) -> go.Figure:
    """Mean and standard deviation over x, a line per label."""
    figure = go.Figure()
    labels = dict.fromkeys(point.label for point in points)
    for label, (colour, dash, symbol) in line_styles(labels).items():
        own = [point for point in points if point.label == label]
        figure.add_scatter(
            x=[point.x for point in own],
            y=[point.arm["mean"][metric] for point in own],
            error_y={"array": [point.arm["std"][metric] or 0 for point in own]},
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 1.5},
            marker={"symbol": symbol, "size": 8},
            name=html.escape(label),
            showlegend=len(labels) > 1,
            hovertemplate="%{fullData.name}, %{x}: %{y:.4f}<extra></extra>",
        )
    xaxis = {"title": points[0].name, "tickvals": [point.x for point in points]}
    return figure.update_layout(xaxis=xaxis, yaxis_title=f"test {metric}")


def _table(points: Sequence[Point], metric: str) -> str:
    xs = list(dict.fromkeys(point.x for point in points))
    table = Texttable(max_width=0)
    table.set_deco(Texttable.HEADER)
    table.set_cols_dtype(["t"] * (1 + len(xs)))
    table.set_cols_align(["l", *["r"] * len(xs)])
    rows = [[points[0].name, *map(str, xs)]]
    for label in dict.fromkeys(point.label for point in points):
        own = {point.x: cell(point.arm, metric) for point in points if point.label == label}
        rows.append([label, *(own[x] for x in xs)])
    table.add_rows(rows)
    return table.draw()


def _csv(points: Sequence[Point]) -> str:
    """A line per point and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["curve", "label", "x", "metric", "mean", "std"])
    for point in points:
        for metric, mean in point.arm["mean"].items():
            if "@" in metric:
                std = point.arm["std"][metric]
                row = [point.name, point.label, point.x, metric, mean, "" if std is None else std]
                writer.writerow(row)
    return text.getvalue()
