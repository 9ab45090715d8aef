"""Worker processes: what they cannot import is an error that says so."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest

from recbole_sigrec import compare
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.parallel.pool import check_importable, worker_pool

CELL = """
from recbole.model.general_recommender import BPR
from recbole_sigrec import compare, tune
from recbole_sigrec.errors import ConfigError

class Mine(BPR):
    pass

for call in (lambda: compare([Mine], "none", jobs=2), lambda: tune(Mine, "none", jobs=2)):
    try:
        call()
    except ConfigError as error:
        print(error)
"""


def test_a_class_of_a_notebook_is_told_to_be_put_in_a_file():
    """A program without a file, as a notebook is; before any data are read."""
    pytest.importorskip("optuna")
    command = [sys.executable, "-c", CELL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    says = (
        "class Mine is defined in a notebook or an interactive session. With jobs above 1 each "
        "process imports it anew: put the class in a file, such as my_model.py, and write `from "
        "my_model import Mine`; or use jobs = 1\n"
    )
    assert done.stdout == 2 * says, done.stderr


class Here:
    """A class that can be imported."""


def test_a_class_of_a_function_too():
    class Inside:
        pass

    says = r"class .*Inside is defined in a function.*put the class in a file.*import Inside"
    with pytest.raises(ConfigError, match=says):
        compare(["BPR", Inside], "none", jobs=2)
    check_importable([Inside], jobs=1)
    check_importable([Here, "BPR", None], jobs=2)


@pytest.fixture
def only_here(monkeypatch):
    """A class that this process can import, and no other, as one below ``__main__``'s guard."""
    module = types.ModuleType("only_here")
    module.Lost = type("Lost", (), {"__module__": "only_here"})
    monkeypatch.setitem(sys.modules, "only_here", module)
    return module.Lost


_calls = []


def _begin(*values):
    _calls.append(values)


def _calls_and_process():
    return list(_calls), os.getpid()


def test_what_a_worker_cannot_import_is_an_error_and_it_lives_on(only_here):
    with worker_pool(1, _begin, 1, "two") as pool:
        before = pool.submit(_calls_and_process).result(60)
        with pytest.raises(ConfigError, match=r"import .*only_here.*put the class in a file"):
            pool.submit(isinstance, 1, only_here).result(60)
        after = pool.submit(_calls_and_process).result(60)
    assert before == after  # one process, which began once
    assert before[0] == [(1, "two")] and before[1] != os.getpid()


def test_what_is_called_first_may_lack_a_class(only_here):
    with worker_pool(1, _begin, only_here) as pool:
        with pytest.raises(ConfigError, match="put the class in a file"):
            pool.submit(_calls_and_process).result(60)


def test_the_option_that_sets_the_number_is_named():
    class Mine:
        pass

    with pytest.raises(ConfigError, match=r"With nproc above 1 .*; or use nproc = 1$"):
        check_importable([Mine], 2, "nproc")
    check_importable([Mine], 1, "nproc")
