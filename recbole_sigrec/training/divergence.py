"""A training whose numbers have become infinite or NaN ends, and says where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from recbole.trainer import Trainer

from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.parallel import distributed


def check_finite(terms: Sequence[torch.Tensor], epoch: int, trainer: Trainer) -> None:
    """See that the losses of an epoch's steps are numbers; all processes call it.

    Args:
        terms: of each step the terms of the loss, float [n_terms], of this process.
        epoch: from 0.
        trainer: whose model is trained.

    Raises:
        SIGRecError: a term is infinite or NaN.
    """
    steps = distributed.sum_tensor(torch.stack(list(terms)))
    bad = (~torch.isfinite(steps)).nonzero()
    if len(bad):
        step, term = bad[0].tolist()
        which = f" (train_loss{term + 1} of {steps.shape[1]})" if steps.shape[1] > 1 else ""
        raise diverged(f"loss{which} is {steps[step, term]:g}", step, epoch, trainer)


def check_parameters(epoch: int, trainer: Trainer) -> None:
    """See that what is trained is finite at the end of an epoch; its last step may have broken it.

    Raises:
        SIGRecError: a parameter is infinite or NaN.
    """
    bad = not_finite(trainer.model)
    if bad:
        raise diverged(f"parameter [{bad[0]}] is not finite", None, epoch, trainer)


def not_finite(net: torch.nn.Module) -> list[str]:
    """The names of the trained parameters that hold infinity or NaN."""
    trained = ((name, x) for name, x in net.named_parameters() if x.requires_grad)
    return [name for name, x in trained if not torch.isfinite(_ends(x)).all()]


def with_nan(values: Mapping[str, Any]) -> list[str]:
    """The names of the tensors, arrays and sparse matrices that hold NaN.

    Infinity is none: a model may mask with it.
    """
    found = []
    for name, value in values.items():
        numbers = getattr(value, "data", value) if sp.issparse(value) else value
        if isinstance(numbers, np.ndarray) and numbers.dtype.kind == "f":
            numbers = torch.from_numpy(np.asarray(numbers))
        if isinstance(numbers, torch.Tensor) and numbers.layout == torch.strided:
            if numbers.is_floating_point() and torch.isnan(_ends(numbers)).any():
                found.append(name)
    return found


def _ends(numbers: torch.Tensor) -> torch.Tensor:
    """The smallest and the largest number; NaN where one is NaN."""
    return torch.stack(torch.aminmax(numbers.detach())) if numbers.numel() else torch.zeros(2)


def diverged(what: str, step: int | None, epoch: int, trainer: Trainer) -> SIGRecError:
    """The error that ends such a training.

    Args:
        what: is not a number.
        step: the batch, from 0; none: after the last one.
        epoch: from 0.
        trainer: whose model is trained.
    """
    where = "after" if step is None else f"at step {step} of"
    rate = trainer.optimizer.param_groups[0]["lr"]
    return SIGRecError(
        f"training of {type(trainer.model).__name__} has diverged: its {what} {where} epoch "
        f"{epoch} (both counted from 0), with learning_rate [{rate:g}]. Give a smaller "
        f"learning_rate, or clip_grad_norm: {{max_norm: 5}}"
    )
