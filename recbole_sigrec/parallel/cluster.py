"""A Dask cluster: joined where it is, or started for the time of a command. Extra ``[cluster]``.

The worker processes of ``--jobs`` stay beside it: they need no extra and listen on no port.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import dask.config
from distributed import Client, Security

from recbole_sigrec.errors import ConfigError, SIGRecError, did_you_mean
from recbole_sigrec.parallel.lifetime import kept_ctrl_c, left_on_sigterm
from recbole_sigrec.parallel.local_workers import local_workers, security

LOCAL = "local"

QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
}
"""Where jobs that are workers can be submitted → the class of dask-jobqueue that does so."""

_ADDRESS = re.compile(r"(\w+://)?[^\s:/]+:\d+(/\S*)?|\[[0-9a-fA-F:]+\]:\d+")

_SECONDS = 20  # in which a scheduler answers


def parse(cluster: str) -> tuple[str, int]:
    """The kind of a cluster and its number of workers; an address has as many as are there.

    Raises:
        ConfigError: it is none.
    """
    kind, _, number = cluster.partition(":")
    kinds = (LOCAL, *QUEUES)
    if kind in kinds and number.isascii() and number.isdigit() and int(number) > 0:
        return kind, int(number)
    if kind not in kinds and _ADDRESS.fullmatch(cluster):
        return cluster, 0
    needs = f" {kind} needs a number of workers: {kind}:4." if kind in kinds else ""
    raise ConfigError(
        f"cluster = [{cluster}]: give the address of a Dask scheduler, as tcp://10.0.0.1:8786, or "
        f"the number of workers that are started: {', '.join(f'{one}:4' for one in kinds)}."
        f"{needs or did_you_mean(kind, kinds)}"
    )


@contextlib.contextmanager
def open_cluster(cluster: str | Client, folder: Path) -> Iterator[Client]:
    """A client of a cluster. What is started here ends with the block, however it is left.

    Args:
        cluster: see :func:`parse`; a client is left as it is.
        folder: where ``local`` workers keep what is not a result, in ``.workers``, removed at the
            end; and where a queue's workers find their certificates, if Dask's configuration names
            no ``shared-temp-directory``.

    Raises:
        ConfigError: the value is none.
        SIGRecError: no scheduler answers, or the queue's configuration is incomplete.
    """
    if isinstance(cluster, Client):
        yield cluster
        return
    kind, n = parse(cluster)
    folder.mkdir(parents=True, exist_ok=True)
    with left_on_sigterm(), contextlib.ExitStack() as stack:
        started, safe = kind, None  # of an address, Dask's configuration says who is let in
        if kind == LOCAL:
            started, safe = stack.enter_context(local_workers(n, folder / ".workers"))
        elif kind in QUEUES:
            started = stack.enter_context(_queue(kind, n, folder))
        client = stack.enter_context(_client(started, safe))
        print(
            f"cluster: {cluster}, scheduler {client.scheduler.address}, "  # pyright: ignore[reportOptionalMemberAccess]
            f"dashboard {client.dashboard_link or 'off'}",
            file=sys.stderr,
        )
        yield client


@contextlib.contextmanager
def _queue(kind: str, n: int, folder: Path) -> Iterator[Any]:
    """Jobs of a queue, as Dask's configuration says, each a worker."""
    shared = dask.config.get(f"jobqueue.{kind}.shared-temp-directory") or str(folder.absolute())
    with kept_ctrl_c():
        jobqueue = import_module("dask_jobqueue")
    try:
        cluster = getattr(jobqueue, QUEUES[kind])(security=security(), shared_temp_directory=shared)
    except ValueError as error:
        raise SIGRecError(
            f"cluster = [{kind}]: dask-jobqueue cannot describe a job: {error}. Give cores and "
            f"memory in ~/.config/dask/jobqueue.yaml, see docs/cluster.md"
        ) from None
    with cluster:
        cluster.scale(n)
        yield cluster


def _client(cluster: Any, safe: Security | None) -> Client:
    try:
        return Client(cluster, timeout=_SECONDS, set_as_default=False, security=safe)
    except (OSError, TimeoutError, ValueError) as error:
        raise SIGRecError(
            f"cluster = [{cluster}]: no Dask scheduler answers there ({error}); see to the "
            f"address, and to the certificates in Dask's configuration if it begins with tls://"
        ) from None
