"""Texts to features: a sentence encoder, or TF-IDF where none is installed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from recbole_sigrec.data import encoders
from recbole_sigrec.data.encoder_files import find_encoder, read_encoder
from recbole_sigrec.encode.networks import (
    Network,
    full_name,
    library_version,
    read_network,
    weights_digest,
)
from recbole_sigrec.encode.sources import CHUNK, ItemTable, Values
from recbole_sigrec.encode.store import check_absent, encode_rows
from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.extras import need
from recbole_sigrec.user_paths import user_path

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
    like: str | Path | None = None,
) -> np.ndarray:
    """Features of texts; a text that is empty, or longer than ``LONGEST``, has a zero row.

    Args:
        texts: the texts.
        model: a sentence-transformers model, by name or as a local folder; ``tfidf`` for TF-IDF
            with truncated SVD. None: ``DEFAULT_MODEL``, or, with a warning in the log, ``tfidf``
            where sentence-transformers is not installed.
        batch_size: texts that go through the model at a time.
        out: a ``.npy`` file to write, resumably, with its encoder, see :func:`encode_rows`; must
            not exist.
        max_tokens: tokens after which a sentence encoder cuts a text; None: the model's own.
        like: a feature file, or the ``<modality>_encoder.safetensors`` beside it: that encoder is
            used, and nothing is learned. ``model`` may then name a folder that holds the same.

    Returns:
        float16 [n, d]; memory-mapped and read-only if ``out`` is given.

    Raises:
        DataError: see :func:`encode_rows`; ``tfidf`` finds no word; or ``like`` has no encoder
            that is whole, or its model has changed.
        SIGRecError: the model is not there, needs sentence-transformers, or, as ``max_tokens``,
            is not that of ``like``.

    Memory: the texts and the result, ``BATCHES`` batches, and with ``tfidf`` what it learns from
    (:class:`recbole_sigrec.data.encoders.Tfidf`).
    """
    source = Values(list(texts))
    encoder = text_encoder(model, batch_size, max_tokens, like)
    if out is not None:
        _encode_to(user_path(out), source, encoder)
        return np.load(out, mmap_mode="r", allow_pickle=False)
    if encoder.learns:
        encoder.learn(source.values)
    blocks = source.blocks(encoder.size)
    return np.concatenate([encoder.encode(block)[0].astype(np.float16) for block in blocks])


def encode_text_columns(
    table: ItemTable,
    out: Path,
    model: str | None = None,
    batch_size: int = 64,
    max_tokens: int | None = None,
    like: Path | None = None,
) -> Counter:
    """Features of an item table's columns, written with their ids; see :func:`encode_text`.

    Returns:
        Why texts are missing → how many.
    """
    return _encode_to(out, table, text_encoder(model, batch_size, max_tokens, like))


def _encode_to(out: Path, source: Values | ItemTable, encoder: TextEncoder) -> Counter:
    if encoder.learns:
        check_absent(out, source)  # before the work; encode_rows sees to it for all encoders
        encoder.learn(text for block in source.blocks(CHUNK) for text in block)
    saved = encoder.saved()
    return encode_rows(source, encoder.encode, encoder.size, out, encoder.name, saved)


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
        ...

    def saved(self) -> bytes | None:
        """The content of its file once it has learned, see :func:`encode_rows`."""
        ...


def text_encoder(
    model: str | None,
    batch_size: int,
    max_tokens: int | None = None,
    like: str | Path | None = None,
) -> TextEncoder:
    """The encoder that a model's name, or a file, stands for, see :func:`encode_text`.

    Raises:
        DataError: ``like`` has no encoder that is whole, or its model has changed.
        SIGRecError: the model is not there, needs sentence-transformers, or, as ``max_tokens``,
            is not that of ``like``.
    """
    if like is not None:
        return _encoder_like(find_encoder(user_path(like)), model, batch_size, max_tokens)
    if model != TFIDF:
        library = _sentence_transformers(required=model is not None)
        if library is not None:
            name = model or DEFAULT_MODEL
            return load_sentences(library, name, batch_size, max_tokens)[0]
        logging.getLogger().warning(
            "sentence-transformers is not installed: texts are encoded by TF-IDF and truncated "
            'SVD instead; for a sentence encoder: pip install "recbole_sigrec[text]"'
        )
    return TfidfTexts()


def _encoder_like(
    path: Path, model: str | None, batch_size: int, max_tokens: int | None
) -> TextEncoder:
    """The encoder of a file; ``model`` and ``max_tokens`` are None, or say the same."""
    if read_encoder(path, TFIDF, Sentences.library).kind == TFIDF:
        if model not in (None, TFIDF) or max_tokens is not None:
            raise SIGRecError(
                f"{path}: the features are from `{TFIDF}`; leave out --model and --max_tokens"
            )
        return TfidfTexts(encoders.Tfidf.load(path))
    saved = read_network(path, Sentences.library)
    if max_tokens not in (None, saved.max_tokens):
        raise SIGRecError(
            f"{path}: the features are from texts cut at {saved.max_tokens} tokens, not "
            f"{max_tokens}; leave out --max_tokens"
        )
    name = saved.named(path, model)
    library = need("text", f"the encoder of {path}")
    revision = saved.revision if name == saved.model else None
    encoder, loaded = load_sentences(library, name, batch_size, saved.max_tokens, revision)
    saved.check_same(path, loaded)
    return encoder


def load_sentences(
    library: Any,
    name: str,
    batch_size: int,
    max_tokens: int | None,
    revision: str | None = None,
) -> tuple[Sentences, Network]:
    """A sentence encoder, and what is to be known of it.

    Raises:
        SIGRecError: it cannot be loaded.
    """
    network = load_sentence_model(library, name, revision)
    if max_tokens is not None:
        network.max_seq_length = max_tokens
    known = Network(
        model=full_name(name),
        weights=weights_digest(network),
        version=library_version(Sentences.library),
        revision=None if Path(name).is_dir() else network.model_card_data.base_model_revision,
        max_tokens=network.max_seq_length,
    )
    title = f"{name} {known.max_tokens} {known.weights}"
    return Sentences(network, batch_size, title, known.saved(Sentences.library)), known


def load_sentence_model(library: Any, name: str, revision: str | None = None) -> Any:
    """A SentenceTransformer by name, at a commit on the hub if given, or from a local folder.

    Raises:
        SIGRecError: it cannot be loaded.
    """
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():  # no name on a hub
        raise SIGRecError(f"model [{name}]: there is no such folder")
    try:
        return library.SentenceTransformer(name, revision=revision)
    except (OSError, ValueError) as error:
        raise SIGRecError(
            f"model [{name}] cannot be loaded: {str(error).splitlines()[0]} Without a network, "
            f"name a folder that holds a sentence-transformers model, or `{TFIDF}`"
        ) from None


def _sentence_transformers(required: bool) -> ModuleType | None:
    try:
        return need("text", "a sentence encoder", f", or name the model `{TFIDF}`")
    except SIGRecError:
        if required:
            raise
        return None


class Sentences:
    """A sentence encoder; see :class:`TextEncoder`."""

    library, learns = "sentence-transformers", False

    def __init__(self, network: Any, batch_size: int, name: str, saved: bytes | None = None):
        self._network, self._batch_size, self._saved = network, batch_size, saved
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

    def saved(self) -> bytes | None:
        """The content of its file, if it was given."""
        return self._saved


class TfidfTexts:
    """TF-IDF and truncated SVD; see :class:`TextEncoder`."""

    library, size = "scikit-learn", 4096
    name = f"{TFIDF} {TFIDF_DIMENSION}, learned from at most {encoders.LEARNED_FROM} texts"

    def __init__(self, learned: encoders.Tfidf | None = None):
        self.learns = learned is None
        if learned is not None:
            self._tfidf = learned

    def learn(self, texts: Iterable[str]) -> None:
        """Learn words, their weights and the decomposition.

        Raises:
            DataError: there is no word.
        """
        self._tfidf = encoders.Tfidf.learn([_usable_or_empty(texts)], TFIDF_DIMENSION)

    def encode(self, texts: list[str]) -> tuple[np.ndarray, Counter]:
        """Features, and why texts are missing."""
        rows = self._tfidf.encode([_usable_or_empty(texts)])
        without = int((~rows.any(axis=1)).sum())
        return rows, Counter({"without a known word": without} if without else {})

    def saved(self) -> bytes:
        """The content of its file."""
        return self._tfidf.saved().to_bytes()


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
