"""``--to pgvector``: a table of items and one of users; a query ranks exactly, in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from typing_extensions import LiteralString

from recbole_sigrec.errors import DataError
from recbole_sigrec.extras import need
from recbole_sigrec.vector_export.existing import check_export
from recbole_sigrec.vector_export.vector_form import VectorForm, entries

QUERY = """\
SELECT i.token, -(i.vector <#> u.vector) - (i.graph <#> u.graph) AS score
FROM {items} i, {users} u
WHERE u.token = %s AND i.id <> ALL (u.seen)
ORDER BY score DESC, i.id LIMIT 10"""
"""The best items of a user; exact, for it reads all items."""

_COLUMNS: dict[str, LiteralString] = {
    "items": "id integer PRIMARY KEY, token text, vector vector({d}), graph sparsevec({n}), "
    "columns jsonb",
    "users": "id integer PRIMARY KEY, token text, vector vector({d}), graph sparsevec({n}), "
    "seen integer[]",
}
_MOST = 16_000  # entries of a sparsevec
_LONGEST = 50  # bytes of a name, of which PostgreSQL keeps 63


def write(form: VectorForm, out: str, force: bool, *, dsn: str | None = None) -> None:
    """Make the tables ``<out>_items`` and ``<out>_users``, in one transaction.

    Args:
        dsn: which database; none given: that of PostgreSQL's environment variables (``PGHOST``,
            ``PGDATABASE``, ``PGPASSWORD`` …).

    Raises:
        DataError: the names are taken, the graph is too dense, or PostgreSQL cannot be reached or
            refuses.
    """
    psycopg: Any = need("pgvector", "--to pgvector")
    if len(out.encode()) > _LONGEST:
        raise DataError(f"table [{out}]: its name may have {_LONGEST} bytes at most")
    most = max(np.diff(matrix.indptr).max() for matrix in (form.graph, form.graph_queries))
    if most > _MOST:
        raise DataError(
            f"the item graph is too dense for pgvector: an item or a history has {most} weights, "
            f"and a sparsevec holds {_MOST}; use --to parquet or faiss"
        )
    names = {kind: f"{out}_{kind}" for kind in _COLUMNS}
    try:
        with psycopg.connect(dsn or "") as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            for name in names.values():
                _drop_earlier(connection, name, force)
            for kind, rows in (("items", _items(form)), ("users", _users(form))):
                _fill(connection, names[kind], _COLUMNS[kind], rows, form, names)
    except psycopg.Error as error:
        raise DataError(
            f"PostgreSQL: {error}; nothing is changed there. It needs pgvector 0.7 or later, and a "
            f"database, in --dsn or in the variables PGHOST, PGDATABASE and so on"
        ) from None


def _drop_earlier(connection: Any, name: str, force: bool) -> None:
    from psycopg import sql

    (there,) = connection.execute("SELECT to_regclass(%s)", [_quoted(name)]).fetchone()
    if there is None:
        return
    found = connection.execute("SELECT obj_description(to_regclass(%s))", [_quoted(name)])
    try:
        ours = json.loads(found.fetchone()[0]).get("export") == "pgvector"
    except (TypeError, ValueError, AttributeError):  # it has no comment, or another
        ours = False
    check_export(f"table [{name}]", True, ours, force)
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _fill(
    connection: Any,
    name: str,
    columns: LiteralString,
    rows: Iterable[tuple[Any, ...]],
    form: VectorForm,
    names: dict[str, str],
) -> None:
    """Make a table of rows, with a comment that tells what it is."""
    from psycopg import sql

    table = sql.Identifier(name)
    d, n = sql.Literal(form.item_vectors.shape[1]), sql.Literal(len(form.items))
    sized = sql.SQL(columns).format(d=d, n=n)
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table, sized))
    with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(table)) as copy:
        for row in rows:
            copy.write_row(row)
    # A hash index takes tokens of any length.
    connection.execute(sql.SQL("CREATE INDEX ON {} USING hash (token)").format(table))
    quoted = {kind: _quoted(other).replace("%", "%%") for kind, other in names.items()}
    query = QUERY.format(**quoted)
    about = json.dumps(form.manifest("pgvector", query))
    comment = sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(about))
    connection.execute(comment)


def _items(form: VectorForm) -> Iterable[tuple[Any, ...]]:
    for row, (token, columns) in enumerate(zip(form.items, form.columns)):
        graph = _sparse(*entries(form.graph, row), len(form.items))
        yield row, token, _dense(form.item_vectors[row]), graph, json.dumps(columns)


def _users(form: VectorForm) -> Iterable[tuple[Any, ...]]:
    for row, token in enumerate(form.users):
        graph = _sparse(*entries(form.graph_queries, row), len(form.items))
        seen = entries(form.seen, row)[0].tolist()
        yield row, token, _dense(form.user_vectors[row]), graph, seen


def _dense(vector: np.ndarray) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"


def _sparse(indices: np.ndarray, values: np.ndarray, n: int) -> str:
    """In pgvector's notation, whose indices begin with 1."""
    pairs = zip(indices.tolist(), values.tolist())
    return f"{{{','.join(f'{index + 1}:{value!r}' for index, value in pairs)}}}/{n}"
