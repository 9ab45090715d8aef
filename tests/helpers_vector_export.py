"""Small bundles of random arrays, and the queries of docs/vectors-elsewhere.md on their exports."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from recbole_sigrec.serving.bundle import Bundle, write_bundle

PAGE = Path(__file__).resolve().parents[1] / "docs" / "vectors-elsewhere.md"
N_USERS, N_ITEMS, D = 220, 90, 6


def page() -> str:
    """The text of the page; a test of its code is skipped outside the repository."""
    if not PAGE.is_file():
        pytest.skip("the page is in the repository alone")
    return PAGE.read_text("utf-8")


HOSTILE = [
    "'; DROP TABLE shop_users; --",
    "\"double\" and 'single'",
    "<script>alert('1')</script>",
    "tab\tnew line\nreturn\r back\\slash \\N",
    "\\N",
    "%s {0} {items} $score[0]",
    "{1:2}/3",
    " spaces around ",
    "ünïcødé 🎉 \u202e",
    "../../etc/passwd",
]


def tokens(kind: str, n: int, random: np.random.Generator) -> list[str]:
    """Hostile ones first, one of 10,000 characters that do not compress, and plain ones."""
    letters = "".join(chr(c) for c in random.integers(33, 0x2FF, 10_000))
    first = [*HOSTILE, letters]
    return [*first, *(f"{kind}{row}" for row in range(n - len(first)))]


def histories(random: np.random.Generator, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Items of each user: sorted, distinct."""
    rows = [np.sort(random.choice(N_ITEMS, n, replace=False)) for n in lengths]
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return {"indptr": indptr, "indices": np.concatenate(rows).astype(np.int32)}


MODELS = ("vectors", "graph", "offset", "matrix", "dense matrix")


def bundle_of(model: str) -> Bundle:
    """A bundle of random arrays: vectors alone, with a sparse item graph of both signs, that with
    an offset, or an item-item matrix, sparse or dense. The first user took nothing, the second
    nearly all; some items are not reached by the graph."""
    random = np.random.default_rng(7)
    lengths = random.integers(1, 12, N_USERS)
    lengths[:2] = 0, N_ITEMS - 4
    arrays = {"items.count": random.integers(1, 9, N_ITEMS).astype(np.int32)}
    for part, n in (("training", lengths), ("validation", random.integers(0, 3, N_USERS))):
        arrays |= {f"{part}.{name}": a for name, a in histories(random, n).items()}
    if "matrix" not in model:
        arrays["users.vectors"] = random.normal(size=(N_USERS, D)).astype(np.float32)
        arrays["items.vectors"] = random.normal(size=(N_ITEMS, D)).astype(np.float32)
        arrays["fold_in.map"] = np.eye(D, dtype=np.float32)
    graph = sp.random(N_ITEMS, N_ITEMS, 0.06, "csr", np.float32, random, random.standard_normal)
    if model == "dense matrix":
        arrays["graph.dense"] = random.normal(size=(N_ITEMS, N_ITEMS)).astype(np.float32)
    elif model != "vectors":
        parts = {"indptr": np.int64, "indices": np.int32, "data": np.float32}
        arrays |= {f"graph.{name}": getattr(graph, name).astype(t) for name, t in parts.items()}
    if model == "offset":
        arrays["items.offset"] = random.normal(size=N_ITEMS).astype(np.float32)
    scoring = {"item_score_weight": 0.5, "history_parts": [], "modality_weights": {}}
    manifest = {"model": model, "dataset": "random", "scoring": scoring}
    users, items = tokens("u", N_USERS, random), tokens("i", N_ITEMS, random)
    columns = {"title": [f"title of {token}" for token in items], "item": list(range(N_ITEMS))}
    return Bundle(manifest, users, items, arrays, columns)


def written(model: str, path: Path) -> str:
    """The folder of such a bundle."""
    write_bundle(bundle_of(model), path)
    return str(path)


def code(section: str) -> str:
    """The code of a section of the page."""
    text = page().split(f"\n## {section}\n")[1]
    return re.findall(r"```\w+\n(.*?)```", text, flags=re.DOTALL)[0]


def run_code(section: str, names: dict[str, str]) -> Callable[[str, int], list]:
    """The function ``recommend`` of a section, after texts in it were replaced."""
    text = code(section)
    for old, new in names.items():
        assert old in text
        text = text.replace(old, new)
    found: dict = {}
    exec(compile(text, str(PAGE), "exec"), found)
    return found["recommend"]


def check_ranking(recommender, recommend, users, k=10):
    """See that ``recommend(user, k)`` gives the items of the recommender, ties aside.

    The scores agree rank by rank, and each item has in truth the score that it is given: so items
    can be in another order only where their scores are equal to five digits.
    """
    rows = recommender.users.find(users)
    truth = recommender.scorer.scores(recommender.known_users(rows))
    assert len(users)
    for row, user in enumerate(users):
        table = recommender.recommend(user, k)
        found = list(recommend(user, k))
        items = [item for item, _ in found]
        assert len(set(items)) == len(items) == len(table)
        scores = np.array([score for _, score in found], dtype=float)
        scale = max(1.0, np.abs(truth[row]).max())
        np.testing.assert_allclose(scores, table["score"], rtol=0, atol=1e-5 * scale)
        own = truth[row, recommender.items.find(items)]
        np.testing.assert_allclose(scores, own, rtol=0, atol=1e-5 * scale)
        seen = recommender.seen[rows[row]].indices if recommender.seen is not None else []
        assert not set(items) & set(recommender.items.names[seen])
