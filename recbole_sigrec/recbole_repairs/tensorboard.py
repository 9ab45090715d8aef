"""RecBole's TensorBoard writer: of several processes one writes; a full disk ends no training."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import recbole.trainer.trainer
from tensorboard.summary.writer import event_file_writer

from recbole_sigrec.parallel import distributed

_Thread: Any = event_file_writer._AsyncWriterThread


class _QuietThread(_Thread):
    """TensorBoard's thread, which keeps its error for the next call and prints no traceback."""

    def run(self) -> None:
        with contextlib.suppress(OSError):
            super().run()


class _Writer:
    """What a trainer of RecBole's calls; where the file cannot be written, this is said once."""

    def __init__(self, logger: logging.Logger):
        self._writer: Any = self._attempt(_original, logger)

    def add_scalar(self, *given: Any) -> None:
        """A point of a curve."""
        if self._writer is not None:
            self._attempt(self._writer.add_scalar, *given)

    def add_hparams(self, *given: Any, **named: Any) -> None:
        """The values of the run and its result."""
        if self._writer is not None:
            self._attempt(self._writer.add_hparams, *given, **named)

    def _attempt(self, write: Callable[..., Any], *given: Any, **named: Any) -> Any:
        module: Any = event_file_writer
        try:
            module._AsyncWriterThread = _QuietThread  # of the writers that are made meanwhile
            return write(*given, **named)
        except OSError as error:
            reason = error.strerror or error
            logging.getLogger().warning(f"log_tensorboard/ gets no more curves: {reason}")
            self._writer = None
        finally:
            module._AsyncWriterThread = _Thread


class _Silent(_Writer):
    def __init__(self, logger: logging.Logger):
        self._writer = None


_original = recbole.trainer.trainer.get_tensorboard


@contextlib.contextmanager
def one_tensorboard() -> Iterator[None]:
    """While a trainer of RecBole's is made: it gets a writer of this file.

    Of several processes, only the writer of the first one writes.
    """
    module: Any = recbole.trainer.trainer
    try:
        module.get_tensorboard = _Writer if distributed.is_first() else _Silent
        yield
    finally:
        module.get_tensorboard = _original
