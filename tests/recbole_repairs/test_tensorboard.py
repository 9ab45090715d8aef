"""RecBole's TensorBoard writer on a full disk, and in processes beside the first."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import recbole.trainer.trainer

from recbole_sigrec.parallel import distributed
from recbole_sigrec.recbole_repairs import tensorboard


class Full:
    """A writer whose second point does not fit on the disk."""

    def __init__(self, logger):
        self.points = []

    def add_scalar(self, *given):
        if self.points:
            raise OSError(28, "No space left on device")
        self.points.append(given)


def writer():
    with tensorboard.one_tensorboard():
        return recbole.trainer.trainer.get_tensorboard(logging.getLogger())


def test_a_full_disk_is_said_once_and_ends_no_training(monkeypatch, caplog):
    monkeypatch.setattr(tensorboard, "_original", Full)
    made = writer()
    full = made._writer
    for epoch in range(4):
        made.add_scalar("Loss/Train", 0.5, epoch)
    made.add_hparams(hparam_dict={}, metric_dict={})
    assert full.points == [("Loss/Train", 0.5, 0)]
    assert caplog.messages == ["log_tensorboard/ gets no more curves: No space left on device"]
    assert recbole.trainer.trainer.get_tensorboard is Full


def test_a_folder_without_rights(monkeypatch, caplog):
    def forbidden(logger):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tensorboard, "_original", forbidden)
    writer().add_scalar("Loss/Train", 0.5, 0)
    assert caplog.messages == ["log_tensorboard/ gets no more curves: Permission denied"]


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_process_writes(monkeypatch, first):
    monkeypatch.setattr(distributed, "is_first", lambda: first)
    writer().add_scalar("Loss/Train", 0.5, 0)
    assert Path("log_tensorboard").is_dir() is first


def test_the_thread_of_the_real_writer_prints_no_traceback(tmp_path):
    program = (
        "import logging, resource, time; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40)); "
        "import recbole.trainer.trainer as module; "
        "from recbole_sigrec.recbole_repairs.tensorboard import one_tensorboard\n"
        "with one_tensorboard(): writer = module.get_tensorboard(logging.getLogger())\n"
        "for epoch in range(5): writer.add_scalar('a', 0.5, epoch); time.sleep(0.1)\n"
        "print('went on')"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.stdout == "went on\n"
    assert ended.stderr == "log_tensorboard/ gets no more curves: File too large\n"
