"""A comparison as one HTML page that needs nothing else: Plotly is inside."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from recbole_sigrec.comparison.results import ComparisonResult, gains, ranked, shown_metrics
from recbole_sigrec.config.keys import CORRUPTIONS
from recbole_sigrec.display.html_page import chart, html_page, html_table, wide
from recbole_sigrec.display.page_style import COLOURS
from recbole_sigrec.files import write_text

Histories = Mapping[tuple[str, int], list[dict[str, Any]]]
"""(label, seed) → the trainer's record of each validated epoch."""

DASHES = ("solid", "dash", "dot")  # after each round of colours
SYMBOLS = ("circle", "square", "diamond")


def write(results: ComparisonResult, histories: Histories, path: Path) -> None:
    """Write the page."""
    cutoff, metric = results["cutoff"], results["protocol"]["valid_metric"].lower()
    users, pairs = results["by_activity"], results["by_popularity"]
    cold = next((group for group in pairs if group["label"] == "0"), None)
    warm = [group for group in pairs if group is not cold]
    sections = [
        ("Results", _table(results)),
        (
            "Learning curves",
            chart(
                "curves",
                _curves(results, histories, metric),
                f"validation {metric} over the epochs, a line for each run",
            ),
        ),
        (
            "Cost against quality",
            chart(
                "cost",
                _cost(results, f"ndcg@{cutoff}"),
                f"test ndcg@{cutoff} over the seconds per epoch, a point for each arm",
            ),
        ),
        (
            "By item popularity",
            "<p>The share of the test pairs whose item is among the user's first "
            f"{cutoff}, by the number of the item's training pairs.</p>"
            + chart(
                "popularity",
                _groups(warm, results, "training pairs of the item"),
                f"recall@{cutoff} over the training pairs of the item, a line for each arm",
            ),
        ),
        ("Cold items", _cold(cold, results)),
        (
            "By user activity",
            f"<p>Mean recall@{cutoff} of the users, by the number of their training pairs.</p>"
            + chart(
                "activity",
                _groups(users, results, "training pairs of the user"),
                f"recall@{cutoff} over the training pairs of the user, a line for each arm",
            ),
        ),
        ("Protocol", _protocol(results)),
    ]
    title = f"{results['arms'][0]['label']} in comparison on {results['dataset']}"
    write_text(html_page(title, sections), path)


# ---- the table -----------------------------------------------------------------------------------


def _table(results: ComparisonResult) -> str:
    rows = []
    for arm, figures in ranked(results):
        cells = [html.escape(arm["label"])]
        for text, place, mark in figures:
            tag = {0: "b", 1: "u"}.get(place)
            mean, _, std = text.partition(" ± ")
            mean = f"<{tag}>{mean}</{tag}>" if tag else mean
            mean += f"<sup>{mark}</sup>" if mark else ""
            cells.append(mean + (f" <small>± {std}</small>" if std else ""))
        mean = arm["mean"]
        cells += [_number(mean["seconds_per_epoch"], 2), _number(mean["peak_rss_mb"], 0)]
        rows.append([*cells, str(arm["n_seeds"])])
    metrics = (metric.replace("_", "_<wbr>") for metric in shown_metrics(results))
    head = ["", *metrics, "s/epoch", "MB", "seeds"]
    first = html.escape(results["arms"][0]["label"])
    foot = []
    if gained := gains(results):
        foot = [f"{first} over the best other", *gained, "", "", ""]
    note = (
        "Test set at the best validation epoch: mean ± standard deviation over seeds. "
        "<b>Best</b>, <u>second</u>."
    )
    if tests := results["significance"]:
        tested = dict.fromkeys(f"{test['metric']}@{results['cutoff']}" for test in tests)
        note += (
            f" {first} differs from the arm with * p &lt; .05, ** p &lt; .01 (paired t-test over "
            "the users, each user's value averaged over seeds; Holm's correction over all "
            f"{len(tests)} tests, which are of {' and '.join(tested)})."
        )
    return f"{wide(html_table([head, *rows], foot), 'test results')}<p>{note}</p>\n"


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"


# ---- charts --------------------------------------------------------------------------------------


def line_styles(labels: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Label → (colour, dash, symbol)."""
    n, kinds = len(COLOURS), len(DASHES)
    return {
        label: (COLOURS[i % n], DASHES[i // n % kinds], SYMBOLS[i // n % kinds])
        for i, label in enumerate(labels)
    }


def _styles(results: ComparisonResult) -> dict[str, tuple[str, str, str]]:
    return line_styles(arm["label"] for arm in results["arms"])


def marked_line(label: str, style: tuple[str, str, str], **more: Any) -> go.Scatter:
    """A line through marked points; ``more``: its ``x``, its ``y`` and what else Plotly takes."""
    colour, dash, symbol = style
    return go.Scatter(
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 1.5},
        marker={"symbol": symbol, "size": 8},
        name=html.escape(label),
        **more,
    )


def _curves(results: ComparisonResult, histories: Histories, metric: str) -> go.Figure:
    """A line for each run; those of an arm have its colour, and one entry in the legend."""
    figure, styles, named = go.Figure(), _styles(results), set()
    for (label, seed), history in histories.items():
        colour, dash, symbol = styles[label]
        figure.add_scatter(
            x=[entry["epoch"] for entry in history],
            y=[entry["valid_result"].get(metric) for entry in history],
            mode="lines" if len(history) > 1 else "markers",
            line={"color": colour, "dash": dash, "width": 1.5},
            marker={"color": colour, "symbol": symbol, "size": 9},
            name=html.escape(label),
            meta=f"{html.escape(label)}, seed {seed}",
            legendgroup=label,
            showlegend=label not in named,
            hovertemplate=f"{html.escape(label)}, seed {seed}<br>epoch %{{x}}: %{{y:.4f}}"
            "<extra></extra>",
        )
        named.add(label)
    return figure.update_layout(xaxis_title="epoch", yaxis_title=f"validation {metric}")


def _cost(results: ComparisonResult, metric: str) -> go.Figure:
    figure, styles = go.Figure(), _styles(results)
    points = [
        (arm, arm["mean"]["seconds_per_epoch"], arm["mean"][metric])
        for arm in results["arms"]
        if arm["mean"]["seconds_per_epoch"] and metric in arm["mean"]
    ]
    low, high = (bound([seconds for _, seconds, _ in points], default=1.0) for bound in (min, max))
    for arm, seconds, quality in points:
        colour, _, symbol = styles[arm["label"]]
        figure.add_scatter(
            x=[seconds],
            y=[quality],
            error_y={"array": [arm["std"][metric] or 0]},
            mode="markers+text",
            marker={"color": colour, "symbol": symbol, "size": 11},
            text=[html.escape(arm["label"])],
            textposition="middle left" if seconds**2 > low * high else "middle right",
            name=html.escape(arm["label"]),
            showlegend=False,
            cliponaxis=False,
            hovertemplate="%{text}<br>%{x:.2f} s/epoch, %{y:.4f}<extra></extra>",
        )
    return figure.update_layout(
        xaxis={"title": "seconds per epoch", "type": "log", **log_ticks(low, high)},
        yaxis_title=f"test {metric}",
    )


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Plotly's range and ticks of a logarithmic axis: at 1, 2 and 5 times the powers of ten.

    Args:
        low, high: the smallest and largest value, positive; there is room beyond them.
    """
    low, high = low / 1.5, high * 1.5
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return {
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _groups(groups: list[dict[str, Any]], results: ComparisonResult, what: str) -> go.Figure:
    """Recall by group: one line per arm over the groups in order."""
    x = [f"{group['label']}<br>(n = {group['size']:,})" for group in groups]
    hover = "%{fullData.name}: %{y:.4f}<extra></extra>"
    figure = go.Figure()
    for label, style in _styles(results).items():
        y = [group["recall"][label] for group in groups]
        figure.add_trace(marked_line(label, style, x=x, y=y, hovertemplate=hover))
    return figure.update_layout(
        xaxis={"title": what, "type": "category"}, yaxis_title=f"recall@{results['cutoff']}"
    )


def _cold(group: dict[str, Any] | None, results: ComparisonResult) -> str:
    if group is None:
        return "<p>Every item of the test part has training pairs.</p>\n"
    styles, recalls = _styles(results), group["recall"]
    labels = sorted(recalls, key=recalls.__getitem__)
    figure = go.Figure()
    figure.add_bar(
        x=[recalls[label] for label in labels],
        y=[html.escape(label) for label in labels],
        orientation="h",
        marker={"color": [styles[label][0] for label in labels]},
        text=[f"{recalls[label]:.4f}" for label in labels],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    most = max(recalls.values())
    recall = {"title": f"recall@{results['cutoff']} on cold items", "tickformat": ".3~f"}
    figure.update_layout(xaxis={**recall, "range": [0, 1.2 * most or 1]})
    share = group["size"] / results["sizes"]["test"]
    return (
        f"<p>{group['size']:,} test pairs ({100 * share:.1f} %) are of items without a training "
        "pair. Only their content tells these items apart.</p>\n"
        + chart("cold", figure, f"recall@{results['cutoff']} on cold items, a bar for each arm")
    )


# ---- the protocol --------------------------------------------------------------------------------


def _protocol(results: ComparisonResult) -> str:
    sizes, protocol, runs = results["sizes"], results["protocol"], results["runs"]
    seeds = sorted({run["seed"] for run in runs})
    corrupted = [f"{name}: {protocol[key]:g}" for key, name in CORRUPTIONS.items() if protocol[key]]
    lines = [
        f"Data set {results['dataset']}: {sizes['users']:,} users, {sizes['items']:,} items; "
        f"{sizes['train']:,} pairs for training, {sizes['valid']:,} for validation, "
        f"{sizes['test']:,} for the test. One split for all runs, made {results['split']} "
        f"(fingerprint {results['fingerprint'][:16]}).",
        f"Modalities: {', '.join(results['modalities']) or 'none'}.",
        *([f"Corrupted content: {', '.join(corrupted)}."] if corrupted else []),
        "All items are ranked for each user, but those that the user has in training (at the test: "
        "and in validation).",
        f"Of each run the epoch with the best validation {protocol['valid_metric']} is tested; the "
        "test part takes no part in any choice.",
        f"Seeds {', '.join(map(str, seeds))}: they decide on initialisation, sampling and noise.",
        f"Each user's metrics are RecBole's: {', '.join(protocol['metrics'])} at "
        f"{', '.join(map(str, protocol['topk']))}; means are over the users with a test pair.",
        "Each arm has its model's properties, and those for this data set where there are any; "
        "results.json has the hash of each run's config, the files in runs/ the config itself.",
        f"Versions: {'; '.join(_versions(runs))}.",
    ]
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>\n"


def _versions(runs: list[dict]) -> list[str]:
    """Library and version, with all versions where runs differ."""
    names = dict.fromkeys(name for run in runs for name in run["versions"])
    return [
        f"{name} " + " and ".join(sorted({run["versions"].get(name, "none") for run in runs}))
        for name in names
    ]
