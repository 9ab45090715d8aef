"""Texts to features: a sentence encoder, or TF-IDF where none is installed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from recbole_sigrec.data import encoders
from recbole_sigrec.encode.sources import ItemTable, Values, file_stamps
from recbole_sigrec.encode.store import Encode, encode_rows
from recbole_sigrec.errors import SIGRecError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TFIDF = "tfidf"
TFIDF_DIMENSION = 128
LONGEST = 1_000_000  # characters; what is longer is no text
BATCHES = 8  # encoded in one go: texts of similar length then share a batch


def encode_text(
    texts: Iterable[str],
    model: str | None = None,
    batch_size: int = 64,
    out: Path | None = None,
    max_tokens: int | None = None,
) -> np.ndarray:
    """Features of texts; a text that is empty, or longer than ``LONGEST``, has a zero row.

    Args:
        texts: the texts.
        model: a sentence-transformers model, by name or as a local folder; ``tfidf`` for TF-IDF
            with truncated SVD. None: ``DEFAULT_MODEL``, or, with a warning in the log, ``tfidf``
            where sentence-transformers is not installed.
        batch_size: texts that go through the model at a time.
        out: a ``.npy`` file to write, resumably, see :func:`encode_rows`; must not exist.
        max_tokens: tokens after which a sentence encoder cuts a text; None: the model's own.

    Returns:
        float16 [n, d]; memory-mapped and read-only if ``out`` is given.

    Raises:
        DataError: see :func:`encode_rows`; or ``tfidf`` finds no word.
        SIGRecError: the model is not there, or needs sentence-transformers.

    Cost: with ``tfidf`` memory for all the texts, else for ``BATCHES`` batches and the result.
    """
    source = Values(list(texts))
    encode, size, name = text_encoder(model, batch_size, len(source), max_tokens)
    if out is not None:
        encode_rows(source, encode, size, Path(out), name)
        return np.load(out, mmap_mode="r", allow_pickle=False)
    return np.concatenate([encode(block)[0].astype(np.float16) for block in source.blocks(size)])


def encode_text_columns(
    table: ItemTable,
    out: Path,
    model: str | None = None,
    batch_size: int = 64,
    max_tokens: int | None = None,
) -> Counter:
    """Features of an item table's columns, written with their ids; see :func:`encode_text`.

    Returns:
        Why texts are missing → how many.
    """
    encode, size, name = text_encoder(model, batch_size, len(table), max_tokens)
    return encode_rows(table, encode, size, out, name)


def text_encoder(
    model: str | None, batch_size: int, n_texts: int, max_tokens: int | None = None
) -> tuple[Encode, int, str]:
    """The function that encodes, how many texts it wants at a time, and what identifies it.

    Raises:
        SIGRecError: the model is not there, or needs sentence-transformers.
    """
    if model != TFIDF:
        library = _sentence_transformers(required=model is not None)
        if library is not None:
            name = model or DEFAULT_MODEL
            network = load_sentence_model(library, name)
            if max_tokens is not None:
                network.max_seq_length = max_tokens
            encode = partial(_encode_sentences, network, batch_size)
            return encode, BATCHES * batch_size, f"{name} {network.max_seq_length} {_files(name)}"
        logging.getLogger().warning(
            "sentence-transformers is not installed: texts are encoded by TF-IDF and truncated "
            'SVD instead; for a sentence encoder: pip install "recbole_sigrec[text]"'
        )
    return _encode_tfidf, n_texts, f"{TFIDF} {TFIDF_DIMENSION}"


def load_sentence_model(library, name: str):
    """A SentenceTransformer by name or from a local folder.

    Raises:
        SIGRecError: it cannot be loaded.
    """
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():  # no name on a hub
        raise SIGRecError(f"model [{name}]: there is no such folder")
    try:
        return library.SentenceTransformer(name)
    except (OSError, ValueError) as error:
        raise SIGRecError(
            f"model [{name}] cannot be loaded: {str(error).splitlines()[0]} Without a network, "
            f"name a folder that holds a sentence-transformers model, or `{TFIDF}`"
        ) from None


def _sentence_transformers(required: bool):
    try:
        import sentence_transformers
    except ImportError:
        if required:
            raise SIGRecError(
                "texts are encoded by sentence-transformers, which is not installed: "
                f'pip install "recbole_sigrec[text]", or name the model `{TFIDF}`'
            ) from None
        return None
    return sentence_transformers


def _files(name: str) -> str:
    """What tells a local model from another one in the same folder."""
    return file_stamps(sorted(Path(name).rglob("*"))) if Path(name).is_dir() else ""


def _encode_sentences(model, batch_size: int, texts: list[str]) -> tuple[np.ndarray, Counter]:
    kept, missing = _usable(texts)
    # The first text is there only for its width, in case that none is usable.
    found = model.encode(
        ["", *(texts[row] for row in kept)], batch_size=batch_size, show_progress_bar=False
    )
    rows = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
    rows[kept] = found[1:]
    return rows, missing


def _encode_tfidf(texts: list[str]) -> tuple[np.ndarray, Counter]:
    kept = set(_usable(texts)[0])
    texts = [text if row in kept else "" for row, text in enumerate(texts)]
    rows = encoders.tfidf([texts], TFIDF_DIMENSION)
    without = int((~rows.any(axis=1)).sum())
    return rows, Counter({"without a word": without} if without else {})


def _usable(texts: list[str]) -> tuple[list[int], Counter]:
    """The rows of the texts that can be encoded, and why the others cannot."""
    why = [
        "empty"
        if not text.strip()
        else f"over {LONGEST:,} characters"
        if len(text) > LONGEST
        else ""
        for text in texts
    ]
    return [row for row, reason in enumerate(why) if not reason], Counter(filter(None, why))
