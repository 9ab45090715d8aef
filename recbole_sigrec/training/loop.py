"""The training loop: one epoch, on one process or divided among several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer as RecBoleTrainer
from torch import nn
from torch.nn.utils import clip_grad_norm_

from recbole_sigrec.display.progress import bars_wanted, progress
from recbole_sigrec.parallel import columns, distributed
from recbole_sigrec.training import optimizers
from recbole_sigrec.training.divergence import check_finite

ROW_MEAN_LOSSES = {"recbole.model.general_recommender.bpr.BPR"}
"""RecBole's models whose loss is a mean over the batch's rows, so that a share of the rows gives a
share of the loss. LightGCN's is not: its regulariser is a norm, and those of two shares add up to
√2 of the whole's, which after one epoch of a small data set moved parameters by 1.4e-4."""


class LeanLoop(RecBoleTrainer):
    """RecBole's training loop; losses stay on the device until the epoch ends.

    One progress bar per epoch shows the running loss and the best validation score so far.
    Of several processes each computes its share of a batch's loss; their gradients are added.
    """

    model: AbstractRecommender

    def _train_epoch(
        self,
        train_data: AbstractDataLoader,
        epoch_idx: int,
        loss_func: Callable[..., Any] | None = None,
        show_progress: bool = False,
    ) -> float | tuple[float, ...]:
        self.model.train()
        loss_of: Callable[..., Any] = loss_func or self.model.calculate_loss
        with bars_wanted(show_progress):
            bar = progress(f"epoch {epoch_idx:>3}", train_data, unit="batches")
        divided = divided_tables(self)
        with columns.divided(divided):
            terms = self._train_steps(bar, epoch_idx, loss_of, divided)
        check_finite(terms, epoch_idx, self)
        parts = distributed.sum_tensor(sum(terms[1:], terms[0])).tolist()
        return tuple(parts) if len(parts) > 1 else parts[0]

    def _train_steps(
        self,
        batches: Any,
        epoch: int,
        loss_of: Callable[..., Any],
        divided: Sequence[nn.Parameter],
    ) -> list[torch.Tensor]:
        """A step for each batch of an epoch.

        Args:
            batches: a progress bar over them.
            divided: the tables of which this process holds its columns alone.

        Returns:
            The terms of the loss of each step, this process's share.
        """
        hook = getattr(self.model, "on_batch_start", None)
        trained = optimizers.parameters_of(self.optimizer)
        alone = set(map(id, divided))
        shared = [parameter for parameter in trained if id(parameter) not in alone]
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.enable_scaler)
        total = torch.zeros((), device=self.device)
        terms: list[torch.Tensor] = []  # of each step
        for step, interaction in enumerate(batches):
            interaction, factor = self._share(interaction.to(self.device))
            if hook is not None:
                hook(interaction)
            self.optimizer.zero_grad()
            with torch.autocast(device_type=self.device.type, enabled=self.enable_amp):
                found = loss_of(interaction)
            losses: tuple[torch.Tensor, ...] = found if isinstance(found, tuple) else (found,)
            loss = sum(losses[1:], losses[0]) * factor
            scaler.scale(loss).backward()
            distributed.sum_gradients(shared)
            if self.clip_grad_norm:
                scaler.unscale_(self.optimizer)
                clip_grad_norm_(trained, **self.clip_grad_norm)
            scaler.step(self.optimizer)
            scaler.update()
            terms.append(torch.stack([part.detach().reshape(()) for part in losses]) * factor)
            total = total + terms[-1]
            if not batches.disable and step % 10 == 0:
                if distributed.place().world_size == 1 and not torch.isfinite(loss):
                    check_finite(terms, epoch, self)
                batches.set_postfix_str(self._progress(total, step + 1), refresh=False)
        return terms

    def _share(self, interaction: Interaction) -> tuple[Interaction, float]:
        """What this process computes the loss of, and the factor by which its share counts."""
        size, n = distributed.place().world_size, len(interaction)
        if not loss_is_divided(self.model):
            return interaction, 1.0 / size
        if not _is_row_mean(self.model):  # the model takes its share
            return interaction, 1.0
        share = distributed.share(n)
        rows = share.stop - share.start
        return (interaction[share], rows / n) if rows else (interaction[:1], 0.0)

    def _progress(self, total: torch.Tensor, steps: int) -> str:
        share = distributed.place().world_size  # of the loss: this process's
        text = f"loss {share * float(total.sum()) / steps:.4f}"
        if np.isfinite(self.best_valid_score):
            text += f", best {self.valid_metric} {self.best_valid_score:.4f}"
        return text


def divided_tables(trainer: RecBoleTrainer) -> list[nn.Parameter]:
    """The tables that several processes divide by columns in an epoch.

    None where a step needs the whole gradient: it is clipped by its norm, or checked for infinity.
    """
    model: nn.Module = trainer.model  # pyright: ignore[reportAssignmentType]
    tables = [model.get_parameter(name) for name in getattr(model, "divided_tables", ())]
    whole = trainer.clip_grad_norm or trainer.enable_scaler
    return tables if columns.divisible(tables) and not whole else []


def loss_is_divided(model: nn.Module) -> bool:
    """Whether the shares of a batch's loss that the processes compute are less than the whole."""
    return _is_row_mean(model) or getattr(model, "loss_in_shares", False)


def _is_row_mean(model: nn.Module) -> bool:
    return f"{type(model).__module__}.{type(model).__qualname__}" in ROW_MEAN_LOSSES
