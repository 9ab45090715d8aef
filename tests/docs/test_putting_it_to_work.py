"""docs/putting-it-to-work.md: its commands and code, as they stand there, on a small shop."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from helpers_shop import N_USERS, make_shop

from recbole_sigrec import Recommender, cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "putting-it-to-work.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the page is in the repository alone")


@pytest.fixture
def shop(monkeypatch):
    """The data set with which the page begins, as the page before it leaves it."""
    make_shop(monkeypatch)
    table = "--items products.csv --id_column product --columns title,description"
    for line in (
        f"encode text {table} --model=tfidf --out text_feat.npy",
        "import purchases.csv --format table --name shop --user customer --item product "
        "--timestamp time --split leave-one-out --features text=text_feat.npy",
    ):
        assert cli.main(shlex.split(line)) == 0


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the page's blocks, in order."""
    return re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)


def test_the_page(shop, capsys):
    namespace, model, ran = {}, "", []
    for language, text in blocks():
        if language == "python":
            exec(text, namespace)
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line.replace("MODEL", model))
            assert program == "recbole-sigrec"
            ran.append(arguments[0])
            if arguments[0] == "serve":
                continue  # tests/service starts it
            if arguments[0] == "run":
                arguments += ["--threads=1", "--use_gpu=False"]
                arguments += [] if "--epochs=3" in line or "--refit" in line else ["--epochs=20"]
            assert cli.main(arguments) == 0, line
            if "--result_file=result.json" in line:
                result = json.loads(Path("result.json").read_text("utf-8"))
                model = result["checkpoint"]
                assert result["test_result"]["recall@10"] > 0.3
    assert ran == ["run", "export", "recommend", "encode", "run", "run", "serve"]
    table = pd.read_csv("top.csv")
    assert len(table) == 10 * N_USERS
    # Customers buy within a group of products: so do the lists.
    own = table["item"].str[1:].astype(int) % 4 == table["user"].str[1:].astype(int) % 4
    first = own[table["rank"] <= 4]
    assert first.mean() > 0.6
    added = namespace["shop"].recommend("c4", k=60, exclude="none")
    place = {item: rank for item, rank in zip(added["item"], added["rank"])}
    assert place["N1"] < place["N2"]  # N1 is like what c4's group buys
    whole = Recommender.load("all.rec")
    assert whole.manifest["trained_on"] == "training, validation and test"
    assert len(Recommender.load("shop.rec").columns["title"]) == len(whole.items)
