"""The bundle that is served, and another in its place."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections import Counter
from pathlib import Path

import numpy as np

from recbole_sigrec.errors import DataError, SIGRecError
from recbole_sigrec.serving.bundle import read_bundle
from recbole_sigrec.serving.recommender import Recommender

LOG = logging.getLogger("recbole_sigrec.service")


@dataclasses.dataclass(frozen=True)
class Served:
    """A bundle at work.

    Attributes:
        recommender: what answers.
        digest: the SHA-256 of the bundle's manifest, which has those of all its files.
    """

    recommender: Recommender
    digest: str


class Live:
    """The bundle that is served; a request takes ``now`` once, and so sees one bundle alone.

    Args:
        path: the bundle.

    Attributes:
        now: what is served.
        reloads: ``ok`` and ``failed`` → how often.

    Raises:
        DataError: see :func:`recbole_sigrec.serving.bundle.read_bundle`.
    """

    def __init__(self, path: str | Path):
        self._path, self._lock = Path(path), threading.Lock()
        self.reloads: Counter[str] = Counter()
        self.now = _read(self._path)

    def reload(self) -> Served:
        """Read the path again and serve what is there; the earlier bundle answers until then.

        Raises:
            SIGRecError: it cannot be served; the earlier one stays.
        """
        with self._lock:
            try:
                self.now = _read(self._path)
            except Exception as error:  # whatever it is, the service goes on
                self.reloads["failed"] += 1
                why = error if isinstance(error, SIGRecError) else repr(error)
                message = f"the bundle was not read again, and the earlier one stays: {why}"
                LOG.error(message)
                raise SIGRecError(message) from error
            self.reloads["ok"] += 1
            LOG.warning("serving bundle %s of %s", self.now.digest[:12], self._path)
            return self.now


def _read(path: Path) -> Served:
    """A bundle in memory, so that no change of its files disturbs what is served."""
    digest = _digest(path)
    bundle = read_bundle(path)
    arrays = {name: np.array(array) for name, array in bundle.arrays.items()}
    if _digest(path) != digest:
        raise DataError(f"bundle [{path}] was replaced while it was read; read it again")
    recommender = Recommender(dataclasses.replace(bundle, arrays=arrays))
    with contextlib.suppress(SIGRecError):  # its errors are those of a request
        recommender.rank(recommender.users.names[:1], 1)  # makes what is kept from then on
        recommender.similar(recommender.items.names[:1], 1)
    return Served(recommender, digest)


def _digest(path: Path) -> str:
    file = path / "manifest.sha256"
    return file.read_text("utf-8", "replace").strip() if file.is_file() else ""
