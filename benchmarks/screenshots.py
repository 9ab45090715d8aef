"""The pictures of pages in docs/images: a report, and a page of recommendations.

    PYTHONPATH=.:tests python benchmarks/screenshots.py --work=DIR

It trains on ml-100k (some 20 minutes on one core; a second call reads what is in DIR) and needs
Chromium and the repository. Each picture is written for light and for dark pages.
"""

import argparse
import base64
import csv
from importlib.resources import files
from pathlib import Path

from helpers_browser import browsing

from recbole_sigrec import compare, run
from recbole_sigrec.cli import run_command

ROOT = Path(__file__).resolve().parents[1]
MODELS = ["SIGRec", "LightGCN", "BM3", "MGCN", "FREEDOM"]
WIDTH, HEIGHT = 1100, 1020  # pixels
READY = "document.querySelector('.main-svg .legend, .cards li') !== null"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs and pages")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    pages = {
        "report": report(options.work / "comparison"),
        "recommendations": recommendations(options.work),
    }
    with browsing(options.work / "browser") as page:
        page.call("Emulation.setScrollbarsHidden", hidden=True)
        for name, file in pages.items():
            for scheme in ("light", "dark"):
                page.show(WIDTH, HEIGHT, scheme)
                page.open("about:blank")
                page.open(file.resolve().as_uri())
                page.wait(READY)
                picture = page.call("Page.captureScreenshot", format="png")["data"]
                out = options.out / f"{name}-{scheme}.png"
                out.write_bytes(base64.b64decode(picture))
                print(out)


def report(folder: Path) -> Path:
    """A comparison on ml-100k."""
    values = {"epochs": 30, "eval_step": 2, "threads": 1, "show_progress": False}
    compare(MODELS, "ml-100k", config_dict=values, seeds=(1, 2, 3), out=folder)
    return folder / "report.html"


def recommendations(folder: Path) -> Path:
    """The page of some users of a SIGRec trained on ml-100k, with the titles of its films."""
    bundle, page, items = folder / "films.rec", folder / "look.html", folder / "items.csv"
    if not bundle.exists():
        values = {"epochs": 30, "bundle": str(bundle), "checkpoint_dir": str(folder / "saved")}
        run("SIGRec", "ml-100k", config_dict=values)
    table = files("recbole") / "dataset_example" / "ml-100k" / "ml-100k.item"
    lines = table.read_text("utf-8").splitlines()[1:]
    with open(items, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("item", "title"), *(line.split("\t")[:2] for line in lines)])
    table = [f"--items={items}", "--id_column=item", "--force"]
    if run_command("look", str(bundle), f"--out={page}", *table):
        raise SystemExit(1)
    return page


if __name__ == "__main__":
    main()
