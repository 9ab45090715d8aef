"""Where the tasks of a command are done: in this process, in others beside it, or on a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_sigrec.errors import ConfigError
from recbole_sigrec.extras import need
from recbole_sigrec.parallel.lifetime import kept_ctrl_c
from recbole_sigrec.parallel.pool import CLUSTER, check_importable

if TYPE_CHECKING:
    from distributed import Client


def check_workers(classes: Iterable[Any], jobs: int, cluster: str | Client | None) -> None:
    """See that tasks can be done by some processes, or on a cluster, before any is started.

    Args:
        classes: see :func:`check_importable`.
        jobs: how many processes there are.
        cluster: see :func:`recbole_sigrec.parallel.cluster.open_cluster`; None: there is none.

    Raises:
        ConfigError: a class cannot be imported, the cluster is none, or both are given.
        SIGRecError: the extra ``cluster`` is not installed.
    """
    if cluster is None:
        return check_importable(classes, jobs)
    if jobs != 1:
        raise ConfigError(f"jobs = {jobs} is for this machine alone; a cluster has its own workers")
    with kept_ctrl_c():
        need("cluster", "--cluster")
    from recbole_sigrec.parallel.cluster import parse

    if isinstance(cluster, str):
        parse(cluster)
    check_importable(classes, jobs, CLUSTER)


def opened(
    cluster: str | Client | None, folder: Path
) -> contextlib.AbstractContextManager[Client | None]:
    """A cluster that several parts of a command share; of None, None.

    See :func:`recbole_sigrec.parallel.cluster.open_cluster`.
    """
    if cluster is None:
        return contextlib.nullcontext()
    from recbole_sigrec.parallel.cluster import open_cluster

    return open_cluster(cluster, folder)
