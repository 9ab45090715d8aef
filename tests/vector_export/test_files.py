"""``export --to parquet``, ``faiss`` and ``onnx``: folders and a file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from helpers_vector_export import MODELS, bundle_of, check_ranking, page, run_code, written

from recbole_sigrec.errors import DataError
from recbole_sigrec.serving import Recommender
from recbole_sigrec.serving.bundle import write_bundle
from recbole_sigrec.vector_export import faiss_folder, onnx_model, parquet_files
from recbole_sigrec.vector_export.targets import export_vectors
from recbole_sigrec.vector_export.vector_form import vector_form

FILES = {
    "parquet": ("pyarrow", "shop-tables", "Parquet"),
    "faiss": ("faiss", "shop-index", "FAISS"),
    "onnx": ("onnxruntime", "shop.onnx", "ONNX"),
}
"""Target → what reads it, its name on the page, and the page's section."""


@pytest.fixture(params=FILES)
def target(request):
    pytest.importorskip(FILES[request.param][0])
    if request.param == "onnx":
        pytest.importorskip("onnx")
    return request.param


def written_files(path: Path) -> dict[str, str]:
    """Each file below, and its hash."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".lock")
    return {str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize("model", MODELS)
def test_the_code_of_the_page_ranks_as_the_model(model, target, tmp_path):
    name, section = FILES[target][1:]
    bundle, out = written(model, tmp_path / "shop.rec"), str(tmp_path / name)
    export_vectors(bundle, target, out)
    recommender = Recommender.load(bundle)
    recommend = run_code(section, {name: out})
    check_ranking(recommender, recommend, recommender.users.names[:200])
    for k in (1, 90):  # 90: all; the second user took nearly all
        check_ranking(recommender, recommend, recommender.users.names[:20], k)
    with pytest.raises(Exception, match=r"nobody|out of data bounds"):
        recommend("nobody")


def test_what_is_there_stays_unless_it_is_an_export_and_force_is_given(target, tmp_path):
    first, other = (written(name, tmp_path / name) for name in ("graph", "vectors"))
    folder = tmp_path / "exports"
    folder.mkdir()
    out = str(folder / FILES[target][1])
    export_vectors(first, target, out)
    there = written_files(folder)
    with pytest.raises(DataError, match=r"is there already, and is not overwritten.*--force"):
        export_vectors(other, target, out)
    assert written_files(folder) == there
    export_vectors(other, target, out, force=True)
    now = written_files(folder)
    assert set(now) == set(there) and now != there

    mine = folder / "mine.onnx"
    mine.mkdir()
    for manifest in ('{"export": "else"}', "[" * 10**5):
        (mine / "manifest.json").write_text(manifest)
        with pytest.raises(DataError, match="no such export"):
            export_vectors(other, target, str(mine), force=True)
    with pytest.raises(DataError, match=r"no such export|ends in \.onnx"):
        export_vectors(other, target, first, force=True)  # a bundle
    assert Recommender.load(first).manifest["model"] == "graph"


WRITES = {
    "parquet": ("pyarrow.parquet.write_table", parquet_files),
    "faiss": ("recbole_sigrec.vector_export.faiss_folder.write_json", faiss_folder),
    "onnx": ("onnx.checker.check_model", onnx_model),
}
"""Target → what is called late in writing it."""


def test_nothing_is_left_of_an_export_that_fails(target, tmp_path, monkeypatch):
    bundle, folder = written("graph", tmp_path / "shop.rec"), tmp_path / "exports"
    folder.mkdir()
    out = str(folder / FILES[target][1])
    export_vectors(bundle, target, out)
    there = written_files(folder)

    def fails(*_, **__):
        raise RuntimeError("cut off")

    monkeypatch.setattr(WRITES[target][0], fails)
    for name in (out, str(folder / "other.onnx")):
        with pytest.raises(RuntimeError, match="cut off"):
            export_vectors(bundle, target, name, force=True)
        assert written_files(folder) == there


def about(target: str, out: str) -> dict:
    """What an export says of itself."""
    if target != "onnx":
        return json.loads((Path(out) / "manifest.json").read_text("utf-8"))
    import onnx

    return {p.key: json.loads(p.value) for p in onnx.load(out).metadata_props}


def test_an_export_tells_what_it_is(target, tmp_path):
    bundle, out = bundle_of("vectors"), str(tmp_path / "shop.onnx")
    write_bundle(bundle, tmp_path / "shop.rec")
    export_vectors(str(tmp_path / "shop.rec"), target, out)
    told = about(target, out)
    expected = {"export": target, "exact": True, "model": "vectors", "n_users": 220, "n_items": 90}
    assert {key: told[key] for key in expected} == expected
    assert "dot(user vector, item vector)" in told["formula"] and "exact" in told["ranking"]
    assert told["left_out"].startswith("what a user took")

    for part in ("training", "validation"):  # as if exported --without_histories
        del bundle.arrays[f"{part}.indptr"], bundle.arrays[f"{part}.indices"]
    write_bundle(bundle, tmp_path / "less.rec")
    export_vectors(str(tmp_path / "less.rec"), target, out, force=True)
    assert about(target, out)["left_out"].startswith("nothing: ")


def test_the_dense_product_alone_is_not_the_model(tmp_path):
    """The item graph changes most users' best items, so that the tests above would tell."""
    form = vector_form(Recommender.load(written("graph", tmp_path / "shop.rec")))
    dense = form.user_vectors @ form.item_vectors.T
    whole = dense + (form.graph_queries @ form.graph).toarray()
    best = [np.argsort(-scores, axis=1)[:, :10] for scores in (dense, whole)]
    same = [set(a) == set(b) for a, b in zip(*best)]
    assert np.mean(same) < 0.2
    assert (form.graph.data < 0).any() and (form.graph.data > 0).any()


def test_a_folder_that_is_no_index_is_told(tmp_path):
    pytest.importorskip("faiss")
    from recbole_sigrec.vector_export.faiss_index import FaissIndex

    bundle, out = written("graph", tmp_path / "shop.rec"), tmp_path / "index"
    with pytest.raises(DataError, match="is no folder of"):
        FaissIndex.load(bundle)
    export_vectors(bundle, "faiss", str(out))
    with pytest.raises(DataError, match=r"k = \[91\]"):
        FaissIndex.load(out).search(["u50"], 91)
    (out / "items.faiss").write_bytes(b"cut")
    with pytest.raises(DataError, match="cannot be read"):
        FaissIndex.load(out)


def test_a_model_file_needs_its_suffix_and_folder(tmp_path):
    pytest.importorskip("onnx")
    bundle = written("vectors", tmp_path / "shop.rec")
    with pytest.raises(DataError, match=r"ends in \.onnx"):
        export_vectors(bundle, "onnx", str(tmp_path / "shop"))
    with pytest.raises(DataError, match=r"no folder \[.*none\]"):
        export_vectors(bundle, "onnx", str(tmp_path / "none" / "shop.onnx"))


def test_too_large_a_model_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    bundle = written("vectors", tmp_path / "shop.rec")
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**30,), (0,))
    monkeypatch.setattr(onnx_model, "_arrays", lambda form: {"user_vectors": huge})
    with pytest.raises(DataError, match=r"4\.3 GB, and an ONNX file holds 2"):
        export_vectors(bundle, "onnx", str(tmp_path / "shop.onnx"))


def test_every_section_of_the_page_has_a_query():
    sections = [line[3:] for line in page().splitlines() if line[:3] == "## "]
    assert sections == ["Parquet", "FAISS", "Qdrant", "PostgreSQL with pgvector", "ONNX"]
