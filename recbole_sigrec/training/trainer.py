"""The base of our trainers: safe checkpoints, exact resume, and per-epoch hooks."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import recbole.trainer
import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_local_time
from torch.optim import Optimizer

from recbole_sigrec.config import Config
from recbole_sigrec.data.identity import identity, row_hashes
from recbole_sigrec.display.progress import bars_wanted, progress
from recbole_sigrec.errors import DataError, SIGRecError
from recbole_sigrec.kernels.ranking import top_items
from recbole_sigrec.parallel import distributed
from recbole_sigrec.recbole_repairs.collector import Collector
from recbole_sigrec.recbole_repairs.evaluator import Evaluator
from recbole_sigrec.recbole_repairs.models import TRAINING_STATE, check_labels, why_not_resumed
from recbole_sigrec.recbole_repairs.numpy_names import numpy_aliases
from recbole_sigrec.recbole_repairs.tensorboard import one_tensorboard
from recbole_sigrec.training import checkpoint, optimizers
from recbole_sigrec.training.divergence import check_parameters, diverged
from recbole_sigrec.training.epoch_line import DETAILS, brief_terminal, epoch_line
from recbole_sigrec.training.loop import divided_tables, loss_is_divided
from recbole_sigrec.training.patience import wait_for_learned
from recbole_sigrec.training.random_state import numbers_of, random_states, restore_random_states
from recbole_sigrec.training.result import versions
from recbole_sigrec.training.resume import PROGRESS, check_same_config, check_same_data, read_last

_CACHES = ("restore_user_e", "restore_item_e")  # RecBole's models keep evaluation's embeddings here


class SafeTrainer(recbole.trainer.Trainer):
    """Base of our trainers, over RecBole's own: safe checkpoints, exact resume, history.

    Two files are written: ``<name>.pth``, the best model so far, and ``<name>.last.pth``, the whole
    state after the last evaluated epoch (with the best model in it), from which training goes on
    exactly as if it had not stopped. A resumed run writes new files; it overwrites nothing.

    Attributes:
        best_epoch: the epoch of the best validation score, −1 before any.
        history: one dict per evaluated epoch: epoch, train_loss, valid_score, valid_result.
        epoch_seconds, evaluation_seconds: wall times.
        best_learned_score: the best of what is learned, without automatic item scores.
        more_patience: validations after the best of the whole, up to the best of what is learned.
    """

    model: AbstractRecommender

    def __init__(self, config: Config, model: AbstractRecommender):
        numpy_aliases()
        with one_tensorboard():
            super().__init__(config, model)
        self.eval_step = min(self.eval_step, self.epochs)  # a trainer may have set fewer epochs
        self.logger = DETAILS
        self.eval_collector = Collector(config)
        self.evaluator = Evaluator(config)
        name = f"{config['model']}-{config['dataset']}-{config['seed']}-{get_local_time()}"
        name += f"-{secrets.token_hex(8)}.pth"  # several runs may start within a second
        file = str(Path(self.checkpoint_dir).resolve() / name)
        self.saved_model_file = distributed.gather(file)[0]
        self._new_files = {self.saved_model_file, self.last_file}
        self.best_epoch = -1
        self.history: list[dict] = []
        self.epoch_seconds: list[float] = []
        self.evaluation_seconds: list[float] = []
        self._best_state = None
        self._step = 0, 0  # epoch and batch
        self._among: torch.Tensor | None = None
        self._data: dict[str, Any] = {}
        self._valid_result: dict[str, float] = {}
        self.best_learned_score = -np.inf
        self.more_patience = 0
        self._says_epochs = self._validates = True
        self._bar: Any = None  # of an evaluation
        size = distributed.place().world_size
        if size > 1 and not (loss_is_divided(model) or divided_tables(self)):
            self.logger.warning(
                f"each of the {size} processes computes {config['model']}'s loss of the whole "
                f"batch; evaluation alone is divided"
            )

    def _build_optimizer(self, **kwargs: Any) -> Any:
        given = {**optimizers.trainers_parameters(self.model), **kwargs}
        return optimizers.prepared(super()._build_optimizer(**given), self.model)

    @property
    def last_file(self) -> str:
        """The file of the last state."""
        return self.saved_model_file.removesuffix(".pth") + ".last.pth"

    def learning_rate_of(self, epoch: int) -> float:
        """The rate of an epoch, from its number alone, so that a resumed run has it too."""
        factor, epochs = self.config["learning_rate_scheduler"] or (1.0, 1.0)
        return self.config["learning_rate"] * factor ** (epoch / epochs)

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: AbstractDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float | None, dict[str, float] | None]:
        """Train as RecBole does; ``callback_fn`` is called after each validation.

        ``verbose`` is RecBole's: whether epochs are logged. The config's ``verbose`` says how.

        Raises:
            ConfigError: the model learns from labels, and there are none.
        """
        check_labels(self.model, self.config, train_data.dataset)
        self._data = self._about_data(train_data)
        self._says_epochs = verbose and not self.config["verbose"]
        self._validates = bool(valid_data) and self.eval_step > 0

        def at_epoch_end(epoch: int, score: float) -> None:
            if self.cur_step == 0:
                self.best_epoch = epoch
            self.history.append(
                {
                    "epoch": epoch,
                    "train_loss": self.train_loss_dict[epoch],
                    "valid_score": score,
                    "valid_result": self._valid_result,
                }
            )
            if self._says_epochs:
                logging.getLogger().info(epoch_line(self, epoch, score))
            if saved and not why_not_resumed(self.config):
                self._save_last(epoch, train_data.generator)
            if callback_fn is not None:
                callback_fn(epoch, score)

        with brief_terminal(self.config):
            return super().fit(train_data, valid_data, verbose, saved, show_progress, at_epoch_end)

    def _generate_train_loss_output(
        self, epoch_idx: int, s_time: float, e_time: float, losses: Any
    ) -> str:
        validated = self._validates and (epoch_idx + 1) % self.eval_step == 0
        if self._says_epochs and not validated:
            logging.getLogger().info(epoch_line(self, epoch_idx))
        return super()._generate_train_loss_output(epoch_idx, s_time, e_time, losses)

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        if self.config["learning_rate_scheduler"]:
            for optimizer in (v for v in vars(self).values() if isinstance(v, Optimizer)):
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate_of(epoch_idx)
        if hook := getattr(self.model, "on_epoch_start", None):
            hook(epoch_idx)
        self._step = epoch_idx, 0
        loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        check_parameters(epoch_idx, self)
        self.epoch_seconds.append(time.perf_counter() - start)
        return loss

    def _check_nan(self, loss):  # called by RecBole's own loops after each step
        epoch, step = self._step
        if not torch.isfinite(loss):
            raise diverged(f"loss is {loss:g}", step, epoch, self)
        self._step = epoch, step + 1

    def _valid_epoch(self, valid_data, show_progress=False):
        start = time.perf_counter()
        hook, learned = getattr(self.model, "on_validation_start", None), None
        if hook is not None:
            self.model.eval()
            with torch.no_grad():
                learned = hook(valid_data.dataset)
        score, result = super()._valid_epoch(valid_data, show_progress)
        if learned is not None:
            score = wait_for_learned(self, learned, score)
        self.evaluation_seconds.append(time.perf_counter() - start)
        self._valid_result = dict(result or {})
        return score, result

    # ---- checkpoints -------------------------------------------------------------------------

    def _model_state(self) -> dict:
        other = {k: v for k, v in self.model.other_parameter().items() if k not in _CACHES}
        parameters = {"state_dict": dict(self.model.state_dict()), "other_parameter": other}
        return {**parameters, "chosen": self.chosen_values()}

    def _load_model_state(self, state: dict, path: str) -> None:
        checkpoint.fill(self.model, state, path)
        for name in _CACHES:
            if hasattr(self.model, name):
                setattr(self.model, name, None)

    def _header(self, epoch: int, settled: dict[str, Any] | None = None) -> dict:
        return {
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "config": checkpoint.config_json(self.config, settled),
            "data_path": str(Path(self.config["data_path"]).resolve()),
            "versions": versions(),
            "epoch": epoch,
            "valid_result": self._valid_result,
        }

    def chosen_values(self) -> dict[str, Any]:
        """Config key → value of what the model has chosen for ``auto``, as it now stands."""
        own = getattr(self.model, "chosen_values", None)
        return own() if own is not None else {}

    def _about_data(self, train_data: AbstractDataLoader) -> dict[str, Any]:
        """What a checkpoint says of the data: see :mod:`recbole_sigrec.data.identity`."""
        part: Any = train_data.dataset
        modalities = getattr(self.model, "modalities", ())
        hashes = {name: row_hashes(part, name) for name in modalities}
        return {"data": identity(part, modalities), "row_hashes": hashes}

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        if epoch < 0 and self._best_state is not None:  # RecBole's call when nothing is left to do
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        state = {**self._header(epoch, self.chosen_values()), **self._model_state()}
        if distributed.is_first():
            self._write({**state, **self._data}, path)
        self._best_state = checkpoint.copy(state)
        if epoch >= 0:
            self.best_epoch = epoch
        if verbose:
            self.logger.info(f"Saving current best: {path}")

    def _save_last(self, epoch: int, loader: torch.Generator) -> None:
        optimizer = optimizers.whole_state(self.optimizer, divided_tables(self))
        if not distributed.is_first():
            return
        state = {
            **self._header(epoch),
            **self._model_state(),
            "optimizer": optimizer,
            "own_optimizers": optimizers.own_states(self.model),
            "training_state": {name: getattr(self.model, name) for name in self._state_names()},
            **{key: getattr(self, key) for key in PROGRESS},
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": dict(self.best_valid_result or {}),
            "best": self._best_state,
            "random": random_states(loader),
            **self._data,
        }
        self._write(state, self.last_file)

    def _write(self, state: dict, path: str) -> None:
        """Write a checkpoint. The first of its name replaces nothing: it would be another run's."""
        checkpoint.save(state, path, new=path in self._new_files)
        self._new_files.discard(path)

    def _state_names(self) -> tuple[str, ...]:
        return TRAINING_STATE.get(self.config["model"], ())

    def resume_checkpoint(
        self, resume_file: str, train_data: AbstractDataLoader | None = None
    ) -> None:
        """Go on from a ``*.last.pth`` file: parameters, optimiser, stopping and random states.

        Args:
            resume_file: the file; it is read only.
            train_data: the training loader whose shuffling is restored too.

        Raises:
            DataError: the file is not a checkpoint, or lacks a part.
            ConfigError: it is of another model, data set or size, or holds only a best model; or
                runs of the model cannot be resumed.
        """
        try:
            self._resume(resume_file, train_data)
        except SIGRecError:
            raise
        except KeyError as error:
            raise DataError(f"checkpoint [{resume_file}] lacks {error}") from None
        except Exception as error:  # what is in the file may be anything
            reason = " ".join(str(error).split())
            raise DataError(f"checkpoint [{resume_file}] is damaged: {reason}") from None

    def _resume(self, resume_file: str, train_data: AbstractDataLoader | None) -> None:
        state = read_last(resume_file, self.config, self.device)
        self._load_model_state(state, resume_file)
        check_same_config(resume_file, json.loads(state["config"]), self.config)
        if train_data is not None:
            check_same_data(resume_file, state["data"], train_data)
        divided = divided_tables(self)
        optimizers.load_whole_state(self.optimizer, state["optimizer"], divided)
        own = state.get("own_optimizers", {})  # earlier files have none
        optimizers.load_own_states(self.model, own)
        for name in self._state_names():
            setattr(self.model, name, state["training_state"][name])
        self.start_epoch = state["epoch"] + 1
        for key in PROGRESS:
            setattr(self, key, state[key])
        self._best_state = checkpoint.encode(state["best"])
        restore_random_states(state["random"], train_data.generator if train_data else None)
        if distributed.is_first():
            best = {**state["best"], **{key: state[key] for key in ("data", "row_hashes")}}
            self._write(best, self.saved_model_file)
        patience = self.config["stopping_step"] + self.more_patience
        if self.cur_step > patience:  # it had stopped early: nothing is left to do
            self.epochs = self.start_epoch
        logging.getLogger().info(f"Resuming from epoch {self.start_epoch} of {resume_file}")

    def load_best(self, model_file: str | None = None) -> None:
        """Load the best model of the training, or that of another file."""
        path = model_file or self.saved_model_file
        distributed.barrier()  # the first process has written it
        self._load_model_state(checkpoint.load_model(path, self.device), path)
        logging.getLogger().info(f"Loading the best model from {path}")

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: AbstractDataLoader,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float]:
        """The metrics of a part, by default those of the best model, which is loaded."""
        if load_best_model and eval_data:
            self.load_best(model_file)
        with numbers_of(self.config["seed"]), self._evaluation_bar(eval_data, show_progress):
            found = super().evaluate(eval_data, load_best_model=False)
        return found or {}

    @contextlib.contextmanager
    def _evaluation_bar(self, eval_data: Any, shown: bool) -> Iterator[None]:
        more = {"total": len(eval_data or ()), "unit": "batches"}
        try:
            with bars_wanted(shown), progress("evaluation", **more) as self._bar:
                yield
        finally:
            self._bar = None

    @contextlib.contextmanager
    def ranking_among(self, items: np.ndarray) -> Iterator[None]:
        """Within the block, evaluation in full ranks these items alone: bool [n_items]."""
        self._among = torch.from_numpy(items)
        try:
            yield
        finally:
            self._among = None

    def _count_batch(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        self._count_batch()
        return super()._neg_sample_batch_eval(batched_data)

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        interaction, scores, *positives = super()._full_sort_batch_eval(batched_data)
        self._count_batch()
        if self._among is not None:
            scores[:, ~self._among.to(scores.device)] = -torch.inf
        return interaction, scores, *positives

    @torch.no_grad()
    def top_items(self, eval_data: AbstractDataLoader, k: int) -> torch.Tensor:
        """The k best items of each user of a part, best first, as :meth:`evaluate` ranks them.

        Call it after :meth:`evaluate` on the same part; what a user has used before is left out.

        Returns:
            int32 [n_users, k], in the order of ``eval_data.uid_list``.

        Cost: that of an evaluation.
        """
        self.model.eval()
        batches = (self._full_sort_batch_eval(batch)[1] for batch in eval_data)
        with numbers_of(self.config["seed"]):
            return torch.cat([top_items(scores, k).int().cpu() for scores in batches])
