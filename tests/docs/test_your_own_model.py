"""docs/your-own-model.md: its code, as it stands there, on the planted data."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_sigrec import load_data_and_model, run
from recbole_sigrec.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-own-model.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the page is in the repository alone")


@pytest.fixture
def page(planted, monkeypatch):
    """The page's three pieces of code; the model as a module of its own, towers."""
    pieces = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert len(pieces) == 3
    Path("towers.py").write_text(pieces[0], "utf-8")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    importlib.invalidate_caches()
    yield pieces
    sys.modules.pop("towers", None)


@pytest.fixture
def settings(planted):
    return {"data_path": str(planted.folder.parent), "epochs": 4, "seed": 1, "state": "error"}


def test_it_trains_and_its_checkpoint_is_read(page, planted, settings):
    from towers import Towers

    result = run(Towers, planted.folder.name, config_dict={**settings, "content_weight": 0.5})
    assert result["model"] == "Towers" and result["config"]["content_weight"] == 0.5
    assert result["config"]["embedding_size"] == 64  # the class's default
    Path("saved").mkdir(exist_ok=True)
    shutil.copy(result["checkpoint"], "saved/Towers.pth")
    tokens = [str(n) for n in range(2)]
    code = page[2].replace('["196", "186"]', repr(tokens))
    found: dict = {}
    exec(compile(code, str(PAGE), "exec"), found)
    items = found["dataset"].id2token(found["dataset"].iid_field, found["items"].cpu())
    assert items.shape == (2, 10)
    for user, row in enumerate(items):
        known = {str(i) for part in planted.parts[:2] for u, i in part if u == user}
        assert not known & set(row)

    with pytest.raises(ConfigError, match=r"unknown model \[Towers\].*model=Towers"):
        load_data_and_model("saved/Towers.pth")
    with pytest.raises(ConfigError, match=r"is of model \[Towers\], not \[Other\]"):
        load_data_and_model("saved/Towers.pth", model=type("Other", (Towers,), {}))
    with pytest.raises(ConfigError, match=r"\[content_weigth\].*'content_weight'"):
        run(Towers, planted.folder.name, config_dict={**settings, "content_weigth": 0.5})


def test_the_content_is_used(page, planted, settings):
    from towers import Towers

    results = [
        run(Towers, planted.folder.name, config_dict={**settings, "content_weight": weight})
        for weight in (0.0, 1.0)
    ]
    assert results[0]["test_result"] != results[1]["test_result"]


def test_it_is_compared_and_tuned(page, planted, settings, monkeypatch):
    pytest.importorskip("statsmodels")
    pytest.importorskip("optuna")
    code = page[1].replace('"ml-100k"', f"{planted.folder.name!r}, config_dict=VALUES")
    Path("space.yaml").write_text(
        yaml.safe_dump({"search_space": {"content_weight": [0.1, 0.5, 1.0]}}), "utf-8"
    )
    assert "search_space: {content_weight: [0.1, 0.5, 1.0]}" in page[1]
    exec(compile(code, str(PAGE), "exec"), {"VALUES": {**settings, "epochs": 2}})
    results = json.loads(Path("towers/results.json").read_text("utf-8"))
    assert {run["label"] for run in results["runs"]} == {"Towers", "LightGCN"}
    assert np.isfinite([run["test_result"]["recall@20"] for run in results["runs"]]).all()
    (table,) = Path("tuning").rglob("trials.csv")
    assert len(table.read_text("utf-8").splitlines()) == 1 + 3  # no configuration is tried twice
