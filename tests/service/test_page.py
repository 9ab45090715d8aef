"""The page in a browser: what it shows is what the library gives, and none of it is run."""

from __future__ import annotations

import time

import pytest
from helpers_browser import browsing, find_browser
from helpers_service import PIXEL, TITLES, running

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from recbole_sigrec.service.page_views import Views

ITEMS = "[...document.querySelectorAll('#{} .pick')].map(one => one.dataset.item)"
PICK = "[...document.querySelectorAll('#{} .pick')].find(one => one.dataset.item === {!r})"


@pytest.fixture(scope="module")
def address(live):
    with running(live) as client:
        yield f"http://{client.host}:{client.port}/"


@pytest.fixture
def page(live, address, tmp_path):
    find_browser()
    with browsing(tmp_path / "profile") as page:
        page.open(address)
        shows(page, live.now.recommender.rank(history=[[]], k=12, unknown="new"))
        yield page
        assert page.complaints == []
        assert all(one.startswith((address, "data:image/png")) for one in page.asked)
        assert page.run("window.hit") is None


def shows(page, ranking):
    """Wait until a ranking is shown; the items and scores are the library's."""
    expected = ranking.items[0].tolist()
    page.wait(f"JSON.stringify({ITEMS.format('recommended')}) === JSON.stringify({expected!r})")
    scores = page.run(
        "[...document.querySelectorAll('#recommended .score')].map(one => one.textContent)"
    )
    assert scores == [f"{score:.3f}" for score in ranking.scores[0]]


def test_a_click_on_an_item_changes_the_recommendations(page, live):
    rank = live.now.recommender.rank
    page.click(PICK.format("found", ".."))
    shows(page, rank(history=[[".."]], k=12))
    page.click(PICK.format("found", "plain"))
    shows(page, rank(history=[["..", "plain"]], k=12))
    assert page.run(ITEMS.format("history")) == ["..", "plain"]
    best = rank(history=[["..", "plain"]], k=12).items[0][2]
    page.click(PICK.format("recommended", best))
    shows(page, rank(history=[["..", "plain", best]], k=12))
    pressed = "[...document.querySelectorAll('#found [aria-pressed=true]')]"
    assert page.run(f"{pressed}.map(one => one.dataset.item)") == ["plain", ".."]
    page.click(PICK.format("history", ".."))
    shows(page, rank(history=[["plain", best]], k=12))
    page.click("document.getElementById('empty')")
    shows(page, rank(history=[[]], k=12, unknown="new"))
    assert page.run("document.getElementById('none').hidden") is False


def test_two_quick_clicks_both_count(page, live):
    slow = "new Promise(done => setTimeout(() => done(real(...given)), asked++ ? 0 : 1000))"
    page.run(f"var real = fetch, asked = 0; window.fetch = (...given) => {slow}; 0")
    page.run(f"{PICK.format('found', 'plain')}.click(), {PICK.format('found', 'a/b')}.click()")
    both = live.now.recommender.rank(history=[["plain", "a/b"]], k=12)
    shows(page, both)
    time.sleep(1.5)  # the answer to the first click has come since
    shows(page, both)


def test_a_user_and_the_reasons(page, live):
    recommender = live.now.recommender
    page.click("document.getElementById('user')")
    page.type("<b>")
    page.wait("document.querySelector('#users option').value === '<b>bold</b>'")
    page.type("bold</b>\n")
    best = recommender.rank("<b>bold</b>", 12)
    shows(page, best)
    row = recommender.users.rows["<b>bold</b>"]
    taken = recommender.items.names[recommender.seen[row].indices].tolist()
    assert page.run(ITEMS.format("history")) == taken
    assert page.run("document.getElementById('whose').textContent") == "History of <b>bold</b>"
    first = "document.querySelector('#recommended li')"
    shown = page.run(f"[...{first}.querySelectorAll('dt, .number')].map(one => one.textContent)")
    shown = dict(zip(shown[::2], map(float, shown[1::2])))
    table = recommender.explain("<b>bold</b>", best.items[0][:1])
    parts = {part: shown[part] for part in ("behavior", "semantics", "item graph")}
    assert parts == pytest.approx(table.groupby("part")["addend"].sum().to_dict(), abs=6e-4)
    assert sum(parts.values()) == pytest.approx(best.scores[0][0], abs=2e-3)
    by_source = table[table["source"] != "learned"].groupby("source")["addend"].sum()
    strongest = by_source[by_source != 0].abs().nlargest(3).index
    titles = live.now.recommender.columns["title"]
    names = [f"from {titles[recommender.items.rows[source]]}" for source in strongest]
    assert list(shown)[3:] == names
    page.click(PICK.format("history", taken[0]))
    shows(page, recommender.rank(history=[taken[1:]], k=12))


def test_titles_are_text_and_pictures_are_of_the_web(page):
    titles = page.run("[...document.querySelectorAll('#found .title')].map(one => one.textContent)")
    assert titles[:3] == [TITLES[0], TITLES[1], TITLES[2]]
    assert page.run("document.querySelector('h1').textContent") == "SIGRec on <i>shop</i> 0"
    shown = page.run("[...document.images].filter(one => !one.hidden).map(one => one.src)")
    assert set(shown) == {PIXEL}
    assert page.run("document.querySelectorAll('i, b, script').length") == 1  # page.js


def test_similar_items_by_behavior_and_each_modality(page, live):
    page.click(f"{PICK.format('found', 'plain')}.parentElement.querySelector('.alike')")
    page.wait("document.querySelectorAll('#kinds section').length === 3")
    assert page.run("document.getElementById('like').textContent") == f"Similar to {TITLES[0]}"
    assert page.run("document.activeElement.id") == "like"
    for place, by in enumerate(("behavior", "image", "text")):
        part = f"document.querySelectorAll('#kinds section')[{place}]"
        assert page.run(f"{part}.querySelector('h3').textContent") == f"by {by}"
        items = page.run(f"[...{part}.querySelectorAll('.pick')].map(one => one.dataset.item)")
        assert items == live.now.recommender.similar("plain", 6, by)["similar"].tolist()


def test_an_item_without_a_modality_has_no_similar_ones_by_it(live):
    item = live.now.recommender.items.names[3]
    found = Views(live.now.recommender).similar([item])["by"][item]
    assert found["image"] == [] and len(found["text"]) == len(found["behavior"]) == 6


def test_search(page):
    page.click("document.getElementById('search')")
    page.type("TOM &")
    page.wait(f"JSON.stringify({ITEMS.format('found')}) === '[\"/first\"]'")  # its title has it
    page.run("document.getElementById('search').value = ''")
    page.type("i49")
    page.wait(f"JSON.stringify({ITEMS.format('found')}) === '[\"i49\"]'")
    assert page.run("document.querySelector('#found .title').textContent") == "i49"  # no title


def test_an_unknown_user_is_said(page):
    page.click("document.getElementById('user')")
    page.type("<u>nobody\n")
    said = page.wait("document.querySelector('#message.error')?.textContent")
    assert said == "unknown user(s): <u>nobody"
    page.take_complaint("404")  # which is the browser's


def test_the_keyboard_is_enough(page, live):
    page.run(f"{PICK.format('found', '..')}.focus()")
    page.type("\n")
    best = live.now.recommender.rank(history=[[".."]], k=12)
    shows(page, best)
    assert page.run("document.activeElement.dataset.item") == ".."
    second = best.items[0][1]
    page.run(f"{PICK.format('recommended', second)}.focus()")
    page.type("\n")
    best = live.now.recommender.rank(history=[["..", second]], k=12)
    shows(page, best)
    assert page.run("document.activeElement.dataset.item") == best.items[0][0]
    unnamed = "[...document.querySelectorAll('button, input')].filter(one => !one.textContent"
    assert page.run(f"{unnamed} && !one.labels?.length && !one.ariaLabel).length") == 0


def test_light_and_dark_wide_and_narrow(page):
    colours = set()
    for width, scheme in ((1200, "light"), (360, "dark")):
        page.show(width, 800, scheme)
        colours.add(page.run("getComputedStyle(document.body).backgroundColor"))
        page.wait(f"document.documentElement.scrollWidth <= {width}")
    assert colours == {"rgb(255, 255, 255)", "rgb(22, 24, 26)"}


def test_the_policy_allows_no_script_of_the_page_itself(page, address):
    page.run(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'window.hit = 1'}))"
    )
    assert page.run("window.hit") is None
    page.take_complaint("Content Security Policy")
