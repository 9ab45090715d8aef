"""The public names: what they are, and that they cost nothing until they are used."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import recbole

import recbole_sigrec
from recbole_sigrec import ablate, compare, objective_function, run, run_recbole, tune
from recbole_sigrec.model_names import MODELS

FUNCTIONS = {
    *("run", "compare", "tune", "ablate", "prepare", "import_data", "inspect", "encode_text"),
    *("encode_images", "export", "load_data_and_model", "run_recbole", "objective_function"),
    *("create_dataset", "data_preparation", "get_model", "get_trainer"),
}
CLASSES = {"Arm", "Config", "MultimodalRecommender", "MultimodalDataset", "Recommender"}


def test_the_public_names():
    assert set(recbole_sigrec.__all__) == FUNCTIONS | CLASSES | set(MODELS)
    for name in recbole_sigrec.__all__:
        assert getattr(recbole_sigrec, name).__name__ == name
        assert name in dir(recbole_sigrec)
    with pytest.raises(AttributeError, match="no_such_name"):
        recbole_sigrec.no_such_name  # noqa: B018


def test_type_checkers_are_told_the_same_names():
    """The imports under TYPE_CHECKING and the table of modules say the same."""
    tree = ast.parse(Path(recbole_sigrec.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: node.module.removeprefix("recbole_sigrec.")
        for node in block.body
        for alias in node.names
    }
    assert told == recbole_sigrec._MODULES


@pytest.mark.parametrize("program", ["import recbole_sigrec", "from recbole_sigrec import cli"])
def test_an_import_loads_nothing_heavy(program):
    heavy = ("torch", "numpy", "pandas", "recbole", "pydantic", "plotly", "statsmodels")
    code = f"import sys; {program}; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("function", [run, compare, tune, ablate])
def test_the_first_arguments_are_recboles(function):
    first = list(inspect.signature(function).parameters)[:4]
    assert first[0] in ("model", "models")
    assert first[1:] == ["dataset", "config_file_list", "config_dict"]


def test_later_arguments_have_one_name():
    """What several functions take has the same name, order and default in all of them."""
    several = [dict(inspect.signature(f).parameters) for f in (compare, tune, ablate)]
    for parameters in several:
        first = list(parameters).index("out")
        shared = list(parameters.values())[first : first + 3]
        expected = [("out", None), ("jobs", 1), ("cluster", None)]
        assert [(p.name, p.default) for p in shared] == expected


def recboles(name: str) -> ast.FunctionDef:
    """The definition of a function of RecBole's; its module imports ray, which need not be here."""
    file = Path(recbole.__file__).parent / "quick_start/quick_start.py"
    tree = ast.parse(file.read_text("utf-8"))
    (found,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    return found


@pytest.mark.parametrize("ours", [run_recbole, objective_function])
def test_recboles_functions_have_its_signatures_and_results(ours):
    theirs = recboles(ours.__name__)
    parameters = inspect.signature(ours).parameters
    assert list(parameters) == [argument.arg for argument in theirs.args.args]
    defaults = [ast.literal_eval(default) for default in theirs.args.defaults]
    assert [p.default for p in parameters.values()] == defaults
    dicts = (node for node in ast.walk(theirs) if isinstance(node, ast.Dict))
    keys = next(keys for d in dicts if "test_result" in (keys := [k.value for k in d.keys]))
    assert set(keys) <= {
        *("model", "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result")
    }


def test_a_script_of_recboles_runs_with_another_import(planted, tmp_path):
    values = {
        **{"data_path": str(planted.folder.parent), "checkpoint_dir": str(tmp_path / "saved")},
        **{"epochs": 2, "embedding_size": 8, "use_gpu": False, "threads": 1},
    }

    class Queue(list):
        put = list.append

    queue = Queue()
    result = run_recbole("BPR", "planted", config_dict=values, queue=queue)
    assert queue == [result]
    assert list(result) == [
        *("best_valid_score", "valid_score_bigger", "best_valid_result", "test_result")
    ]
    assert result["best_valid_score"] == result["best_valid_result"]["recall@20"] > 0
    assert result["valid_score_bigger"] is True
    tried = objective_function({"model": "BPR", "dataset": "planted", **values}, saved=False)
    assert tried["model"] == "BPR"
    assert tried["best_valid_result"] == result["best_valid_result"]


def test_a_result_is_an_object_and_json(planted, tmp_path):
    values = {"data_path": str(planted.folder.parent), "epochs": 1, "use_gpu": False}
    result = run("BPR", "planted", config_dict=values, saved=False)
    assert result.test_result is result["test_result"]
    assert json.loads(json.dumps(result)) == result
    with pytest.raises(AttributeError, match="cannot assign"):
        result.epochs = 2
