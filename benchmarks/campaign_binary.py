"""Mutations of files that hold arrays, tables and archives; for campaign.py."""

from __future__ import annotations

import ast
import contextlib
import gzip
import io
import json
import pickle
import sqlite3
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from campaign_text import (
    CANARY,
    VALUES,
    blind,
    changed_tree,
    json_lines,
    nodes_of,
    table_cell,
    text_lines,
)


def npy_file(rng: Random, content: bytes) -> bytes:
    """Another header before the same numbers."""
    length = struct.unpack("<H", content[8:10])[0]
    header = ast.literal_eval(content[10 : 10 + length].decode("latin1"))
    shape = list(header["shape"])
    kind = rng.randrange(4)
    if kind == 0 and shape:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, -1, 2**31, 2**40, 2**63, 2**70))
    elif kind == 1:
        shape = rng.choice(([], [len(content)], [*shape, 1], [1, *shape], [0, 6], [2, 0]))
    elif kind == 2:
        types = ("<f2", ">f4", "<f8", "<c8", "<i8", "|b1", "|O", "<U3", "|V4", "|S9", "<M8[D]", "")
        header["descr"] = rng.choice((*types, [("a", "<f4")], "<f16", 3))
    else:
        header["fortran_order"] = rng.choice((True, None, 2))
    header["shape"] = tuple(shape)
    text = repr(header) if rng.random() < 0.9 else rng.choice(("{", "__import__('os')", "{}" * 9))
    padded = text.encode().ljust(117) + b"\n"
    return content[:8] + struct.pack("<H", len(padded)) + padded + content[10 + length :]


def zip_file(rng: Random, content: bytes) -> bytes:
    """One member changed, with a right checksum; or one more, less or renamed."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = rng.choice(list(members))
    kind = rng.randrange(6)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[rng.choice(("x.npy", "../x", "/tmp/x", name + "x"))] = members.pop(name)
    elif kind == 2 and name.endswith(".npy"):
        head = members[name].replace(b"(20, 6)", b"(400000000, 6)")[:128]
        members[name] = head.ljust(128) + bytes(10**6)  # it says that it unpacks to 10 GB
    else:
        known = {"npy": npy_file, "pkl": pickle_file}.get(name.rpartition(".")[2], blind)
        members[name] = rng.choice((known, blind))(rng, members[name])
    packed, how = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(packed, "w", how) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return packed.getvalue()


def checkpoint_file(rng: Random, content: bytes) -> bytes:
    """A checkpoint with a value, a tensor or a part more, less or another."""
    import torch

    state = torch.load(io.BytesIO(content), weights_only=True)
    holders = [node for node in nodes_of(state) if isinstance(node, dict)]
    holder = rng.choice(holders)
    key = rng.choice(list(holder))
    value = holder[key]
    if isinstance(value, torch.Tensor) and value.numel() and rng.random() < 0.8:
        flat = value.clone().reshape(-1)
        flat[rng.randrange(len(flat))] = rng.choice((0, 1, 2, -1))
        changes = (flat.reshape(value.shape), flat, value[:1], value.double(), value.bool())
        holder[key] = rng.choice(changes)
        if value.is_floating_point() and rng.random() < 0.3:
            holder[key] = value * float("nan")
    elif rng.random() < 0.5:
        del holder[key]
    else:
        holder[key] = rng.choice(VALUES)
    made = io.BytesIO()
    torch.save(state, made)
    return made.getvalue()


def sqlite_file(rng: Random, content: bytes) -> bytes:
    """A data base with a row or a table less, or another value."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.db")
        path.write_bytes(content)
        with contextlib.closing(sqlite3.connect(path)) as base, base:
            names = base.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            table = rng.choice(sorted(name for (name,) in names))
            columns = [row[1] for row in base.execute(f"PRAGMA table_info({table})")]
            value = rng.choice((None, "", "x", 0, -1, 2**40, 0.5, b"x", "[]", '{"a": 1}', "NaN"))
            changes = (
                (f"DROP TABLE {table}", ()),
                (f"DELETE FROM {table}", ()),
                (f"DELETE FROM {table} WHERE rowid % 2 = ?", (rng.randrange(2),)),
                *[(f"UPDATE OR REPLACE {table} SET {rng.choice(columns)} = ?", (value,))] * 4,
            )
            base.execute(*rng.choice(changes))
        return path.read_bytes()


class _Hostile:
    def __init__(self, call: Callable[..., Any], *arguments: Any):
        self.parts = call, arguments

    def __reduce__(self) -> Any:
        return self.parts


def pickle_file(rng: Random, content: bytes) -> bytes:
    """A pickle that would make the canary, alone or among the opcodes of the real one."""
    payload = _Hostile(rng.choice((Path(CANARY).touch, eval)), *_arguments(rng))
    hostile = pickle.dumps(payload, rng.randrange(2, 6))
    system = b"cposix\nsystem\n(Vtouch " + CANARY.encode() + b"\ntR"
    start = rng.randrange(len(content))
    kind = rng.randrange(4)
    if kind == 0:
        return hostile
    if kind == 1:
        return content[:2] + system + b"0" + content[2:]
    if kind == 2:
        return content[:start] + system + b"0" + content[start:]
    names = (b"os\nsystem", b"builtins\neval", b"numpy\nload", b"torch\nload", b"numpy\ndtype")
    return content[:start] + b"c" + rng.choice(names) + b"\n" + content[start:]


def _arguments(rng: Random) -> tuple[Any, ...]:
    return () if rng.random() < 0.5 else (f"open({CANARY!r}, 'w')",)


def gzip_file(rng: Random, content: bytes) -> bytes:
    inner = rng.choice((text_lines, table_cell, json_lines, blind))(rng, gzip.decompress(content))
    packed = gzip.compress(inner, 1, mtime=0)
    return rng.choice((packed, packed + packed, packed[:-4], packed + b"\x00" * 9))


def parquet_file(rng: Random, content: bytes) -> bytes:
    """One column of another type."""
    import pyarrow as arrow
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content), use_threads=False)
    place, n = rng.randrange(table.num_columns), table.num_rows
    kinds = (
        arrow.array([[1]] * n),
        arrow.nulls(n),
        arrow.array([b"\xff\x00"] * n),
        arrow.array([{"a": 1}] * n),
        arrow.array([1.5, None] * n)[:n],
        arrow.array([True] * n),
        arrow.array([2**63 - 1] * n),
        arrow.array([0] * n, arrow.timestamp("ns", "Asia/Tokyo")),
        arrow.array([0] * n, arrow.date32()),
        arrow.array([0] * n, arrow.duration("s")),
        arrow.array([1] * n).cast(arrow.decimal128(20)),
        arrow.array(["a"] * n).dictionary_encode(),
        arrow.array(["x" * 10**5] * n),
        arrow.array([None, 3] * n)[:n],
    )
    name = rng.choice((table.column_names[place], "", "user"))
    made = io.BytesIO()
    parquet.write_table(table.set_column(place, name, rng.choice(kinds)), made)
    return made.getvalue()


def safetensors_file(rng: Random, content: bytes) -> bytes:
    """Another header before the same numbers."""
    (size,) = struct.unpack("<Q", content[:8])
    header = changed_tree(rng, json.loads(content[8 : 8 + size]))
    text = json.dumps(header).encode()
    if rng.random() < 0.3:
        for was, now in ((b'"F32"', b'"BF16"'), (b'"F32"', b'"F8_E4M3"'), (b'"F32"', b'"I32"')):
            text = text.replace(was, now) if rng.random() < 0.5 else text
    claimed = len(text) if rng.random() < 0.9 else rng.choice((0, 2**31, 2**62, 2**64 - 1))
    return struct.pack("<Q", claimed) + text + content[8 + size :]
