"""An extra that is missing is named before any work: before the first file is read."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from helpers_data import run_on, snapshot, write_mmrec

from recbole_sigrec import cli, files
from recbole_sigrec.extras import EXTRAS

ABSENT = "absent.rec"  # a file that would be missed if it were looked for


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("pyarrow", f"recommend {ABSENT} --out=top.parquet"),
        ("pyarrow", f"look {ABSENT} --items=x.parquet --id_column=id --out=x.html"),
        ("pyarrow", f"export {ABSENT} --items=x.parquet --id_column=i --columns=t --out=x"),
        ("pyarrow", "import x.parquet --format=table --name=x --user=u --item=i"),
        ("pyarrow", "encode text --items=x.parquet --id_column=i --columns=t"),
        ("fastapi", f"serve {ABSENT}"),
        ("uvicorn", f"serve {ABSENT}"),
        ("optuna", "tune --model=BPR --dataset=absent"),
        ("distributed", "compare --models=BPR --dataset=absent --cluster=local:2"),
        ("dask_jobqueue", "ablate --dataset=absent --cluster=slurm:2"),
        ("distributed", "tune --model=BPR --dataset=absent --cluster=local:2"),
        (
            "sentence_transformers",
            "encode text --items=x.csv --id_column=i --columns=t --model=mine --out=text_feat.npy",
        ),
        ("sentence_transformers", "prepare baby --text_model=mine --from=absent"),
    ],
)
def test_the_command_names_it_first(library, command, monkeypatch, capsys, tmp_path):
    extras = {its: extra for extra, its in EXTRAS.items()} | {
        **{"uvicorn": "serve", "dask_jobqueue": "cluster"},
    }
    extra = extras[library]
    for name in [name for name in sys.modules if name.startswith("recbole_sigrec.tuning")]:
        monkeypatch.delitem(sys.modules, name)  # it imports its extra once
    monkeypatch.setitem(sys.modules, EXTRAS[extra], ModuleType("there"))
    monkeypatch.setitem(sys.modules, library, None)
    assert cli.main(command.split()) == 2
    told = capsys.readouterr().err
    assert f'needs {library}, which is not installed: pip install "recbole_sigrec[{extra}]"' in told
    assert not snapshot(tmp_path)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        (
            "--knn_search=hnsw",
            'needs faiss, which is not installed: pip install "recbole_sigrec[fai',
        ),
        ("--log_wandb=True", "[log_wandb] = [True] needs wandb, which is not installed: pip inst"),
    ],
)
def test_a_run_names_it_before_the_data_is_read(argument, says, monkeypatch, capsys, tmp_path):
    folder = write_mmrec(tmp_path / "data")
    (folder / "toy.inter").write_text("no data", "utf-8")  # which is not read
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("recbole_sigrec.training.output_check.find_spec", lambda name: None)
    assert run_on(folder, argument) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("target", ["parquet", "faiss", "qdrant", "pgvector", "onnx"])
def test_an_export_names_it_before_the_bundle_is_read(target, monkeypatch, capsys, tmp_path):
    files.write_json({}, tmp_path / "manifest.json")  # which is no bundle's
    monkeypatch.setitem(sys.modules, EXTRAS[target], None)
    assert cli.main(["export", str(tmp_path), f"--to={target}", "--out=x"]) == 2
    assert f'pip install "recbole_sigrec[{target}]"' in capsys.readouterr().err
