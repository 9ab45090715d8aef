"""``export --to pgvector`` on a real PostgreSQL server that the tests start."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers_postgres import postgres
from helpers_vector_export import MODELS, check_ranking, code, written

from recbole_sigrec.errors import DataError
from recbole_sigrec.serving import Recommender
from recbole_sigrec.vector_export import pgvector_tables
from recbole_sigrec.vector_export.targets import export_vectors

psycopg = pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def dsn():
    with postgres() as running:
        yield running


@pytest.fixture
def db(dsn):
    """A connection to an empty database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield connection


def tables(db) -> dict[str, int]:
    """Table → its number of rows."""
    names = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    count = psycopg.sql.SQL("SELECT count(*) FROM {}")
    return {
        name: db.execute(count.format(psycopg.sql.Identifier(name))).fetchone()[0]
        for (name,) in names
    }


@pytest.mark.parametrize("model", MODELS)
def test_the_query_ranks_as_the_model(model, db, dsn, tmp_path):
    bundle = written(model, tmp_path / "shop.rec")
    export_vectors(bundle, "pgvector", "shop", dsn=dsn)
    recommender = Recommender.load(bundle)

    def recommend(user, k):
        return db.execute(code("PostgreSQL with pgvector"), [user]).fetchall()

    check_ranking(recommender, recommend, recommender.users.names[:200])
    items = db.execute("SELECT token, columns FROM shop_items ORDER BY id").fetchall()
    assert [token for token, _ in items] == recommender.items.names.tolist()
    assert [columns["title"] for _, columns in items] == recommender.columns["title"]
    users = db.execute("SELECT token FROM shop_users ORDER BY id").fetchall()
    assert [token for (token,) in users] == recommender.users.names.tolist()


def test_the_comment_has_the_query(db, dsn, tmp_path):
    export_vectors(written("graph", tmp_path / "a.rec"), "pgvector", 'a "b" %s', dsn=dsn)
    (text,) = db.execute("""SELECT obj_description('"a ""b"" %s_items"'::regclass)""").fetchone()
    about = json.loads(text)
    assert about["export"] == "pgvector" and about["exact"] is True
    assert len(db.execute(about["ranking"], ["u50"]).fetchall()) == 10


def test_what_is_there_stays_unless_it_is_an_export_and_force_is_given(db, dsn, tmp_path):
    first, other = (written(name, tmp_path / name) for name in ("graph", "vectors"))
    export_vectors(first, "pgvector", "shop", dsn=dsn)
    there = db.execute("SELECT * FROM shop_users ORDER BY id").fetchall()
    with pytest.raises(DataError, match=r"table \[shop_items\] is there already.*--force"):
        export_vectors(other, "pgvector", "shop", dsn=dsn)
    assert db.execute("SELECT * FROM shop_users ORDER BY id").fetchall() == there
    export_vectors(other, "pgvector", "shop", force=True, dsn=dsn)
    assert db.execute("SELECT * FROM shop_users ORDER BY id").fetchall() != there
    assert tables(db) == {"shop_items": 90, "shop_users": 220}

    db.execute("CREATE TABLE mine_users (name text); INSERT INTO mine_users VALUES ('Ada')")
    with pytest.raises(DataError, match=r"table \[mine_users\] is .* no such export"):
        export_vectors(other, "pgvector", "mine", force=True, dsn=dsn)
    assert tables(db)["mine_users"] == 1 and "mine_items" not in tables(db)


def test_nothing_is_left_of_an_export_that_fails(db, dsn, tmp_path, monkeypatch):
    bundle = written("graph", tmp_path / "shop.rec")
    export_vectors(bundle, "pgvector", "shop", dsn=dsn)
    there = tables(db)

    def fails(form):
        yield 0, "a", "[1,2]", "{}/90", []  # of another width

    monkeypatch.setattr(pgvector_tables, "_users", fails)
    for out in ("shop", "other"):
        with pytest.raises(DataError, match="expected 6 dimensions, not 2"):
            export_vectors(bundle, "pgvector", out, force=True, dsn=dsn)
        assert tables(db) == there


def test_what_postgresql_cannot_hold_is_told(db, dsn, tmp_path, monkeypatch):
    bundle = written("graph", tmp_path / "shop.rec")
    with pytest.raises(DataError, match="may have 50 bytes"):
        export_vectors(bundle, "pgvector", "é" * 26, dsn=dsn)
    monkeypatch.setattr(pgvector_tables, "_MOST", 3)
    with pytest.raises(DataError, match="too dense for pgvector"):
        export_vectors(bundle, "pgvector", "shop", dsn=dsn)
    assert tables(db) == {}


def test_a_server_that_is_not_there_is_told(tmp_path):
    bundle = written("vectors", tmp_path / "shop.rec")
    with pytest.raises(DataError, match=r"(?s)PostgreSQL: .*--dsn"):
        export_vectors(bundle, "pgvector", "shop", dsn="host=/nowhere")


def test_float32_survives_as_text():
    values = np.array([1e-30, -3.4e38, 0.1, 1 / 3], dtype=np.float32)
    text = pgvector_tables._dense(values)
    assert np.array_equal(np.array(json.loads(text), dtype=np.float32), values)
