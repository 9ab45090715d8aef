"""The commands where what only POSIX systems and glibc have is absent, as on Windows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from helpers_data import SMALL, write_mmrec

PROGRAM = """
import os, platform, sys
import psutil  # on Linux it needs `resource` itself, on Windows it does not

sys.modules["resource"] = sys.modules["fcntl"] = None
platform.libc_ver = lambda *given, **more: ("", "")  # no glibc, and so no mallopt
del os.posix_fallocate

from recbole_sigrec.cli import main
from recbole_sigrec.kernels import allocator

assert allocator._glibc() is None
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_and_an_import(tmp_path):
    write_mmrec(tmp_path / "data")
    small = [f"--{key}={value}" for key, value in SMALL.items()]
    commands = (
        ["run", "--dataset=toy", "--data_path=data", "--result_file=r.json", *small],
        ["import", "data/toy", "--format=mmrec", "--name=again"],
    )
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *command],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["peak_rss_mb"] > 0
    assert Path(tmp_path / "dataset/again/again.inter").is_file()
