"""Texts to features: a sentence encoder, or TF-IDF where none is installed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from recbole_sigrec.data import encoders
from recbole_sigrec.encode.sources import CHUNK, ItemTable, Values, file_stamps
from recbole_sigrec.encode.store import check_absent, encode_rows
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

    Memory: the texts and the result, ``BATCHES`` batches, and with ``tfidf`` what it learns from
    (:class:`recbole_sigrec.data.encoders.Tfidf`).
    """
    source = Values(list(texts))
    encoder = text_encoder(model, batch_size, max_tokens)
    if out is not None:
        _encode_to(Path(out), source, encoder)
        return np.load(out, mmap_mode="r", allow_pickle=False)
    encoder.learn(source.values)
    blocks = source.blocks(encoder.size)
    return np.concatenate([encoder.encode(block)[0].astype(np.float16) for block in blocks])


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
    return _encode_to(out, table, text_encoder(model, batch_size, max_tokens))


def _encode_to(out: Path, source: Values | ItemTable, encoder: TextEncoder) -> Counter:
    inputs = encoder.name
    if encoder.learns:
        check_absent(out, source)  # before the work; encode_rows sees to it for all encoders
        encoder.learn(text for block in source.blocks(CHUNK) for text in block)
        inputs += f" {version(encoder.library)}"
    return encode_rows(source, encoder.encode, encoder.size, out, inputs)


class TextEncoder(Protocol):
    """What makes features of texts.

    Attributes:
        name: what the features depend on beside the texts.
        library: the distribution that makes them.
        size: texts that it wants at a time.
        learns: whether it must have learned from all the texts before it encodes.
    """

    name: str
    library: str
    size: int
    learns: bool

    def learn(self, texts: Iterable[str]) -> None:
        """Read the texts once, if it learns from them."""

    def encode(self, texts: list[str]) -> tuple[np.ndarray, Counter]:
        """See :data:`recbole_sigrec.encode.store.Encode`."""


def text_encoder(model: str | None, batch_size: int, max_tokens: int | None = None) -> TextEncoder:
    """The encoder that a model's name stands for, see :func:`encode_text`.

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
            return Sentences(network, batch_size, f"{name} {network.max_seq_length} {_files(name)}")
        logging.getLogger().warning(
            "sentence-transformers is not installed: texts are encoded by TF-IDF and truncated "
            'SVD instead; for a sentence encoder: pip install "recbole_sigrec[text]"'
        )
    return TfidfTexts()


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


class Sentences:
    """A sentence encoder; see :class:`TextEncoder`."""

    library, learns = "sentence-transformers", False

    def __init__(self, network, batch_size: int, name: str):
        self._network, self._batch_size = network, batch_size
        self.name, self.size = name, BATCHES * batch_size

    def learn(self, texts: Iterable[str]) -> None:
        """Nothing."""

    def encode(self, texts: list[str]) -> tuple[np.ndarray, Counter]:
        """Features, and why texts are missing."""
        kept, missing = _usable(texts)
        # The first text is there only for its width, in case that none is usable.
        given = ["", *(texts[row] for row in kept)]
        found = self._network.encode(given, batch_size=self._batch_size, show_progress_bar=False)
        rows = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
        rows[kept] = found[1:]
        return rows, missing


class TfidfTexts:
    """TF-IDF and truncated SVD; see :class:`TextEncoder`."""

    library, learns, size = "scikit-learn", True, 4096
    name = f"{TFIDF} {TFIDF_DIMENSION}, learned from at most {encoders.LEARNED_FROM} texts"

    def learn(self, texts: Iterable[str]) -> None:
        """Learn words, their weights and the decomposition.

        Raises:
            DataError: there is no word.
        """
        self._tfidf = encoders.Tfidf(_usable_or_empty(texts), TFIDF_DIMENSION)

    def encode(self, texts: list[str]) -> tuple[np.ndarray, Counter]:
        """Features, and why texts are missing."""
        rows = self._tfidf.encode(_usable_or_empty(texts))
        without = int((~rows.any(axis=1)).sum())
        return rows, Counter({"without a known word": without} if without else {})


def _usable(texts: list[str]) -> tuple[list[int], Counter]:
    """The rows of the texts that can be encoded, and why the others cannot."""
    why = list(map(_why_not, texts))
    return [row for row, reason in enumerate(why) if reason is None], Counter(filter(None, why))


def _usable_or_empty(texts: Iterable[str]) -> Iterator[str]:
    """The texts, "" in place of those that cannot be encoded."""
    return (text if _why_not(text) is None else "" for text in texts)


def _why_not(text: str) -> str | None:
    """Why a text cannot be encoded, if it cannot."""
    if not text.strip():
        return "empty"
    return f"over {LONGEST:,} characters" if len(text) > LONGEST else None
