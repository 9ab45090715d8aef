"""Mutations of bytes, and of files that are text; for campaign.py."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

import yaml

CANARY = "/tmp/recbole_sigrec_canary"
"""A file that a hostile input would make if anything of it were run."""

_NUMBERS = (0, -1, 1, 2, 7, 2**31 - 1, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0)
_FLOATS = (1e-320, 1e38, 1e39, 1e308, float("inf"), float("-inf"), float("nan"))
_TEXTS = ("", " ", "0", "-1", "1e309", "nan", "[PAD]", "None", "True", "~", "null", "1_000", "0x1f")
_SIGNS = (
    "../x",
    "/dev/null",
    "a\tb",
    "a\nb",
    "\x00",
    "é",
    "日本",
    "\u2028",
    "\ufeff",
    '"',
    "'",
    "%s",
)
_SHAPES = ((), [], {}, [[]], [1, "a", None], {"a": {"b": []}}, {"": 0}, [0] * 3000, {"$ref": "#"})
VALUES = (None, True, False, *_NUMBERS, *_FLOATS, *_TEXTS, *_SIGNS, "x" * 10**5, *_SHAPES)
"""Interesting values, in JSON's types but for huge numbers."""

_PYTHON_TAG = f"!!python/object/apply:os.system ['touch {CANARY}']"
_YAML_LINES = (
    f"epochs: {_PYTHON_TAG}",
    f"model: !!python/object/new:pathlib.PosixPath ['{CANARY}']",
    "? [a, b]\n: c",
    "? {a: b}\n: c",
    "a: &a [*a]",
    "<<: [1, 2]",
    "<<: {seed: 3}",
    "seed: 2020-13-45",
    "topk: !!binary '!'",
    "topk: !!set {a, b}",
    "topk: !!timestamp x",
    "knn_k: !!int x",
    "knn_k: 0b_",
    "knn_k: 190:20:30",
    "- a",
    "---\na: b",
    "seed: [" * 3000,
    "seed: " + "[" * 3000 + "]" * 3000,
    "a: &a0 [x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(f"b{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)),
)


def blind(rng: Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + int(rng.paretovariate(0.7)))
    before, piece, after = content[:start], content[start:end], content[end:]
    kind = rng.randrange(8)
    if kind == 0:
        flips = bytes(byte ^ (1 << rng.randrange(8)) for byte in piece)
        return before + flips + after
    if kind == 1:
        return before
    if kind == 2:
        return before + after
    if kind == 3:
        return before + piece * rng.choice((2, 3, 300)) + after
    if kind == 4:
        return before + rng.randbytes(len(piece)) + after
    if kind == 5:
        other = rng.randrange(len(content) + 1)
        return before + content[other : other + len(piece)] + after
    if kind == 6:
        fill = rng.choice((b"\x00", b"\xff", b"\x80", b"\n", b"9"))
        return before + fill * len(piece) + after
    return before + text_of(rng.choice(VALUES)).encode("utf-8", "replace") + after


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def text_lines(rng: Random, content: bytes) -> bytes:
    """A line more, less, twice, elsewhere or cut; or all lines in another form."""
    lines = content.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(11)
    if kind == 0:
        lines.insert(other, lines[at])
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        lines.insert(at, b"")
    elif kind == 4:
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    elif kind == 5:
        del lines[0]
    elif kind == 6:
        lines = lines[:1]
    elif kind == 7:
        encoding = rng.choice(("utf-16", "utf-8-sig", "utf-32", "cp500", "utf-16-le"))
        return content.decode("utf-8").encode(encoding)
    elif kind == 8:
        return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\x0b", b"\x00")))
    elif kind == 9:
        separators = rng.sample((b"\t", b",", b";", b" ", b"|", b":"), 2)
        return content.replace(*separators)
    else:
        lines[at] += lines[other] * rng.choice((1, 1000))
    return b"\n".join(lines)


def table_cell(rng: Random, content: bytes) -> bytes:
    """A value of a line more, less, or another."""
    lines = content.split(b"\n")
    at = 0 if rng.random() < 0.25 else rng.randrange(len(lines))
    separator = b"\t" if b"\t" in lines[at] else b","
    cells = lines[at].split(separator)
    place, value = rng.randrange(len(cells)), text_of(rng.choice(VALUES)).encode()
    kind = rng.randrange(5)
    if kind == 0:
        cells.insert(place, value)
    elif kind == 1:
        del cells[place]
    elif kind == 2:
        cells[place] = b'"' + cells[place]
    elif kind == 3:
        cells[place] = rng.choice(cells)
    else:
        cells[place] = value
    lines[at] = separator.join(cells)
    return b"\n".join(lines)


def changed_tree(rng: Random, tree: Any) -> Any:
    """A tree of dicts and lists, with one node changed; the tree itself may be changed too."""
    holders = nodes_of(tree)
    if not holders:
        return rng.choice(VALUES)
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other = rng.choice(holders)
        holder[key] = copy.deepcopy(other)
    elif kind == 2 and isinstance(holder, dict):
        holder[text_of(rng.choice(VALUES))] = holder.pop(key)
    elif kind == 2:
        holder.append(holder[key])
    elif kind == 3 and isinstance(holder[key], int | float):
        holder[key] = rng.choice((-holder[key], holder[key] + 1, 2 * holder[key], str(holder[key])))
    elif kind == 4:
        holder[key] = [holder[key]]
    else:
        holder[key] = rng.choice(VALUES)
    return tree


def nodes_of(tree: Any) -> list[Any]:
    """The dicts and lists of a tree that are not empty."""
    found, seen, todo = [], set(), [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict | list) and node and id(node) not in seen:  # anchors repeat nodes
            seen.add(id(node))
            found.append(node)
            todo.extend(node.values() if isinstance(node, dict) else node)
    return found


def json_file(rng: Random, content: bytes) -> bytes:
    if rng.random() < 0.05:
        return rng.choice((b"[" * 10**5, b'{"a":' * 10**5, b"[" * 500 + b"]" * 500))
    return json.dumps(changed_tree(rng, json.loads(content))).encode()


def json_lines(rng: Random, content: bytes) -> bytes:
    lines = content.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json_file(rng, lines[at])
    return b"\n".join(lines)


def yaml_file(rng: Random, content: bytes) -> bytes:
    if rng.random() < 0.3:
        return content + b"\n" + rng.choice(_YAML_LINES).encode() + b"\n"
    tree = changed_tree(rng, yaml.safe_load(content))
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")


def params_file(rng: Random, content: bytes) -> bytes:
    """Lines of RecBole's HyperTuning."""
    value = json.dumps(rng.choice(VALUES))
    values = (value, f"[{value}]", f"{value},1", "0,1,1e-9", "1,0", "0,1e309", "[1" * 500, "(1,)")
    kinds = ("choice", "uniform", "loguniform", "quniform", "uniformint")
    key = rng.choice(("knn_k", "embedding_size", "learning_rate", "n_layers", "seed", "x"))
    return content + f"{key} {rng.choice(kinds)} {rng.choice(values)}\n".encode()
