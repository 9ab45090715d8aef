"""One run of a comparison, and its files."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import init_seed
from recbole.utils.logger import RemoveColorFilter

from recbole_sigrec.comparison.arms import Arm, Setting, config_hash, settled_values
from recbole_sigrec.comparison.hashed_json import HASH, read_record, write_record
from recbole_sigrec.comparison.shared_split import Split
from recbole_sigrec.config import Config
from recbole_sigrec.data.parts import data_preparation
from recbole_sigrec.errors import DataError
from recbole_sigrec.files import remove_parts, sha256, write_text, written_whole
from recbole_sigrec.training.machine import machine_settings, paused_collection
from recbole_sigrec.training.run import fit_and_test, make_trainer

RUN_KEYS = (
    "label model seed epochs best_epoch best_valid_result test_result seconds_per_epoch "
    "seconds_per_evaluation seconds_setup peak_rss_mb n_parameters config_hash checkpoint versions"
).split()
"""What the results of a comparison say of each run."""

_KINDS: dict[str, Any] = {
    **dict.fromkeys(RUN_KEYS, object),
    **dict.fromkeys(("best_valid_result", "test_result", "config", "versions"), dict),
    **{"checkpoint": str, "history": list},
}

_LISTS_HASH = "recommended_sha256"


@dataclasses.dataclass(frozen=True)
class Run:
    """An arm with a seed. Its files in ``folder`` begin with the label and the seed.

    ``.json`` is its result, written last; ``.npz`` holds what the model recommended at the test:
    ``users`` int32 [n] and ``top`` int32 [n, k], RecBole's ids, best first; ``.log`` its log; the
    folder without an ending its checkpoints: while it trains those from which it can go on, then
    the best model alone. ``.checkpoints`` names those that it has written.
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
    def begun(self) -> bool:
        return self.path(".log").is_file()

    @property
    def last_checkpoint(self) -> Path | None:
        """The checkpoint to go on from: the last one written, since a resumed run writes anew."""
        files = self.path("").glob("*.last.pth")
        return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)

    @property
    def progress(self) -> int | None:
        """When the last checkpoint was written, in ns; None where there is none."""
        last = self.last_checkpoint
        return last.stat().st_mtime_ns if last else None

    @property
    def hashed(self) -> bool:
        """Whether its result can be checked; earlier versions wrote no hash."""
        return HASH in self.read()

    def read(self) -> dict[str, Any]:
        """The result, as of :func:`recbole_sigrec.run`, with label, config_hash and history.

        Raises:
            DataError: it is damaged, was changed, or is that of another run.
        """
        path = self.path(".json")
        remedy = "Delete it, and the run is made again"
        result = read_record(path, _KINDS, remedy)
        if (result["label"], result["seed"]) != self.key:
            raise DataError(
                f"{path} is of [{result['label']}], seed {result['seed']}, not of {self}. {remedy}"
            )
        return result

    def recommended(self) -> tuple[np.ndarray, np.ndarray]:
        """(users [n], their best items [n, k]) of the test, see the class.

        Raises:
            DataError: the file is gone, is damaged, or is not the one that the run wrote.
        """
        path = self.path(".npz")
        remedy = f"Delete {self.path('.json')} too, and the run is made again"
        expected = self.read().get(_LISTS_HASH)
        if not path.is_file():
            raise DataError(f"{path} is gone, which holds what {self} recommended. {remedy}")
        if expected and sha256(path) != expected:
            raise DataError(f"{path} was changed after {self} wrote it. {remedy}")
        try:
            with np.load(path, allow_pickle=False) as file:
                users, top = file["users"], file["top"]
            if users.ndim != 1 or top.ndim != 2 or len(users) != len(top):
                raise ValueError(f"users {users.shape}, top {top.shape}")
            return users, top
        except Exception as error:  # numpy and zipfile raise many kinds
            raise DataError(f"{path} is damaged ({error}). {remedy}") from None

    def note(self, names: Sequence[str]) -> None:
        """Write down the names of its checkpoints, before they are written."""
        write_text("".join(f"{name}\n" for name in names), self.path(".checkpoints"))

    @property
    def noted(self) -> list[str]:
        """The names of the checkpoints that it has written."""
        path = self.path(".checkpoints")
        return path.read_text("utf-8", "replace").splitlines() if path.is_file() else []

    def tidy(self) -> None:
        """Remove what a finished run wrote, also where it was killed, but the best checkpoint."""
        remove_parts(self.path(""))
        best = Path(self.read()["checkpoint"]).name
        if self.noted in ([], [best]):
            return
        for name in self.noted:
            if name.endswith(".pth") and name == Path(name).name != best:  # a name, not a path
                (self.path("") / name).unlink(missing_ok=True)
        self.note([best])

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
    run.path("").mkdir(parents=True, exist_ok=True)
    last = run.last_checkpoint
    config = setting.config(
        run.arm,
        seed=run.seed,
        split_seed=split.seed,
        checkpoint_dir=str(run.path("")),
        resume=str(last) if last else None,
        **({} if show_progress else {"show_progress": False}),
    )
    with _log_file(run.path(".log")), machine_settings(config["threads"] or threads):
        try:
            _execute(run, config, split)
        except Exception:
            logging.getLogger().exception("the run failed")
            raise


def _execute(run: Run, config: Config, split: Split) -> None:
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
        trainer = make_trainer(config, loaders)
    own = [Path(file).name for file in (trainer.saved_model_file, trainer.last_file)]
    run.note([*run.noted, *own])
    result = fit_and_test(trainer, loaders, True, started)
    test: Any = loaders[2]  # compare() has seen that there is a test part
    top = trainer.top_items(test, max(config["topk"]))
    users = test.uid_list.int()
    with written_whole(run.path(".npz")) as file:
        np.savez_compressed(file, users=users.numpy(), top=top.numpy())
    more = {"label": run.arm.label, "config_hash": config_hash(values), "history": trainer.history}
    lists = {_LISTS_HASH: sha256(run.path(".npz"))}
    write_record({**result, **more, **lists}, run.path(".json"))
    run.tidy()


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[None]:
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
