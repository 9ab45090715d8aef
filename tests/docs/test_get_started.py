"""docs/get-started.md and docs/coming-from/recbole.md: their commands and code, on small data."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from recbole_sigrec import Recommender, cli

DOCS = Path(__file__).resolve().parents[2] / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the pages are in the repository alone")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of a page's blocks, in order."""
    return re.findall(
        r"^```(bash|python)\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.M | re.S
    )


def test_the_first_steps(planted):
    small = ["--dataset=planted", f"--data_path={planted.folder.parent}", "--embedding_size=8"]
    user = (
        planted.folder.joinpath("planted.inter").read_text("utf-8").splitlines()[1].split("\t")[0]
    )
    install, *steps = blocks("get-started.md")
    assert "pip install" in install[1]
    ran = []
    for language, text in steps:
        if language == "python":
            exec(text.replace('"196"', repr(user)), {})
            continue
        program, command, *arguments = shlex.split(text)
        assert program == "recbole-sigrec"
        ran.append(command)
        assert cli.main([command, *arguments, *small, "--threads=1", "--use_gpu=False"]) == 0
    assert ran == ["run", "compare"]
    assert json.loads(Path("first.json").read_text("utf-8"))["epochs"] == 3
    assert len(pd.read_csv("first-comparison/results.csv")) == 4
    assert len(Recommender.load("first.rec").recommend(user, k=5)) == 5


def test_a_script_of_recboles(planted):
    ((_, code),) = blocks("coming-from/recbole.md")
    small = f'"data_path": {str(planted.folder.parent)!r}, "use_gpu": False, '
    code = code.replace('"ml-100k"', '"planted"').replace("{", "{" + small)
    found = {}
    exec(code.replace("\nrun_recbole(", "\nresult = run_recbole("), found)
    assert found["result"]["test_result"]["recall@20"] > 0
