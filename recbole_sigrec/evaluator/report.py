"""A comparison as one HTML page that needs nothing else: Plotly is inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from recbole_sigrec.evaluator.arms import CORRUPTIONS
from recbole_sigrec.evaluator.results import cell, gain, marks, ranks, shown_metrics
from recbole_sigrec.quick_start import write_text

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette for all kinds of colour vision, without black and yellow."""
DASHES = ("solid", "dash", "dot")  # after each round of colours
SYMBOLS = ("circle", "square", "diamond")

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


def write(
    results: dict[str, Any], histories: Mapping[tuple[str, int], list[dict]], path: Path
) -> None:
    """Write the page.

    Args:
        results: see :func:`recbole_sigrec.evaluator.results.evaluate`.
        histories: (label, seed) → the trainer's record of each validated epoch.
        path: the file.
    """
    cutoff, metric = results["cutoff"], results["protocol"]["valid_metric"].lower()
    pairs, cold = _split_cold(results["by_popularity"])
    sections = [
        ("Results", _table(results)),
        ("Learning curves", chart("curves", _curves(results, histories, metric))),
        ("Cost against quality", chart("cost", _cost(results, f"ndcg@{cutoff}"))),
        (
            "By item popularity",
            "<p>The share of the test pairs whose item is among the user's first "
            f"{cutoff}, by the number of the item's training pairs.</p>"
            + chart("popularity", _groups(pairs, results, cutoff, "training pairs of the item")),
        ),
        ("Cold items", _cold(cold, results, cutoff)),
        (
            "By user activity",
            f"<p>Mean recall@{cutoff} of the users, by the number of their training pairs.</p>"
            + chart(
                "activity",
                _groups(results["by_activity"], results, cutoff, "training pairs of the user"),
            ),
        ),
        ("Protocol", _protocol(results)),
    ]
    title = f"{results['arms'][0]['label']} in comparison on {results['dataset']}"
    write_page(title, sections, path)


def write_page(title: str, sections: Iterable[tuple[str, str]], path: Path) -> None:
    """Write a page of sections, each a heading and its HTML."""
    title = html.escape(title)
    body = "\n".join(f"<section><h2>{head}</h2>\n{text}</section>" for head, text in sections)
    write_text(PAGE.format(title=title, plotly=get_plotlyjs(), body=body), path)


# ---- the table -----------------------------------------------------------------------------------


def _table(results: dict[str, Any]) -> str:
    metrics, stars = shown_metrics(results), marks(results)
    places = {metric: ranks(results, metric) for metric in metrics}
    rows = []
    for arm in results["arms"]:
        cells = [html.escape(arm["label"])]
        for metric in metrics:
            tag = {0: "b", 1: "u"}.get(places[metric][arm["label"]])
            text = f"<{tag}>{cell(arm, metric)}</{tag}>" if tag else cell(arm, metric)
            mark = stars.get((arm["label"], metric), "")
            cells.append(f"{text}<sup>{mark}</sup>" if mark else text)
        cells += [_number(arm["mean"]["seconds_per_epoch"]), _number(arm["mean"]["peak_rss_mb"], 0)]
        rows.append("<tr>" + "".join(f"<td>{c}</td>" for c in [*cells, arm["n_seeds"]]))
    head = "".join(f"<th>{c}</th>" for c in ["", *metrics, "s/epoch", "MB", "seeds"])
    first = html.escape(results["arms"][0]["label"])
    gains = [gain(results, metric) for metric in metrics]
    foot = ""
    if None not in gains:
        cells = "".join(f"<td>{100 * g:+.1f} %</td>" for g in gains)
        foot = f"<tfoot><tr><td>{first} over the best other</td>{cells}<td><td><td></tfoot>"
    note = (
        "Test set at the best validation epoch: mean ± standard deviation over seeds. "
        "<b>Best</b>, <u>second</u>."
    )
    if results["significance"]:
        note += (
            f" {first} differs from the arm with * p &lt; .05, ** p &lt; .01 (paired t-test over "
            "the users, each user's value averaged over seeds; Holm's correction over all "
            f"{len(results['significance'])} tests, which are of {_tested(results)})."
        )
    return (
        f'<div class="wide"><table><thead><tr>{head}</thead><tbody>{"".join(rows)}</tbody>{foot}'
        f"</table></div><p>{note}</p>\n"
    )


def _tested(results: dict[str, Any]) -> str:
    metrics = dict.fromkeys(test["metric"] for test in results["significance"])
    return " and ".join(f"{metric}@{results['cutoff']}" for metric in metrics)


def _number(value: float | None, decimals: int = 2) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"


# ---- charts --------------------------------------------------------------------------------------


def chart(name: str, figure: go.Figure) -> str:
    """A figure as a part of the page, in its style."""
    figure.update_layout(
        height=420,
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


def line_styles(labels: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Label → (colour, dash, symbol)."""
    n, kinds = len(COLOURS), len(DASHES)
    return {
        label: (COLOURS[i % n], DASHES[i // n % kinds], SYMBOLS[i // n % kinds])
        for i, label in enumerate(labels)
    }


def _styles(results: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return line_styles(arm["label"] for arm in results["arms"])


def _curves(results, histories, metric: str) -> go.Figure:
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
            legendgroup=label,
            showlegend=label not in named,
            hovertemplate=f"{html.escape(label)}, seed {seed}<br>epoch %{{x}}: %{{y:.4f}}"
            "<extra></extra>",
        )
        named.add(label)
    return figure.update_layout(xaxis_title="epoch", yaxis_title=f"validation {metric}")


def _cost(results, metric: str) -> go.Figure:
    figure, styles = go.Figure(), _styles(results)
    for arm in results["arms"]:
        seconds, quality = arm["mean"]["seconds_per_epoch"], arm["mean"].get(metric)
        if seconds is None or quality is None:
            continue
        colour, _, symbol = styles[arm["label"]]
        figure.add_scatter(
            x=[seconds],
            y=[quality],
            error_y={"array": [arm["std"][metric] or 0]},
            mode="markers+text",
            marker={"color": colour, "symbol": symbol, "size": 11},
            text=[html.escape(arm["label"])],
            textposition="middle right",
            showlegend=False,
            cliponaxis=False,
            hovertemplate="%{text}<br>%{x:.2f} s/epoch, %{y:.4f}<extra></extra>",
        )
    return figure.update_layout(
        xaxis={"title": "seconds per epoch", "type": "log", "dtick": "D2"},
        yaxis_title=f"test {metric}",
    )


def _groups(groups, results, cutoff: int, what: str) -> go.Figure:
    """Recall by group: one line per arm over the groups in order."""
    figure, styles = go.Figure(), _styles(results)
    for label, (colour, dash, symbol) in styles.items():
        figure.add_scatter(
            x=[f"{group['label']}<br>(n = {group['size']:,})" for group in groups],
            y=[group["recall"][label] for group in groups],
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 1.5},
            marker={"symbol": symbol, "size": 8},
            name=html.escape(label),
            hovertemplate="%{fullData.name}: %{y:.4f}<extra></extra>",
        )
    return figure.update_layout(
        xaxis={"title": what, "type": "category"}, yaxis_title=f"recall@{cutoff}"
    )


def _split_cold(groups: list[dict]) -> tuple[list[dict], dict | None]:
    """The groups of items with training pairs, and that of items without."""
    cold = [group for group in groups if group["label"] == "0"]
    return [group for group in groups if group["label"] != "0"], cold[0] if cold else None


def _cold(group: dict | None, results, cutoff: int) -> str:
    if group is None:
        return "<p>Every item of the test part has training pairs.</p>\n"
    styles, recalls = _styles(results), group["recall"]
    labels = sorted(recalls, key=recalls.get)
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
    figure.update_layout(xaxis_title=f"recall@{cutoff} on cold items")
    share = group["size"] / results["sizes"]["test"]
    return (
        f"<p>{group['size']:,} test pairs ({100 * share:.1f} %) are of items without a training "
        "pair, which only content can tell apart.</p>\n" + chart("cold", figure)
    )


# ---- the protocol --------------------------------------------------------------------------------


def _protocol(results: dict[str, Any]) -> str:
    sizes, protocol, runs = results["sizes"], results["protocol"], results["runs"]
    seeds = sorted({run["seed"] for run in runs})
    corrupted = [f"{name}: {protocol[key]:g}" for key, name in CORRUPTIONS.items() if protocol[key]]
    lines = [
        f"Data set {results['dataset']}: {sizes['users']:,} users, {sizes['items']:,} items; "
        f"{sizes['train']:,} pairs for training, {sizes['valid']:,} for validation, "
        f"{sizes['test']:,} for the test. One split for all runs, made {results['split']} "
        f"(fingerprint {results['fingerprint'][:18]}).",
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
        "results.json has the hash "
        "of each run's config, the files in runs/ the config itself.",
        "Versions: " + "; ".join(_versions(runs)) + ".",
    ]
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>\n"


def _versions(runs: list[dict]) -> list[str]:
    """Library and version, with all versions where runs differ."""
    names = dict.fromkeys(name for run in runs for name in run["versions"])
    return [
        f"{name} " + " and ".join(sorted({run["versions"].get(name, "none") for run in runs}))
        for name in names
    ]
