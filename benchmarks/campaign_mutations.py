"""Mutations of files, by the kind of file; for campaign.py."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from campaign_binary import (
    checkpoint_file,
    gzip_file,
    npy_file,
    parquet_file,
    pickle_file,
    safetensors_file,
    sqlite_file,
    zip_file,
)
from campaign_text import (
    blind,
    json_file,
    json_lines,
    params_file,
    table_cell,
    text_lines,
    yaml_file,
)

_KINDS: tuple[tuple[tuple[str, ...], Callable[[Random, bytes], bytes]], ...] = (
    ((".inter", ".item", ".csv", ".tsv", ".txt", ".jsonl", ".yaml", ".params"), text_lines),
    ((".inter", ".item", ".csv", ".tsv", ".txt"), table_cell),
    ((".json",), json_file),
    ((".jsonl",), json_lines),
    ((".yaml",), yaml_file),
    ((".params",), params_file),
    ((".npy",), npy_file),
    ((".npz", ".pth"), zip_file),
    ((".pth",), checkpoint_file),
    ((".db",), sqlite_file),
    ((".pkl",), pickle_file),
    ((".gz",), gzip_file),
    ((".parquet",), parquet_file),
    ((".safetensors",), safetensors_file),
)


def mutated(rng: Random, name: str, content: bytes) -> bytes:
    """The content with one to three mutations, by the kind of file that the name tells."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        known = [change for endings, change in _KINDS if name.endswith(endings)]
        change = rng.choice(known) if known and rng.random() < 0.6 else blind
        try:
            content = change(rng, content)
        except (MemoryError, AssertionError):
            raise
        except Exception:  # an earlier mutation has broken the form that this one needs
            content = blind(rng, content)
    return content
