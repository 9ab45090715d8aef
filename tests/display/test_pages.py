"""The pages in a browser: each fits a phone and a screen, and every chart has a text for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_browser import browsing, find_browser
from helpers_service import write_random_bundle

from recbole_sigrec.cli import run_command
from recbole_sigrec.comparison import parameter_curves, report
from recbole_sigrec.comparison.results import ComparisonResult
from recbole_sigrec.display.page_style import STYLE
from recbole_sigrec.inspection.page import as_page

LABELS = [
    "SIGRec",
    "LightGCN (RecBole's) with a long name",
    "<BM3>",
    *(f"arm {n}" for n in range(6)),
]
METRICS = [
    f"{name}@{k}" for name in ("recall", "ndcg", "cold_recall", "cold_ndcg") for k in (10, 20)
]
SECONDS = [0.3, 7.0, 1.0, 0.5, 2.0, 3.0, 4.0, 5.0, 6.0]


def results() -> ComparisonResult:
    """A comparison of nine arms, none of which finds a cold item."""
    costs = {"peak_rss_mb": 1234.0, "seconds_per_evaluation": 1.0, "epochs": 3.0}
    arms = [
        {
            "label": label,
            "model": "BPR",
            "n_seeds": 3,
            "mean": {**dict.fromkeys(METRICS, 0.1 - 0.01 * n), "seconds_per_epoch": s, **costs},
            "std": dict.fromkeys(METRICS, 0.0012),
        }
        for n, (label, s) in enumerate(zip(LABELS, SECONDS))
    ]
    groups = [
        {"label": label, "size": 1000, "recall": dict.fromkeys(LABELS, recall)}
        for label, recall in (("0", 0.0), ("1–3", 0.1), ("4–7", 0.2), ("8–15", 0.2), ("16–31", 0.3))
    ]
    protocol = {"valid_metric": "Recall@20", "topk": [10, 20], "metrics": ["Recall", "NDCG"]}
    corrupted = dict.fromkeys(("noisy_features", "rewired_edges", "dropped_modalities"), 0)
    tests = [
        {"label": label, "metric": name, "p_adjusted": 0.001}
        for label in LABELS[1:]
        for name in ("recall", "ndcg")
    ]
    return ComparisonResult(
        dataset="toy",
        sizes=dict.fromkeys(("users", "items", "train", "valid", "test"), 10_000),
        split="by chance",
        modalities=["image", "text"],
        fingerprint="0123456789abcdef",
        cutoff=20,
        protocol={**protocol, **corrupted},
        arms=arms,
        significance=tests,
        by_popularity=groups,
        by_activity=groups[1:],
        runs=[{"seed": seed, "versions": {"python": "3"}} for seed in (1, 2, 3)],
    )


def inspected() -> dict:
    """The figures of a data set of two modalities."""
    modality = {
        **{"dimension": 4096, "coverage": 0.875, "missing": 12, "duplicate_rows": 3},
        "norms": {"min": 0.123, "median": 1.234, "max": 123.4},
        "norms_histogram": {"edges": [0.0, 60.0, 120.0], "counts": [900, 100]},
        **{"alignment_pairs": 10, "alignment_share": 0.0389, "alignment_expected": 0.0196},
        **{"alignment_lift": 1.98, "alignment_z": 48.1, "alignment": "none"},
    }
    degree = {"edges": [0, 1, 2, 4, 8, 16, 32], "counts": [0, 1, 200, 3000, 400, 50]}
    return {
        **{"dataset": "toy", "users": 19445, "items": 7050, "interactions": 160792},
        **{"density": 0.00117, "split": {"train": 118551, "valid": 21682, "test": 20559}},
        **{"cold_users": 0, "cold_items": 2, "users_degree": degree, "items_degree": degree},
        "modalities": {"a long name of a modality": modality, "text": modality},
        "warnings": ["modality text: " + "many words " * 20],
    }


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name → file of each page."""
    folder: Path = tmp_path_factory.mktemp("pages")
    history = [{"epoch": epoch, "valid_result": {"recall@20": 0.1}} for epoch in (0, 1, 2)]
    histories = {(label, seed): history for label in LABELS for seed in (1, 2)}
    report.write(results(), histories, folder / "report.html")
    points = [
        parameter_curves.Point("α, collaborative share", label, x, arm)
        for label, arm in zip(LABELS, results()["arms"])
        for x in (0.0, 0.1, 0.8)
    ]
    parameter_curves.write("Sensitivity", points, results(), folder)
    (folder / "inspect.html").write_text(as_page(inspected()), "utf-8")
    bundle = write_random_bundle(folder / "shop.rec")
    assert run_command("look", str(bundle), f"--out={folder / 'look.html'}") == 0
    return {name: folder / f"{name}.html" for name in ("report", "curves", "inspect", "look")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    find_browser()
    with browsing(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


FITS = """
document.querySelector("section") && [...document.querySelectorAll(".plotly-graph-div")].every(
  (one) => one.layout && Math.abs(one.layout.height
    - Number(one.closest("[data-height]").dataset.height)
    - (one.querySelector(".legend")?.getBoundingClientRect().height ?? 0)) < 1)
"""
"""Whether the charts of a page are drawn, and as high as they and their legends need."""


def opened(page, file, width, scheme):
    """A page, with its charts drawn."""
    page.show(width, 900, scheme)
    page.open("about:blank")
    page.open(file.as_uri())
    page.wait(FITS)
    return page


SIZES = [(400, "light"), (400, "dark"), (1300, "light"), (1300, "dark")]


@pytest.mark.parametrize("name", ["report", "curves", "inspect", "look"])
def test_each_page_fits_and_has_texts_for_its_charts(pages, browser, name):
    for width, scheme in SIZES:
        page = opened(browser, pages[name], width, scheme)
        assert page.run("document.documentElement.scrollWidth") <= width
        colour = {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 26)"}[scheme]
        assert page.run("getComputedStyle(document.body).backgroundColor") == colour
        beyond = "one.getBoundingClientRect().right > innerWidth"
        drawn = "document.querySelectorAll('.main-svg')"
        assert page.run(f"[...{drawn}].filter(one => {beyond}).length") == 0
    assert page.complaints == []
    assert page.run("document.querySelectorAll('main').length") == 1
    assert STYLE.read_text("utf-8") in pages[name].read_text("utf-8")


@pytest.mark.parametrize(("name", "n"), [("report", 5), ("curves", 1), ("inspect", 4)])
def test_a_text_stands_for_each_chart(pages, browser, name, n):
    page = opened(browser, pages[name], 400, "light")
    charts = "[...document.querySelectorAll('.plotly-graph-div')]"
    named = page.run(f"{charts}.map(one => one.closest('[role=img]').ariaLabel)")
    assert len(named) == len(set(named)) == n and all(len(one) > 10 for one in named)
    points = page.run(f"{charts}.map(one => one.data.flatMap(trace => [...trace.x]).length)")
    rows = page.run(
        f"{charts}.map(one => one.closest('figure').querySelectorAll('details tbody tr').length)"
    )
    assert rows == points
    frames = "[...document.querySelectorAll('.wide')]"  # scrolled by keyboard, and named
    assert page.run(f"{frames}.every(one => one.tabIndex === 0 && one.ariaLabel)") is True
    below = "one.closest('figure').querySelector('details').getBoundingClientRect().top"
    overlaps = f"one.querySelector('.main-svg').getBoundingClientRect().bottom > {below} + 1"
    assert page.run(f"{charts}.filter(one => {overlaps}).length") == 0


def test_the_results_are_not_scrolled_sideways_on_a_screen(pages, browser):
    page = opened(browser, pages["report"], 1300, "light")
    frame = "document.querySelector('.wide')"
    assert page.run(f"{frame}.scrollWidth - {frame}.clientWidth") <= 0
    assert page.run(f"{frame}.querySelectorAll('thead th').length") == 1 + len(METRICS) + 3
    assert page.run(f"{frame}.querySelectorAll('tfoot td').length") == 1 + len(METRICS) + 3


def test_axes_of_zeros_and_of_seconds(pages, browser):
    page = opened(browser, pages["report"], 1300, "light")
    axis = "document.getElementById('chart-{}')._fullLayout.xaxis"
    assert page.run(f"{axis.format('cold')}.range") == [0, 1]
    ticks = page.run(f"{axis.format('cost')}.ticktext")
    assert ticks == ["0.2", "0.5", "1", "2", "5", "10"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.3, 7.0, [0.2, 0.5, 1, 2, 5, 10]),
        (1.0, 1.0, [1]),
        (0.004, 0.009, [0.005, 0.01]),
        (90.0, 1500.0, [100, 200, 500, 1000, 2000]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low, high, ticks):
    found = report.log_ticks(low, high)
    assert found["tickvals"] == pytest.approx(ticks)
    assert found["ticktext"] == [f"{tick:g}" for tick in ticks]
    assert [10**end for end in found["range"]] == pytest.approx([low / 1.5, high * 1.5])
