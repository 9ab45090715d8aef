"""``export --to qdrant`` into the client's local mode."""

from __future__ import annotations

import contextlib

import pytest
from helpers_vector_export import MODELS, check_ranking, run_code, written

from recbole_sigrec.errors import DataError
from recbole_sigrec.serving import Recommender
from recbole_sigrec.vector_export import qdrant_collections
from recbole_sigrec.vector_export.targets import export_vectors
from recbole_sigrec.vector_export.vector_form import entries

qdrant_client = pytest.importorskip("qdrant_client")


def contents(path) -> dict[str, list]:
    """Collection → its points, of a folder."""
    with contextlib.closing(qdrant_client.QdrantClient(path=str(path))) as client:
        names = [c.name for c in client.get_collections().collections]
        aliases = {a.collection_name: a.alias_name for a in client.get_aliases().aliases}
        return {
            aliases.get(name, name): client.scroll(name, limit=1000, with_vectors=True)[0]
            for name in names
        }


@pytest.mark.parametrize("model", MODELS)
def test_the_query_ranks_as_the_model(model, tmp_path):
    bundle, path = written(model, tmp_path / "shop.rec"), str(tmp_path / "qdrant")
    export_vectors(bundle, "qdrant", "shop", path=path)
    recommender = Recommender.load(bundle)
    recommend = run_code("Qdrant", {'url="http://localhost:6333"': f"path={path!r}"})
    n = 200 if model == "graph" else 30  # local mode takes long
    check_ranking(recommender, recommend, recommender.users.names[:n])
    recommend.__globals__["client"].close()
    points = contents(path)
    items = [point.payload for point in points["shop"]]
    titles = recommender.columns["title"]
    assert [item["item"] for item in items] == recommender.items.names.tolist()
    assert [item["columns"]["title"] for item in items] == titles
    users = [point.payload["user"] for point in points["shop-users"]]
    assert users == recommender.users.names.tolist()


def test_the_metadata_tell_how_to_rank(tmp_path):
    path = str(tmp_path / "qdrant")
    export_vectors(written("graph", tmp_path / "shop.rec"), "qdrant", "shop", path=path)
    with contextlib.closing(qdrant_client.QdrantClient(path=path)) as client:
        about = client.get_collection("shop").config.metadata
    assert about["export"] == "qdrant" and about["exact"] is True
    assert "$score[0] + $score[1]" in about["ranking"]


def test_what_is_there_stays_unless_it_is_an_export_and_force_is_given(tmp_path):
    first, other = (written(name, tmp_path / name) for name in ("graph", "vectors"))
    path = str(tmp_path / "qdrant")
    export_vectors(first, "qdrant", "shop", path=path)
    there = contents(path)
    with pytest.raises(DataError, match=r"collection \[shop\] is there already.*--force"):
        export_vectors(other, "qdrant", "shop", path=path)
    assert contents(path) == there
    export_vectors(other, "qdrant", "shop", force=True, path=path)
    now = contents(path)
    assert set(now) == {"shop", "shop-users"} and now["shop-users"] != there["shop-users"]

    with contextlib.closing(qdrant_client.QdrantClient(path=path)) as client:
        client.create_collection("mine-users", vectors_config={})
    with pytest.raises(DataError, match=r"\[mine-users\] is there already, and is no such export"):
        export_vectors(other, "qdrant", "mine", force=True, path=path)
    assert set(contents(path)) == {"shop", "shop-users", "mine-users"}


def test_nothing_is_left_of_an_export_that_fails(tmp_path, monkeypatch):
    bundle, path = written("graph", tmp_path / "shop.rec"), str(tmp_path / "qdrant")
    export_vectors(bundle, "qdrant", "shop", path=path)
    there = contents(path)

    def fails(form):
        rows = form.user_vectors[0], entries(form.graph_queries, 0)
        yield qdrant_collections._point(0, *rows, {})
        raise RuntimeError("cut off")

    monkeypatch.setattr(qdrant_collections, "_users", fails)
    for out in ("shop", "other"):
        with pytest.raises(DataError, match=r"Qdrant at .*cut off"):
            export_vectors(bundle, "qdrant", out, force=True, path=path)
        assert contents(path) == there


def test_where_is_asked_for_and_errors_are_told(tmp_path):
    bundle = written("vectors", tmp_path / "shop.rec")
    for where in ({}, {"url": "http://localhost:1", "path": "x"}):
        with pytest.raises(DataError, match="either --url of a server or --path"):
            export_vectors(bundle, "qdrant", "shop", **where)
    with pytest.raises(DataError, match="Qdrant at http://localhost:1"):
        export_vectors(bundle, "qdrant", "shop", url="http://localhost:1")
    with pytest.raises(DataError, match="cannot contain '/'"):
        export_vectors(bundle, "qdrant", "a/b", path=str(tmp_path / "qdrant"))
