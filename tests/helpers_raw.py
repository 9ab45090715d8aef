"""A corpus in the raw formats of Amazon 2014, with their defects, and a plain way through it."""

from __future__ import annotations

import ast
import gzip
import json
import struct
from pathlib import Path

import numpy as np

WIDTH = 4096


def write_amazon(folder: Path, category: str, n_reviews: int, seed: int = 0) -> None:
    """``reviews_X_5.json.gz``, ``meta_X.json.gz`` and ``image_features_X.b``.

    About 0.5 % of the records are broken, in every way that there is; some reviews come twice, some
    items lack metadata, text or an image, and some images are of unknown items or come twice.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    n_items, n_users = max(20, n_reviews // 25), max(20, n_reviews // 12)
    items = [f"{n:010d}" if n % 3 else f"B{n:09d}" for n in rng.permutation(10 * n_items)[:n_items]]
    users = [f"A{n}" + ("", 'é"', " x", "日本")[n % 4] for n in range(n_users)]
    users[0], users[1] = "007", "7"
    weights = 1 / np.arange(1, n_items + 1) ** 0.7
    chosen = rng.choice(n_items, n_reviews, p=weights / weights.sum())
    reviews = [
        {"reviewerID": users[user], "asin": items[item], "overall": float(rng.integers(1, 6))}
        for user, item in zip(rng.integers(0, n_users, n_reviews), chosen)
    ]
    lines = [json.dumps({**r, "reviewText": "so\tgood", "unixReviewTime": 1}) for r in reviews]
    good = {"reviewerID": "A1", "asin": items[0], "overall": 5.0}
    broken = [
        *(json.dumps({**good, "overall": rating}) for rating in (0, 6.0, "5", None, float("nan"))),
        *(json.dumps({**good, "reviewerID": user}) for user in ("a\tb", "", 7, " a", "\ud800")),
        json.dumps({"asin": items[0], "overall": 5.0}),
        json.dumps([good]),
        lines[0][: len(lines[0]) // 2],
        "",  # a blank line is no record
    ]
    broken = broken[: max(3, n_reviews // 200)]
    _write_lines(folder / f"reviews_{category}_5.json.gz", _mixed(rng, lines, broken))

    meta = []
    others = [f"C{n:09d}" for n in range(5 * n_items)]  # which nobody reviewed
    for n, item in enumerate(items + others):
        record = {"asin": item, "title": f"Title {n} it's “ {n % 7}", "price": 1.5, "related": {}}
        record["categories"] = [["Baby", f"Kind {n % 5}"], ['Toys & "Games"']]
        record["description"] = f"Description\nof {n}" if n % 4 else ""
        if n % 6 == 0:
            record["brand"] = f"Brand{n % 11}"
        if n % 10 == 7:
            del record["title"]
        if n % 10 == 9:
            record = {"asin": item}
        if n % 10 != 8:
            meta.append(repr(record) if n % 5 else json.dumps(record))
    meta.append(repr({"asin": items[0], "title": "the second of an item"}))
    broken = ["{'asin': __import__('pathlib').Path('owned').touch()}", "[1, 2]", "{'title': ''}"]
    broken.append("{['a']: 1}")
    _write_lines(folder / f"meta_{category}.json.gz", _mixed(rng, meta, broken))

    images = [(item, rng.normal(size=WIDTH).astype("<f4")) for n, item in enumerate(items) if n % 7]
    images[3][1][5], images[4][1][:] = np.nan, 0
    images += [("unknown000", images[0][1]), (images[1][0], images[2][1])]
    with open(folder / f"image_features_{category}.b", "wb") as file:
        for n in [*rng.permutation(len(images) - 1), len(images) - 1]:  # the repeated comes last
            file.write(images[n][0].encode() + images[n][1].tobytes())


def _mixed(rng, lines: list[str], broken: list[str]) -> list[str]:
    """The broken lines put among the others, whose order stays."""
    lines = list(lines)
    for line in broken:
        lines.insert(int(rng.integers(0, len(lines))), line)
    return lines


def _write_lines(path: Path, lines: list[str]) -> None:
    with gzip.open(path, "wb") as file:
        file.writelines(line.encode() + b"\n" for line in lines)


def plain_pairs(folder: Path, category: str, seed: int) -> list[tuple[str, str, int]]:
    """(user, item, part) of the 5-core, split 8:1:1 within each user; all in Python's own terms."""
    pairs: dict[tuple[str, str], None] = {}
    with gzip.open(folder / f"reviews_{category}_5.json.gz") as file:
        for line in file:
            try:
                record = json.loads(line)
                user, item, rating = record["reviewerID"], record["asin"], record["overall"]
                user.encode()  # a lone surrogate is an error
                usable = rating in (1, 2, 3, 4, 5) and user not in ("", " a", "a\tb")
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if usable:
                pairs[user, item] = None
    while True:
        count: dict[tuple[int, str], int] = {}
        for pair in pairs:
            for side in (0, 1):
                count[side, pair[side]] = count.get((side, pair[side]), 0) + 1
        core = {p: None for p in pairs if count[0, p[0]] >= 5 and count[1, p[1]] >= 5}
        if len(core) == len(pairs):
            break
        pairs = core
    draws = np.random.default_rng(seed).random(len(pairs)).tolist()
    own: dict[str, list] = {}
    for draw, (user, item) in zip(draws, pairs):
        own.setdefault(user, []).append((draw, item))
    result = []
    for user, drawn in own.items():
        tenth = max(1, len(drawn) // 10)
        for place, (_, item) in enumerate(sorted(drawn)):
            after = len(drawn) - place
            result.append((user, item, 2 if after <= tenth else 1 if after <= 2 * tenth else 0))
    return result


def plain_texts(folder: Path, category: str) -> dict[str, str]:
    """Item → its text, in the order of the metadata."""
    texts: dict[str, str] = {}
    with gzip.open(folder / f"meta_{category}.json.gz", "rt", encoding="utf-8") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                try:
                    record = ast.literal_eval(line)
                except (ValueError, TypeError):
                    continue
            if not isinstance(record, dict) or "asin" not in record:
                continue
            parts = [record.get("title", ""), record.get("brand", "")]
            parts += [name for path in record.get("categories", []) for name in path]
            parts.append(record.get("description", ""))
            texts.setdefault(record["asin"], " ".join(" ".join(parts).split()))
    return texts


def plain_images(folder: Path, category: str) -> dict[str, np.ndarray]:
    """Item → its image vector; zero where it is not finite."""
    images: dict[str, np.ndarray] = {}
    with open(folder / f"image_features_{category}.b", "rb") as file:
        while asin := file.read(10).decode():
            row = np.array(struct.unpack(f"<{WIDTH}f", file.read(4 * WIDTH)), dtype=np.float32)
            images.setdefault(asin, row if np.isfinite(row).all() else np.zeros_like(row))
    return images
