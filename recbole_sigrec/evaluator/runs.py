"""One run of a comparison, and its files."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import init_seed
from recbole.utils.logger import RemoveColorFilter

from recbole_sigrec.errors import DataError
from recbole_sigrec.evaluator.arms import Arm, Setting, config_hash, settled_values
from recbole_sigrec.evaluator.split import Split
from recbole_sigrec.quick_start import (
    data_preparation,
    fit_and_test,
    machine_settings,
    make_trainer,
    paused_collection,
    write_json,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """An arm with a seed. Its files in ``folder`` begin with the label and the seed.

    ``.json`` is its result, written last; ``.npz`` holds what the model recommended at the test:
    ``users`` int32 [n] and ``top`` int32 [n, k], RecBole's ids, best first; ``.log`` its log; the
    folder without an ending its checkpoints: while it trains those from which it can go on, then
    the best model alone.
    """

    arm: Arm
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.arm.label}, seed {self.seed}"

    @property
    def key(self) -> tuple[str, int]:
        return self.arm.label, self.seed

    def path(self, ending: str) -> Path:
        return self.folder / f"{self.arm.stem}-{self.seed}{ending}"

    @property
    def done(self) -> bool:
        return self.path(".json").is_file()

    @property
    def in_vain(self) -> bool:
        """Whether it was begun and has nothing to show: no epoch to go on from. It is made after
        those that were not, since it may be what the system kills the comparison for.
        """
        checkpoints = self.path("").glob("*.last.pth")
        return self.path(".log").is_file() and not self.done and not any(checkpoints)

    def logged_since(self, moment: float) -> bool:
        """Whether something was written to the log since ``moment``, by ``time.time``."""
        log = self.path(".log")
        return log.is_file() and log.stat().st_mtime >= moment - 1.0  # file times may be coarse

    def read(self) -> dict[str, Any]:
        """The result, as of :func:`recbole_sigrec.run`, with label, config_hash and history."""
        return json.loads(self.path(".json").read_text("utf-8"))

    def recommended(self) -> tuple[np.ndarray, np.ndarray]:
        """(users [n], their best items [n, k]) of the test, see the class.

        Raises:
            DataError: the file is gone.
        """
        if not self.path(".npz").is_file():
            raise DataError(
                f"{self.path('.npz')} is gone, which holds what {self} recommended. Delete "
                f"{self.path('.json')} too, and the run is made again"
            )
        with np.load(self.path(".npz"), allow_pickle=False) as file:
            return file["users"], file["top"]

    def tidy(self) -> None:
        """Remove the checkpoints of a finished run but that of the best model."""
        best = Path(self.read()["checkpoint"]).name
        for file in self.path("").glob("*"):
            if file.name != best:
                file.unlink()

    def summary(self) -> str:
        """The run in a line."""
        result = self.read()
        metric = result["config"]["valid_metric"].lower()
        valid, test = (result[key].get(metric) for key in ("best_valid_result", "test_result"))
        shown = f"{test:.4f}" if valid is None else f"{test:.4f} (validation {valid:.4f})"
        return (
            f"{self}: {metric} {shown}, best epoch {result['best_epoch']}, "
            f"{result['epochs']} epochs"
        )


def execute(run: Run, setting: Setting, split: Split, threads: int, show_progress: bool) -> None:
    """Train and test one run, from its last checkpoint if there is one, and write its files.

    Args:
        run, setting, split: the run; what all share.
        threads: of torch, if the config names none.
        show_progress: whether a bar for each epoch may be shown.
    """
    checkpoints = run.path("")
    checkpoints.mkdir(parents=True, exist_ok=True)
    # A resumed run writes new files, so the last file written is the furthest on.
    last = max(checkpoints.glob("*.last.pth"), key=lambda p: p.stat().st_mtime_ns, default=None)
    config = setting.config(
        run.arm,
        seed=run.seed,
        split_seed=split.seed,
        checkpoint_dir=str(checkpoints),
        resume=str(last) if last else None,
        **({} if show_progress else {"show_progress": False}),
    )
    with _log_file(run.path(".log")), machine_settings(config["threads"] or threads):
        try:
            _execute(run, config, split)
        except Exception:
            logging.getLogger().exception("the run failed")
            raise


def _execute(run: Run, config, split: Split) -> None:
    logging.getLogger().info(config)
    values = settled_values(config)
    started = time.perf_counter()
    gc.collect()  # so that no earlier run in this process counts in the peak of memory
    with contextlib.suppress(OSError):  # only Linux can reset it
        Path("/proc/self/clear_refs").write_text("5")
    init_seed(config["seed"], config["reproducibility"])
    with paused_collection():
        parts = split.parts_with(config.plugin.modalities)
        loaders = data_preparation(config, split.dataset, parts)
        trainer = make_trainer(config, loaders[0])
    result = fit_and_test(trainer, loaders, True, started)
    top = trainer.top_items(loaders[2], max(config["topk"]))
    users = loaders[2].uid_list.int()
    _write_npz(run.path(".npz"), users=users.numpy(), top=top.numpy())
    more = {"label": run.arm.label, "config_hash": config_hash(values), "history": trainer.history}
    write_json({**result, **more}, run.path(".json"))
    run.tidy()


@contextlib.contextmanager
def _log_file(path: Path):
    """What is logged goes to a file, and nowhere else, for the time of a run."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(RemoveColorFilter())
    try:
        root.handlers[:] = [handler]
        root.setLevel(logging.INFO)
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        handler.close()


def _write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write under another name first, then rename."""
    part = path.with_name(f".{path.name}.tmp")
    with open(part, "wb") as file:
        np.savez_compressed(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
