"""RecBole's trainers with safe checkpoints, exact resume, and per-epoch hooks."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from recbole.trainer import TraditionalTrainer
from recbole.trainer import Trainer as RecBoleTrainer
from recbole.utils import get_local_time, get_trainer
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from tqdm import tqdm

from recbole_sigrec import checkpoint, compat, distributed
from recbole_sigrec.errors import ConfigError, DataError, some
from recbole_sigrec.ranking import top_items

_COUNTER = itertools.count()
_CACHES = ("restore_user_e", "restore_item_e")  # RecBole's models keep evaluation's embeddings here

ROW_MEAN_LOSSES = {"recbole.model.general_recommender.bpr.BPR"}
"""RecBole's models whose loss is a mean over the batch's rows, so that a share of the rows gives a
share of the loss. LightGCN's is not: its regulariser is a norm, and those of two shares add up to
√2 of the whole's, which after one epoch of a small data set moved parameters by 1.4e-4."""

_LAST_KEYS = {
    *("model", "dataset", "config", "epoch", "state_dict", "other_parameter", "optimizer"),
    *("cur_step", "best_valid_score", "best_valid_result", "best_epoch", "best", "history"),
    "random",
}  # what a *.last.pth file holds

MACHINE_KEYS = frozenset(
    {
        *("data_path", "checkpoint_dir", "result_file", "resume", "threads", "show_progress"),
        *("state", "device", "gpu_id", "use_gpu", "worker", "eval_batch_size", "eval_memory_mb"),
        *("graph_memory_mb", "graph_cache_dir", "log_wandb", "wandb_project", "config_files"),
        "loss_decimal_place",
    }
)
"""Keys that say where and how a run computes, not what."""

_FREE_KEYS = MACHINE_KEYS | {"epochs", "stopping_step", "metrics", "topk"}
# … and those that may differ too when a run is resumed


class SafeTrainer:
    """Mixin over any of RecBole's trainers: the checkpoint format, resume, and history.

    Two files are written: ``<name>.pth``, the best model so far, and ``<name>.last.pth``, the whole
    state after the last evaluated epoch (with the best model in it), from which training goes on
    exactly as if it had not stopped. A resumed run writes new files; it overwrites nothing.

    Attributes:
        best_epoch: the epoch of the best validation score, −1 before any.
        history: one dict per evaluated epoch: epoch, train_loss, valid_score, valid_result.
        epoch_seconds, evaluation_seconds: wall times.
    """

    def __init__(self, config, model):
        compat.numpy_aliases()
        with compat.one_tensorboard():
            super().__init__(config, model)
        self.eval_step = min(self.eval_step, self.epochs)  # a trainer may have set fewer epochs
        self.eval_collector = compat.Collector(config)
        name = f"{config['model']}-{config['dataset']}-{config['seed']}-{get_local_time()}"
        unique = f"{os.getpid()}-{next(_COUNTER)}"  # several runs may start within a second
        file = str(Path(self.checkpoint_dir) / f"{name}-{unique}.pth")
        self.saved_model_file = distributed.gather(file)[0]
        self.best_epoch = -1
        self.history: list[dict] = []
        self.epoch_seconds: list[float] = []
        self.evaluation_seconds: list[float] = []
        self._best_state = None
        self._valid_result = None
        self._train_data = None
        size = distributed.place().world_size
        if size > 1 and not _loss_is_divided(model):
            self.logger.warning(
                f"each of the {size} processes computes {config['model']}'s loss of the whole "
                f"batch; evaluation alone is divided"
            )

    def _build_optimizer(self, **kwargs):
        """RecBole's optimiser; Adam and AdamW in their fused form, which gives the same steps."""
        optimizer = super()._build_optimizer(**kwargs)
        if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
            for group in optimizer.param_groups:
                group["fused"], group["foreach"] = True, False
        return optimizer

    @property
    def last_file(self) -> str:
        """The file of the last state."""
        return self.saved_model_file.removesuffix(".pth") + ".last.pth"

    def learning_rate_of(self, epoch: int) -> float:
        """The rate of an epoch, from its number alone, so that a resumed run has it too."""
        factor, epochs = self.config["learning_rate_scheduler"] or (1.0, 1.0)
        return self.config["learning_rate"] * factor ** (epoch / epochs)

    def fit(self, train_data, valid_data=None, verbose=True, saved=True, **kwargs):
        self._train_data = train_data
        after = kwargs.pop("callback_fn", None)

        def at_epoch_end(epoch, score):
            if self.cur_step == 0:
                self.best_epoch = epoch
            self.history.append(
                {
                    "epoch": epoch,
                    "train_loss": self.train_loss_dict[epoch],
                    "valid_score": score,
                    "valid_result": dict(self._valid_result),
                }
            )
            if saved and distributed.is_first() and not compat.why_not_resumed(self.config):
                self._save_last(epoch)
            if after is not None:
                after(epoch, score)

        return super().fit(
            train_data, valid_data, verbose, saved, callback_fn=at_epoch_end, **kwargs
        )

    def _train_epoch(self, train_data, epoch_idx, *args, **kwargs):
        start = time.perf_counter()
        if self.config["learning_rate_scheduler"]:
            for optimizer in (v for v in vars(self).values() if isinstance(v, Optimizer)):
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate_of(epoch_idx)
        hook = getattr(self.model, "on_epoch_start", None)
        if hook is not None:
            hook(epoch_idx)
        loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        self.epoch_seconds.append(time.perf_counter() - start)
        return loss

    def _valid_epoch(self, valid_data, show_progress=False):
        start = time.perf_counter()
        score, result = super()._valid_epoch(valid_data, show_progress)
        self.evaluation_seconds.append(time.perf_counter() - start)
        self._valid_result = result
        return score, result

    # ---- checkpoints -------------------------------------------------------------------------

    def _model_state(self) -> dict:
        other = {k: v for k, v in self.model.other_parameter().items() if k not in _CACHES}
        return {"state_dict": dict(self.model.state_dict()), "other_parameter": other}

    def _load_model_state(self, state: dict) -> None:
        self.model.load_state_dict(state["state_dict"])
        self.model.load_other_parameter(state.get("other_parameter"))
        for name in _CACHES:
            if hasattr(self.model, name):
                setattr(self.model, name, None)

    def _header(self, epoch: int) -> dict:
        return {
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "config": checkpoint.config_json(self.config),
            "epoch": epoch,
        }

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        if epoch < 0 and self._best_state is not None:  # RecBole's call when nothing is left to do
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        state = {**self._header(epoch), **self._model_state()}
        if distributed.is_first():
            checkpoint.save(state, path)
        encoded = checkpoint.encode(state)
        self._best_state = _clone(encoded)
        if epoch >= 0:
            self.best_epoch = epoch
        if verbose:
            self.logger.info(f"Saving current best: {path}")

    def _save_last(self, epoch: int) -> None:
        state = {
            **self._header(epoch),
            **self._model_state(),
            "optimizer": self.optimizer.state_dict(),
            "training_state": {name: getattr(self.model, name) for name in self._state_names()},
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": dict(self.best_valid_result or {}),
            "best_epoch": self.best_epoch,
            "best": self._best_state,
            "history": self.history,
            "epoch_seconds": self.epoch_seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "random": {
                "torch": torch.get_rng_state(),
                "numpy": _numpy_state(),
                "python": repr(random.getstate()[1]),
                "loader": self._train_data.generator.get_state(),
            },
        }
        if torch.cuda.is_available():
            state["random"]["cuda"] = [torch.cuda.get_rng_state()]
        checkpoint.save(state, self.last_file)

    def _state_names(self) -> tuple[str, ...]:
        return compat.TRAINING_STATE.get(self.config["model"], ())

    def resume_checkpoint(self, resume_file, train_data=None):
        """Go on from a ``*.last.pth`` file: parameters, optimiser, stopping and random states.

        Args:
            resume_file: the file; it is read only.
            train_data: the training loader whose shuffling is restored too.

        Raises:
            DataError: the file is not a checkpoint, or lacks a part.
            ConfigError: it is of another model, data set or size, or holds only a best model; or
                runs of the model cannot be resumed.
        """
        reason = compat.why_not_resumed(self.config)
        if reason:
            raise ConfigError(f"a run of {self.config['model']} cannot be resumed: {reason}")
        state = checkpoint.load(resume_file, self.device)
        if "optimizer" not in state:
            raise ConfigError(
                f"checkpoint [{resume_file}] holds the best model alone; resume from the "
                f"*.last.pth file beside it"
            )
        needed = _LAST_KEYS | ({"training_state"} if self._state_names() else set())
        missing = sorted(needed - set(state))
        if missing:
            raise DataError(f"checkpoint [{resume_file}] is incomplete: it lacks {some(missing)}")
        for key in ("model", "dataset"):
            if state[key] != self.config[key]:
                raise ConfigError(
                    f"checkpoint [{resume_file}] is of {key} {state[key]}, not {self.config[key]}"
                )
        try:
            self._load_model_state(state)
        except (RuntimeError, KeyError) as error:
            raise ConfigError(
                f"checkpoint [{resume_file}] does not fit the model of this config: {error}"
            ) from None
        self._check_same_config(resume_file, json.loads(state["config"]))
        self.optimizer.load_state_dict(state["optimizer"])
        for name in self._state_names():
            setattr(self.model, name, state["training_state"][name])
        self.start_epoch = state["epoch"] + 1
        for key in ("cur_step", "best_valid_score", "best_valid_result", "best_epoch", "history"):
            setattr(self, key, state[key])
        for key in ("epoch_seconds", "evaluation_seconds"):  # older files lack them
            setattr(self, key, state.get(key, []))
        self._best_state = checkpoint.encode(state["best"])
        if distributed.is_first():
            checkpoint.save(state["best"], self.saved_model_file)
        saved = state["random"]
        torch.set_rng_state(saved["torch"].cpu())
        name, keys, position, has_gauss, gauss = saved["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
        numbers = tuple(int(x) for x in saved["python"].strip("()").split(","))
        random.setstate((3, numbers, None))
        if train_data is not None:
            train_data.generator.set_state(saved["loader"].cpu())
        if "cuda" in saved and torch.cuda.is_available():
            torch.cuda.set_rng_state(saved["cuda"][0].cpu())
        if self.cur_step > self.stopping_step:  # it had stopped early: nothing is left to do
            self.epochs = self.start_epoch
        self.logger.info(f"Resuming from epoch {self.start_epoch} of {resume_file}")

    def _check_same_config(self, resume_file, saved: dict) -> None:
        """A resumed run is the run that was: another seed would split the data anew."""
        now = json.loads(checkpoint.config_json(self.config))
        keys = (set(saved) | set(now)) - _FREE_KEYS
        changed = sorted(key for key in keys if saved.get(key) != now.get(key))
        if changed:
            key = changed[0]
            raise ConfigError(
                f"checkpoint [{resume_file}] was trained with another config: {some(changed)}; "
                f"[{key}] was [{saved.get(key)}], it is [{now.get(key)}]. Resume with the same "
                f"values, or train anew"
            )

    @torch.no_grad()
    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        if load_best_model and eval_data:
            path = model_file or self.saved_model_file
            distributed.barrier()  # the first process has written it
            self._load_model_state(checkpoint.load(path, self.device))
            self.logger.info(f"Loading the best model from {path}")
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    @torch.no_grad()
    def top_items(self, eval_data, k: int) -> torch.Tensor:
        """The k best items of each user of a part, best first, as :meth:`evaluate` ranks them.

        Call it after :meth:`evaluate` on the same part; what a user has used before is left out.

        Returns:
            int32 [n_users, k], in the order of ``eval_data.uid_list``.

        Cost: that of an evaluation.
        """
        self.model.eval()
        batches = (self._full_sort_batch_eval(batch)[1] for batch in eval_data)
        return torch.cat([top_items(scores, k).int().cpu() for scores in batches])


class _LeanLoop(RecBoleTrainer):
    """RecBole's training loop; losses stay on the device until the epoch ends.

    One progress bar per epoch shows the running loss and the best validation score so far.
    Of several processes each computes its share of a batch's loss; their gradients are added.
    """

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        bar = tqdm(
            train_data,
            desc=f"epoch {epoch_idx:>3}",
            disable=not show_progress,
            leave=False,
            dynamic_ncols=True,
        )
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.enable_scaler)
        total = None
        for step, interaction in enumerate(bar):
            interaction, factor = self._share(interaction.to(self.device))
            self.optimizer.zero_grad()
            with torch.autocast(device_type=self.device.type, enabled=self.enable_amp):
                losses = loss_func(interaction)
            losses = losses if isinstance(losses, tuple) else (losses,)
            loss = sum(losses) * factor
            scaler.scale(loss).backward()
            distributed.sum_gradients(self.model.parameters())
            if self.clip_grad_norm:
                scaler.unscale_(self.optimizer)
                clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
            scaler.step(self.optimizer)
            scaler.update()
            values = torch.stack([part.detach().reshape(()) for part in losses]) * factor
            total = values if total is None else total + values
            if show_progress and step % 10 == 0:
                self._check_nan(loss)
                bar.set_postfix_str(self._progress(total, step + 1))
        self._check_nan(distributed.sum_tensor(total).sum())
        parts = tuple(total.tolist())
        return parts if len(parts) > 1 else parts[0]

    def _share(self, interaction):
        """What this process computes the loss of, and the factor by which its share counts."""
        size, n = distributed.place().world_size, len(interaction)
        if not _loss_is_divided(self.model):
            return interaction, 1.0 / size
        if not _is_row_mean(self.model):  # the model takes its share
            return interaction, 1.0
        share = distributed.share(n)
        rows = share.stop - share.start
        return (interaction[share], rows / n) if rows else (interaction[:1], 0.0)

    def _progress(self, total, steps):
        share = distributed.place().world_size  # of the loss: this process's
        text = f"loss {share * float(total.sum()) / steps:.4f}"
        if np.isfinite(self.best_valid_score):
            text += f", best {self.valid_metric} {self.best_valid_score:.4f}"
        return text


def _loss_is_divided(model) -> bool:
    """Whether the shares of a batch's loss that the processes compute are less than the whole."""
    return _is_row_mean(model) or getattr(model, "loss_in_shares", False)


def _is_row_mean(model) -> bool:
    return f"{type(model).__module__}.{type(model).__qualname__}" in ROW_MEAN_LOSSES


def check_shared(model_type, model_name: str) -> None:
    """See that several processes can train a model.

    Raises:
        ConfigError: RecBole trains it in a loop of its own.
    """
    trainer = trainer_class(model_type, model_name)
    if not issubclass(trainer, _LeanLoop):
        raise ConfigError(
            f"model [{model_name}] is trained by RecBole's {trainer.__name__}, in which several "
            f"processes cannot take part; run it with --nproc=1"
        )


@functools.cache
def trainer_class(model_type, model_name: str) -> type:
    """The trainer of a model: RecBole's choice, made safe."""
    base = get_trainer(model_type, model_name)
    if base is RecBoleTrainer:
        return type("Trainer", (SafeTrainer, _LeanLoop), {})
    if base is TraditionalTrainer:
        return type("TraditionalTrainer", (SafeTrainer, TraditionalTrainer, _LeanLoop), {})
    return type(base.__name__, (SafeTrainer, base), {})


def _numpy_state() -> list:
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return [name, keys.tolist(), position, has_gauss, gauss]


def _clone(value):
    if isinstance(value, dict):
        return {key: _clone(item) for key, item in value.items()}
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
