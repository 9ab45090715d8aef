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
import logging
import multiprocessing
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from recbole_sigrec import errors
from recbole_sigrec.parallel.lifetime import end_with_parent, ended_on_error

DEFAULT_PORT = 5678  # RecBole's
_LOCALHOST = "127.0.0.1"
_SHUTDOWN = 60  # seconds in which a process ends that has left its result
_TIMEOUT = datetime.timedelta(hours=6)  # the others wait while the first builds graphs


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process stands in its group."""

    rank: int = 0  # its number among all processes
    world_size: int = 1  # how many there are
    local_rank: int = 0  # its number on this machine
    nproc: int = 1  # how many there are on this machine
    address: str = ""  # where the processes of several machines find each other
    port: int | None = None  # … and those of one machine: of the store of the process above


_place = Place()


@dataclasses.dataclass(frozen=True)
class _Report:
    """How a process ended: with a result, or with an error that can be pickled."""

    result: Any = None
    error: Exception | None = None


_Started = tuple[BaseProcess, Connection]


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
    if _place.port is None:
        meeting: dict[str, Any] = {"init_method": _place.address}
    else:
        store = TCPStore(_LOCALHOST, _place.port, timeout=_TIMEOUT, wait_for_workers=False)
        meeting = {"store": store}
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        **meeting,
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


def join_columns(part: torch.Tensor, d: int) -> torch.Tensor:
    """The columns of all processes, each with its :func:`share` of ``d``: [..., c] → [..., d]."""
    size = _place.world_size
    widest = -(-d // size)
    padded = torch.nn.functional.pad(part, (0, widest - part.shape[-1])).contiguous()
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded)
    widths = [d * (rank + 1) // size - d * rank // size for rank in range(size)]
    return torch.cat([x[..., :width] for x, width in zip(parts, widths)], dim=-1)


def sum_own_columns(tensor: torch.Tensor) -> torch.Tensor:
    """This process's :func:`share` of the columns of the sum over the processes.

    Shapes: [..., d], the same in each → [..., c].
    """
    size, d = _place.world_size, tensor.shape[-1]
    sent = [tensor[..., d * r // size : d * (r + 1) // size].flatten() for r in range(size)]
    own = sent[_place.rank]
    received = own.new_empty(size * len(own))
    dist.all_to_all_single(
        received, torch.cat(sent), [len(own)] * size, [len(part) for part in sent]
    )
    return received.view(size, *tensor.shape[:-1], -1).sum(dim=0)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes.

    All processes call it, whatever they have computed. A gradient that is None counts as zero, and
    stays None where it is None everywhere, so that the optimiser passes that parameter over as it
    does in one process.

    Cost: one message of the size of all trained parameters.
    """
    parameters = [p for p in parameters if p.requires_grad]
    if _place.world_size == 1 or not parameters:
        return
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

    They end when this process does, by whatever signal.

    Args:
        function: importable by name; what it returns can be pickled.
        nproc: processes on this machine.
        world_size: processes in all; −1: those of this machine.
        ip, port: where the first process listens. Without a port, the processes of one machine
            find each other through a free port of this process that other machines do not see,
            those of several through RecBole's port.
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
    store = _store() if port is None and world_size == nproc else None
    address = f"tcp://{ip}:{port or DEFAULT_PORT}"
    first = Place(group_offset, world_size, 0, nproc, address, store.port if store else None)
    with ended_on_error():
        return _results(_start(function, arguments, first))[0]


def _store() -> TCPStore:
    """Where the processes of one machine find each other: no other machine can connect."""
    listener = socket.create_server((_LOCALHOST, 0))
    port = listener.getsockname()[1]
    return TCPStore(
        _LOCALHOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )


def _start(function: Callable, arguments: tuple, first: Place) -> dict[int, _Started]:
    """Start the processes of this machine, each with a pipe through which it reports.

    Returns:
        Rank → the process and this end of its pipe.
    """
    context = multiprocessing.get_context("spawn")
    started = {}
    for local_rank in range(first.nproc):
        pipe, its_end = context.Pipe(duplex=False)
        place = dataclasses.replace(first, rank=first.rank + local_rank, local_rank=local_rank)
        process = context.Process(target=_process, args=(its_end, function, arguments, place))
        process.start()
        its_end.close()
        started[place.rank] = process, pipe
    return started


def _process(pipe: Connection, function: Callable, arguments: tuple, own: Place) -> None:
    """What each process runs: ``function``, whose result or error it reports."""
    global _place
    end_with_parent()
    _place = own
    if not is_first():
        logging.getLogger().addHandler(logging.NullHandler())
        warnings.simplefilter("ignore")  # the first process says the same
    try:
        result = function(*arguments)
        if dist.is_initialized():
            barrier()
        pipe.send(_Report(result=result))
        if dist.is_initialized():
            dist.destroy_process_group()
    except Exception as error:
        if not isinstance(error, errors.SIGRecError):
            text = f"process {_place.rank} of {_place.world_size}:\n{traceback.format_exc()}"
            error = RuntimeError(text)
        pipe.send(_Report(error=error))
        sys.exit(1)


def _results(started: dict[int, _Started]) -> list[Any]:
    """What the processes returned, in the order of the ranks, once all have ended.

    Raises:
        Exception: the first error, of ours if there is one. Those of the others are its
            consequences: a process whose partner has gone fails too.
    """
    waiting, results = dict(started), {}
    while waiting:
        wait([end for process, pipe in waiting.values() for end in (process.sentinel, pipe)])
        reports = {
            rank: _report(rank, process, pipe)
            for rank, (process, pipe) in waiting.items()
            if pipe.poll() or not process.is_alive()
        }
        errors_now = [report.error for report in reports.values() if report.error]
        if errors_now:
            raise min(errors_now, key=lambda error: not isinstance(error, errors.SIGRecError))
        for rank, report in reports.items():
            results[rank] = report.result
            del waiting[rank]
    for process, _ in started.values():
        process.join(_SHUTDOWN)  # what goes wrong as it shuts down takes nothing
        process.kill()
    return [results[rank] for rank in started]


def _report(rank: int, process: BaseProcess, pipe: Connection) -> _Report:
    """What a process has reported, or how it ended if it was killed."""
    with contextlib.suppress(EOFError):
        if pipe.poll():
            return pipe.recv()
    process.join()
    code = process.exitcode or 0
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return _Report(error=RuntimeError(f"process {rank} terminated with {how}"))
