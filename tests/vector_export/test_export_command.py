"""``recbole-sigrec export --to``: what it is given, and what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers_vector_export import written

from recbole_sigrec import cli
from recbole_sigrec.commands import export
from recbole_sigrec.extras import EXTRAS
from recbole_sigrec.vector_export.targets import TARGETS


def test_a_bundle_is_told_from_a_checkpoint(tmp_path, capsys, monkeypatch):
    bundle, out = written("graph", tmp_path / "shop.rec"), str(tmp_path / "out")
    for arguments, message in [
        ([bundle], "is a bundle already; give --to parquet, faiss"),
        (["model.pth", "--to=faiss"], "model.pth is no bundle"),
        (["model.pth", "--dsn=x"], "--dsn: of no use for a checkpoint"),
        ([bundle, "--to=faiss", "--columns=a", "--url=x"], "--columns, --url: of no use for --to"),
        ([bundle, "--to=qdrant", "--dsn=x"], "--dsn: of no use for --to qdrant"),
        ([bundle, "--to=csv"], "invalid choice: 'csv'"),
    ]:
        assert cli.main(["export", *arguments, "--out", out]) == 2
        assert message in capsys.readouterr().err
    pytest.importorskip("pyarrow")
    assert cli.main(["export", bundle, "--to", "parquet", "--out", out]) == 0
    assert capsys.readouterr().out == f"{out}: the vectors of {bundle} for parquet\n"
    assert cli.main(["export", bundle, "--to", "parquet", "--out", out]) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.main(["export", bundle, "--to", "parquet", "--out", out, "--force"]) == 0


def test_the_command_and_the_package_know_the_same_targets():
    assert list(export.TARGETS) == list(TARGETS)
    assert set(TARGETS) <= set(EXTRAS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_missing_library_is_named_with_its_extra(target, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, EXTRAS[target], None)
    bundle, out = written("vectors", tmp_path / "shop.rec"), str(tmp_path / "out.onnx")
    assert cli.main(["export", bundle, "--to", target, "--out", out]) == 2
    assert f'pip install "recbole_sigrec[{target}]"' in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_it_needs_neither_torch_nor_recbole(tmp_path):
    pytest.importorskip("faiss")
    bundle, out = written("graph", tmp_path / "shop.rec"), str(tmp_path / "index")
    arguments = ["export", bundle, "--to", "faiss", "--out", out]
    program = f"""
import sys
from recbole_sigrec import cli
assert cli.main({arguments!r}) == 0
from recbole_sigrec.vector_export.faiss_index import FaissIndex
assert len(FaissIndex.load({out!r}).search(["u50"])) == 10
print([name for name in ("torch", "recbole") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
