"""Several processes that train one model: every call of ``torch.distributed`` is in this file.

The scheme: all processes are seeded alike and see the same batches; each computes the loss of its
:func:`share` of a batch, the shares add up to the loss of one process, and :func:`sum_gradients`
adds the gradients. So the result is that of one process, but for the order of floating-point sums.
In a single process every function here does nothing, or returns the whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from recbole_sigrec import errors
from recbole_sigrec.parallel.lifetime import end_with_parent, ended_on_error, leave_with_parent

DEFAULT_PORT = 5678  # RecBole's
_TIMEOUT = datetime.timedelta(hours=6)  # the others wait while the first builds graphs


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process stands in its group."""

    rank: int = 0  # its number among all processes
    world_size: int = 1  # how many there are
    local_rank: int = 0  # its number on this machine
    nproc: int = 1  # how many there are on this machine
    address: str = ""  # where the processes find each other, for ``init_process_group``


_place = Place()


def place() -> Place:
    """This process's place; rank 0 of 1 outside :func:`spawn`."""
    return _place


def is_first() -> bool:
    """Whether this process writes files and logs: one of the group does."""
    return _place.rank == 0


def share(n: int) -> slice:
    """This process's part of ``n`` rows; the parts are in the order of the ranks, maybe empty."""
    rank, size = _place.rank, _place.world_size
    return slice(n * rank // size, n * (rank + 1) // size)


def connect(device: torch.device) -> None:
    """Join the group; a second call does nothing. CPU tensors go through gloo, CUDA's by nccl."""
    if _place.world_size == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=_place.address,
        rank=_place.rank,
        world_size=_place.world_size,
        timeout=_TIMEOUT,
    )


def barrier() -> None:
    """Wait until all processes are here."""
    if _place.world_size > 1:
        dist.all_reduce(torch.zeros(1))  # on the CPU, so that no GPU is waited for


@contextlib.contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process runs the block while the others wait; then they do."""
    if not is_first():
        barrier()
    yield
    if is_first():
        barrier()


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of the ranks. Tensors must be on the CPU."""
    if _place.world_size == 1:
        return [value]
    values = [None] * _place.world_size
    dist.all_gather_object(values, value)
    return values


def sum_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over the processes, in place."""
    if _place.world_size > 1:
        dist.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes.

    All processes call it, whatever they have computed. A gradient that is None counts as zero, and
    stays None where it is None everywhere, so that the optimiser passes that parameter over as it
    does in one process.

    Cost: one message of the size of all trained parameters.
    """
    if _place.world_size == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    present = [p.grad is not None for p in parameters]
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flags = parameters[0].new_tensor(present)
    flat = torch.cat([*(part.reshape(-1) for part in parts), flags])
    dist.all_reduce(flat)
    *sums, counts = flat.split([*(p.numel() for p in parameters), len(parameters)])
    anywhere = present if all(present) else (counts > 0).tolist()
    for parameter, total, has in zip(parameters, sums, anywhere):
        parameter.grad = total.view_as(parameter) if has else None


def spawn(
    function: Callable,
    arguments: tuple = (),
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: int | str | None = None,
    group_offset: int = 0,
) -> Any:
    """Run ``function(*arguments)`` in ``nproc`` new processes of one group.

    They end when this process does, by whatever signal, and take its temporary folder along.

    Args:
        function: importable by name; what it returns must be JSON's.
        nproc: processes on this machine.
        world_size: processes in all; −1: those of this machine.
        ip, port: where the first process listens. Without a port, the processes of one machine
            find each other through a temporary file, those of several through RecBole's port.
        group_offset: rank of this machine's first process.

    Returns:
        What the first of these processes returned.

    Raises:
        ConfigError: the numbers do not fit together.
        SIGRecError: raised in a process.
        RuntimeError: a process failed otherwise; its traceback is in the message.
    """
    world_size = nproc if world_size <= 0 else world_size
    if nproc < 1 or group_offset < 0 or world_size < group_offset + nproc:
        raise errors.ConfigError(
            f"nproc = {nproc}, world_size = {world_size}, group_offset = {group_offset}: nproc "
            f"must be at least 1, and world_size (the processes of all machines) at least "
            f"group_offset + nproc"
        )
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="recbole_sigrec-") as folder:
        address = f"tcp://{ip}:{port or DEFAULT_PORT}"
        if port is None and world_size == nproc:
            address = (Path(folder) / "rendezvous").as_uri()
        first = Place(group_offset, world_size, 0, nproc, address)
        try:
            given = function, arguments, first, folder
            with ended_on_error():
                start_processes(_process, given, nproc, start_method="spawn")
        except (ProcessRaisedException, ProcessExitedException) as error:
            # What goes wrong after all have left their result, as they shut down, takes nothing.
            if len(list(Path(folder).glob("result-*.json"))) < nproc:
                raise _failure(Path(folder), str(error)) from None
        return json.loads((Path(folder) / "result-0.json").read_text("utf-8"))


def _process(
    local_rank: int, function: Callable, arguments: tuple, first: Place, folder: str
) -> None:
    """What each process runs: ``function``, whose result or error is left in ``folder``."""
    global _place
    end_with_parent(folder)
    _place = dataclasses.replace(first, rank=first.rank + local_rank, local_rank=local_rank)
    if not is_first():
        logging.getLogger().addHandler(logging.NullHandler())
        warnings.simplefilter("ignore")  # the first process says the same
    try:
        result = function(*arguments)
        if dist.is_initialized():
            barrier()
        (Path(folder) / f"result-{local_rank}.json").write_text(json.dumps(result), "utf-8")
        if dist.is_initialized():
            dist.destroy_process_group()
    except Exception as error:
        report = {
            "time": time.time(),
            "kind": type(error).__name__ if isinstance(error, errors.SIGRecError) else None,
            "message": str(error),
            "text": f"process {_place.rank} of {_place.world_size}:\n{traceback.format_exc()}",
        }
        with contextlib.suppress(FileNotFoundError):  # the parent was killed: it went along
            (Path(folder) / f"error-{local_rank}.json").write_text(json.dumps(report), "utf-8")
        leave_with_parent(folder)
        sys.exit(1)  # torch would write an error that is raised into a file, and leave that there


def _failure(folder: Path, end: str) -> Exception:
    """The error that ended a group: a user's mistake if there is one, else the earliest.

    The others are its consequences: a process whose partner has gone fails too. ``end`` is how the
    first process to go ended: it may have been killed, and left nothing.
    """
    reports = [json.loads(file.read_text("utf-8")) for file in folder.glob("error-*.json")]
    for report in reports:
        if report["kind"]:
            return getattr(errors, report["kind"])(report["message"])
    earliest = min(reports, key=lambda report: report["time"], default=None)
    return RuntimeError(f"{end.strip()}\n\n{earliest['text']}" if earliest else end)
