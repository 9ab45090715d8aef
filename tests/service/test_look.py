"""The page as one file: all that it shows is the library's, and nothing else is needed."""

from __future__ import annotations

import json
import re

import pytest
from helpers_browser import browsing, find_browser
from helpers_service import PIXEL, TITLES, write_random_bundle

from recbole_sigrec.cli import run_command
from recbole_sigrec.errors import DataError
from recbole_sigrec.service.look import MOST_BYTES, Pictures, write_look
from recbole_sigrec.service.page_views import Views
from recbole_sigrec.serving import Recommender


@pytest.fixture
def bundle(tmp_path):
    return write_random_bundle(tmp_path / "shop.rec")


def look(bundle, *arguments, out="look.html"):
    return run_command("look", str(bundle), f"--out={out}", *arguments)


def data(path):
    """What is embedded in a page."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path, re.S)
    return json.loads(found)


def test_what_is_embedded_is_what_the_library_gives(bundle, tmp_path):
    assert look(bundle, "--users=7") == 0
    found, recommender = data((tmp_path / "look.html").read_text("utf-8")), Recommender.load(bundle)
    names, views = recommender.users.names, Views(recommender)
    assert list(found["views"]) == [names[row] for row in (0, 9, 19, 29, 39, 49, 59)]
    shown = set()
    for user, view in found["views"].items():
        expected = json.loads(json.dumps(views.view(user)))
        assert {**expected, "items": None} == {**view, "items": None}
        best = recommender.rank(user, 12)
        assert [one["item"] for one in view["recommended"]] == best.items[0].tolist()
        assert [one["score"] for one in view["recommended"]] == best.scores[0].tolist()
        shown |= set(expected["items"])
    assert set(found["by"]) == shown
    for item, by in found["by"].items():
        table = recommender.similar(item, 6, "text")
        positive = table[table["score"] > 0]
        assert [one for one, _ in by["text"]] == positive["similar"].tolist()
        assert [score for _, score in by["text"]] == pytest.approx(positive["score"], abs=1e-6)
        shown |= {one for pairs in by.values() for one, _ in pairs}
    assert set(found["items"]) == shown
    assert found["items"]["plain"] == {"title": TITLES[0], "picture": PIXEL}


def test_the_file_is_one_and_no_data_ends_its_script(bundle, tmp_path):
    assert look(bundle) == 0
    text = (tmp_path / "look.html").read_text("utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,"]
    assert "@import" not in text and "url(" not in text
    assert len(data(text)["views"]) == 20


def test_an_earlier_file_is_replaced_only_when_told(bundle, tmp_path, capsys):
    (tmp_path / "look.html").write_text("mine")
    assert look(bundle) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "look.html").read_text() == "mine"
    assert look(bundle, "--force", "--users=1") == 0
    assert len(data((tmp_path / "look.html").read_text("utf-8"))["views"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--users=0"], "users = [0]"),
        (
            ["--title=titel"],
            "no column [titel]. Did you mean 'title'? It has: title,",
        ),
        (["--items=items.csv"], "--id_column"),
        (["--id_column=id"], "--items"),
        (["--items=none.csv", "--id_column=id"], "none.csv does not exist"),
        (["--items=items.csv", "--id_column=id", "--title=name"], "no column [name]"),
        (["--items=items.csv", "--id_column=title"], "none of the model's items"),
    ],
)
def test_wrong_arguments(bundle, tmp_path, capsys, arguments, words):
    (tmp_path / "items.csv").write_text("id,title,picture\nplain,Plain,\n")
    assert look(bundle, *arguments) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "look.html").exists()


def test_a_file_that_cannot_be_written(bundle, tmp_path):
    out = tmp_path / "none" / "look.html"
    with pytest.raises(DataError, match=r"look\.html cannot be written"):
        write_look(Recommender.load(bundle), out, "title", "kind", Pictures(tmp_path), 1)


def test_a_table_gives_titles_and_small_pictures(bundle, tmp_path, capsys):
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "small.png").write_bytes(b"\x89PNG")
    (folder / "large.jpg").write_bytes(b"0" * (MOST_BYTES + 1))
    (folder / "secret.txt").write_text("secret")
    rows = [
        *("plain,Plain,small.png", "a/b,,large.jpg", "/first,First,secret.txt"),
        *("last/,Last,https://shop.test/x.png", "..,Dots,gone.png", f"+,{'n' * 5000},{'x' * 5000}"),
    ]
    (folder / "items.csv").write_text("\n".join(["id,name,file", *rows]))
    how = ["--id_column=id", "--title=name", "--picture=file", "--users=60"]
    assert look(bundle, f"--items={folder / 'items.csv'}", *how) == 0
    said = capsys.readouterr().out
    for file in ("large.jpg", "secret.txt", "gone.png"):
        assert file in said
    assert "small.png" not in said and "200,000 bytes" in said
    found = data((tmp_path / "look.html").read_text("utf-8"))["items"]
    assert found["plain"] == {"title": "Plain", "picture": "data:image/png;base64,iVBORw=="}
    assert found["a/b"] == {"title": "a/b", "picture": None}
    assert found["/first"] == {"title": "First", "picture": None}
    assert found["last/"] == {"title": "Last", "picture": "https://shop.test/x.png"}
    assert found["q?x=1#y"] == {"title": "q?x=1#y", "picture": None}


def test_the_file_in_a_browser(bundle, tmp_path):
    find_browser()
    assert look(bundle, "--users=60") == 0
    file, recommender = (tmp_path / "look.html").as_uri(), Recommender.load(bundle)
    items = "[...document.querySelectorAll('#recommended .pick')].map(one => one.dataset.item)"
    with browsing(tmp_path / "profile") as page:
        page.open(file)
        for user in ("plain", "__proto__", "</script><script>window.hit=1</script>", "<b>bold</b>"):
            page.run("document.getElementById('user').value = ''")
            page.click("document.getElementById('user')")
            page.type(f"{user}\n")
            expected = recommender.rank(user, 12).items[0].tolist()
            page.wait(f"JSON.stringify({items}) === JSON.stringify({expected!r})")
        page.click("document.querySelector('#recommended .alike')")
        page.wait("document.querySelectorAll('#kinds section').length === 3")
        alike = "[...document.querySelectorAll('#kinds section:first-child .pick')]"
        best = recommender.similar(expected[0], 6)["similar"].tolist()
        assert page.run(f"{alike}.map(one => one.dataset.item)") == best
        page.click("document.getElementById('user')")
        page.run("document.getElementById('user').value = '<b>'")
        page.type("\n")
        said = page.wait("document.querySelector('#message.error')?.textContent")
        assert said == "user <b> is not in this file"
        assert page.run("document.querySelectorAll('[data-live]').length") == 0
        assert page.complaints == [] and page.run("window.hit") is None
        assert all(one == file or one.startswith("data:image/png") for one in page.asked)
