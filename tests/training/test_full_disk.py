"""A disk that is full during a run, or at its end: the file is named, and the figures are told."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_data import SMALL, write_mmrec

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has neither /dev/full nor such limits")


def run_program(folder: Path, *arguments: str, before: str = "pass") -> subprocess.CompletedProcess:
    """``recbole-sigrec run --model=BPR`` in a process of its own, after some code."""
    code = (
        f"import sys; {before}; from recbole_sigrec.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    values = {**SMALL, "data_path": folder.parent, "dataset": folder.name, "state": "ERROR"}
    given = {argument.partition("=")[0] for argument in arguments}
    small = [f"--{key}={value}" for key, value in values.items() if f"--{key}" not in given]
    return subprocess.run(
        [sys.executable, "-c", code, "run", "--model=BPR", *small, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_the_test_table_is_printed_though_the_result_does_not_fit(tmp_path):
    done = run_program(write_mmrec(tmp_path / "data"), "--result_file=/dev/full")
    assert done.returncode == 2
    assert "BPR on toy, best epoch 0" in done.stdout and "recall" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: /dev/full cannot be written: No space")
    assert "Traceback" not in done.stderr
    assert Path("/dev/full").is_char_device()
    assert len(list(tmp_path.glob("saved/*.pth"))) == 2


@posix
def test_a_checkpoint_that_does_not_fit_is_named_and_leaves_nothing(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))"
    folder = write_mmrec(tmp_path / "data")
    done = run_program(folder, "--embedding_size=512", before=limit)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path / 'saved' / 'BPR-toy-'}")
    assert ".pth cannot be written: File too large" in last
    assert "Traceback" not in done.stderr
    assert [file for file in (tmp_path / "saved").rglob("*") if file.is_file()] == []


@posix
@pytest.mark.parametrize("mask", [0o002, 0o077])
def test_what_a_run_writes_follows_the_umask(tmp_path, mask):
    done = run_program(
        write_mmrec(tmp_path / "data"),
        "--result_file=r.json",
        before=f"import os; os.umask({mask})",
    )
    assert done.returncode == 0
    written = [tmp_path / "r.json", *tmp_path.glob("saved/*.pth")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in written} == {0o666 & ~mask}
    assert len(written) == 3
