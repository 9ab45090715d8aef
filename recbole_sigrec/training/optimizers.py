"""The optimisers of a training: the trainer's, and those that a model steps itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from recbole_sigrec.parallel import distributed


def trainers_parameters(model: nn.Module) -> dict[str, Any]:
    """What RecBole's ``_build_optimizer`` is given.

    The parameters that no optimiser of the model's own trains. Nothing, for RecBole's default,
    where it has none.
    """
    trained = set(map(id, own_parameters(model)))
    if not trained:
        return {}
    return {"params": [p for p in model.parameters() if id(p) not in trained]}


def own_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What the optimisers train that a model steps itself."""
    return [parameter for own in _own(model).values() for parameter in parameters_of(own)]


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """What an optimiser trains."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def prepared(optimizer: Optimizer, model: nn.Module) -> Optimizer:
    """The trainer's optimiser, shown to the model.

    Adam and AdamW are in their fused form, which gives the same steps.
    """
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    if hook := getattr(model, "on_optimizer", None):
        hook(optimizer)
    return optimizer


def whole_state(optimizer: Optimizer, divided: Sequence[nn.Parameter]) -> dict[str, Any]:
    """An optimiser's state as one process has it; all processes call it between two epochs.

    Args:
        divided: the tables [n, d] of whose moments each process holds its columns alone.
    """
    state = optimizer.state_dict()
    for index, parameter in enumerate(parameters_of(optimizer)):
        if any(parameter is table for table in divided) and index in state["state"]:
            d = parameter.shape[1]
            state["state"][index] = {
                name: distributed.join_columns(value, d) if _is_moment(value) else value
                for name, value in state["state"][index].items()
            }
    return state


def load_whole_state(
    optimizer: Optimizer, state: dict[str, Any], divided: Sequence[nn.Parameter]
) -> None:
    """Restore what :func:`whole_state` has returned."""
    optimizer.load_state_dict(state)
    for table in divided:
        held, own = optimizer.state[table], distributed.share(table.shape[1])
        for name, value in held.items():
            if _is_moment(value):
                held[name] = value[:, own].contiguous()


def _is_moment(value: Any) -> bool:
    """Whether a part of an optimiser's state is a table, as its parameter is."""
    return isinstance(value, torch.Tensor) and value.dim() == 2


def own_states(model: nn.Module) -> dict[str, Any]:
    """The states of the optimisers that a model steps itself, by their names."""
    return {name: own.state_dict() for name, own in _own(model).items()}


def load_own_states(model: nn.Module, states: dict[str, Any]) -> None:
    """Restore what :func:`own_states` has returned.

    Raises:
        KeyError: one is missing.
    """
    for name, own in _own(model).items():
        own.load_state_dict(states[name])


def _own(model: nn.Module) -> dict[str, Optimizer]:
    found: dict[str, Optimizer] = getattr(model, "own_optimizers", {})
    return found
