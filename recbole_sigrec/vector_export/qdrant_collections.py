"""``--to qdrant``: a collection of items and one of users, whose vectors are the queries."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

from recbole_sigrec.errors import DataError
from recbole_sigrec.extras import need
from recbole_sigrec.vector_export.existing import check_export
from recbole_sigrec.vector_export.vector_form import VectorForm, entries

RANKING = (
    "Prefetch the dense vector 'behavior' (exact) and the sparse vector 'graph', each with the "
    "user's vector of that name, the number of items as the limit, and the ids of the user's "
    "'seen' in a must_not filter; rank by the formula $score[0] + $score[1]. That is exact."
)
_MADE = "-recbole_sigrec-"  # in the names of the collections that the aliases stand for


def write(
    form: VectorForm, out: str, force: bool, *, url: str | None = None, path: str | None = None
) -> None:
    """Fill the collections ``<out>`` (items) and ``<out>-users``.

    These names are aliases, which get their meaning when all is there: an earlier export serves
    until then, and is deleted after.

    Args:
        url: of a Qdrant server; its key, if it wants one, is read from ``QDRANT_API_KEY``.
        path: the folder of a Qdrant without a server, in place of ``url``.

    Raises:
        DataError: the names are taken, or Qdrant cannot be reached or refuses.
    """
    library: Any = need("qdrant", "--to qdrant")
    if (url is None) == (path is None):
        raise DataError("--to qdrant: give either --url of a server or --path of a folder")
    where = {"path": path} if url is None else {"url": url, "timeout": 60}
    key = None if url is None else os.environ.get("QDRANT_API_KEY")
    names = [out, f"{out}-users"]
    with _errors(url or path):
        client = library.QdrantClient(**where, api_key=key)
        with contextlib.closing(client):
            earlier = _earlier(client, names, force)
            run = secrets.token_hex(4)
            made = [f"{name}{_MADE}{run}" for name in names]
            try:
                for name, points in zip(made, (_items(form), _users(form))):
                    _fill(client, name, points, form)
                if url is not None:  # of no use without a server
                    client.create_payload_index(made[1], "user", "keyword")
                _rename(client, dict(zip(names, made)), earlier)
            except BaseException:
                for name in made:
                    with contextlib.suppress(Exception):  # the first error is the one to tell
                        client.delete_collection(name)
                raise
            for name in earlier.values():
                client.delete_collection(name)


@contextlib.contextmanager
def _errors(where: str | None) -> Iterator[None]:
    """Qdrant's errors as ours."""
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except DataError:
        raise
    except (ApiException, RuntimeError, ValueError) as error:
        raise DataError(f"Qdrant at {where}: {error}") from None


def _earlier(client: Any, names: list[str], force: bool) -> dict[str, str]:
    """Name → the collection of an earlier export that has it."""
    taken = {c.name: c.name for c in client.get_collections().collections}
    taken |= {a.alias_name: a.collection_name for a in client.get_aliases().aliases}
    earlier = {name: taken[name] for name in names if name in taken}
    for name, collection in earlier.items():
        ours = collection.startswith(f"{name}{_MADE}")
        check_export(f"Qdrant collection [{name}]", True, ours, force)
    return earlier


def _fill(client: Any, name: str, points: Iterator[Any], form: VectorForm) -> None:
    from qdrant_client import models

    size = form.item_vectors.shape[1]
    client.create_collection(
        name,
        vectors_config={"behavior": models.VectorParams(size=size, distance=models.Distance.DOT)},
        sparse_vectors_config={"graph": models.SparseVectorParams()},
        metadata=form.manifest("qdrant", RANKING),
    )
    client.upload_points(name, points, batch_size=256, wait=True)


def _items(form: VectorForm) -> Iterator[Any]:
    for row, (token, columns) in enumerate(zip(form.items, form.columns)):
        payload = {"item": token, "columns": columns}
        yield _point(row, form.item_vectors[row], entries(form.graph, row), payload)


def _users(form: VectorForm) -> Iterator[Any]:
    for row, token in enumerate(form.users):
        payload = {"user": token, "seen": entries(form.seen, row)[0].tolist()}
        yield _point(row, form.user_vectors[row], entries(form.graph_queries, row), payload)


def _point(row: int, vector: Any, graph: tuple[Any, Any], payload: dict[str, Any]) -> Any:
    from qdrant_client import models

    sparse = models.SparseVector(indices=graph[0].tolist(), values=graph[1].tolist())
    vectors = {"behavior": vector.tolist(), "graph": sparse}
    return models.PointStruct(id=row, vector=vectors, payload=payload)


def _rename(client: Any, names: dict[str, str], earlier: dict[str, str]) -> None:
    """Give the collections their aliases, in one step."""
    from qdrant_client import models

    deleted = [
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
        for name in earlier
    ]
    created = [
        models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=name)
        )
        for name, collection in names.items()
    ]
    client.update_collection_aliases([*deleted, *created])
