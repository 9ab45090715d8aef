"""A small bundle of random arrays whose tokens and titles are hostile, and a service of it."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import threading
from urllib.parse import quote

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.serving.bundle import Bundle, write_bundle

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
HOSTILE = [
    *("plain", "a/b", "/first", "last/", "..", "a//b", "per%2Fcent", "q?x=1#y", " space ", "+"),
    *("<b>bold</b>", "\"quoted\" 'twice'", "</script><script>window.hit=1</script>", "ünïcöde ☃"),
    *("__proto__", "x" * 900, "&amp;", "back\\slash", "{user}", "learnt"),
]
TITLES = {
    0: "<img src=x onerror='window.hit=1'>",
    1: "</script><script>window.hit=1</script>",
    2: "Tom & \"Jerry\" 'together'",
}


def random_bundle(seed: int = 0, n_users: int = 60, n_items: int = 50, d: int = 8) -> Bundle:
    """A bundle with vectors of two parts, an item graph, histories, two modalities, columns."""
    rng = np.random.default_rng(seed)

    def tokens(kind: str, n: int) -> list[str]:
        return [*HOSTILE, *(f"{kind}{place}" for place in range(len(HOSTILE), n))]

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def csr(name: str, matrix: sp.csr_matrix, data: bool = False) -> dict[str, np.ndarray]:
        matrix.sort_indices()
        made = {
            f"{name}.indptr": matrix.indptr.astype(np.int64),
            f"{name}.indices": matrix.indices.astype(np.int32),
        }
        return {**made, f"{name}.data": matrix.data.astype(np.float32)} if data else made

    taken = np.stack([rng.permutation(n_items)[:6] for _ in range(n_users)])
    shape, row = (n_users, n_items), np.arange(n_users)
    training = sp.csr_matrix((np.ones(5 * n_users), (row.repeat(5), taken[:, :5].ravel())), shape)
    validation = sp.csr_matrix((np.ones(n_users), (row, taken[:, 5])), shape)
    graph = sp.csr_matrix(sp.random(n_items, n_items, 0.2, random_state=seed))
    parts = {"behavior": normal(n_items, d), "semantics": normal(n_items, d)}
    content = {"image": normal(n_items, 5), "text": normal(n_items, 4)}
    has = {name: np.ones(n_items, dtype=bool) for name in content}
    has["image"][3], content["image"][3] = False, 0
    arrays = {
        "users.vectors": normal(n_users, d),
        "items.vectors": parts["behavior"] + parts["semantics"],
        "items.count": np.asarray(training.sum(axis=0)).ravel().astype(np.int32),
        "fold_in.map": normal(d, d),
        **csr("graph", graph, data=True),
        **csr("training", training),
        **csr("validation", validation),
        **{f"parts.{name}": rows for name, rows in parts.items()},
        **{f"content.{name}": rows for name, rows in content.items()},
        **{f"has.{name}": rows for name, rows in has.items()},
        **{f"mean.{name}": rows[has[name]].mean(axis=0) for name, rows in content.items()},
    }
    scoring = {
        "item_score_weight": 0.3,
        "history_parts": [],
        "modality_weights": {"image": 0.5, "text": 0.5},
    }
    manifest = {"model": "SIGRec", "dataset": f"<i>shop</i> {seed}", "scoring": scoring}
    columns = {
        "title": [TITLES.get(place, f"Item {place}") for place in range(n_items - 1)] + [None],
        "picture": [PIXEL, "javascript:window.hit=1", "/etc/passwd"] + [None] * (n_items - 3),
        "kind": [("tea", "pot")[place % 2] for place in range(n_items)],
    }
    return Bundle(manifest, tokens("u", n_users), tokens("i", n_items), arrays, columns)


def write_random_bundle(path, seed: int = 0):
    """Write :func:`random_bundle`; an earlier one is replaced."""
    write_bundle(random_bundle(seed), path, force=True)
    return path


@dataclasses.dataclass
class Client:
    """Asks a service over one kept connection."""

    host: str
    port: int
    key: str | None = None

    def __post_init__(self):
        self._connection = http.client.HTTPConnection(self.host, self.port, timeout=60)

    def ask(self, method, path, content=None, body=None, **headers):
        """(status, the answer: JSON, or text where it is none)."""
        if self.key is not None:
            headers["X-API-Key"] = self.key
        if content is not None:
            body, headers["Content-Type"] = json.dumps(content).encode(), "application/json"
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            text = response.read().decode()
        except OSError:
            self._connection.close()
            raise
        self.headers = response.headers
        kind = response.headers.get("content-type", "")
        return response.status, json.loads(text) if kind == "application/json" else text

    def get(self, path, *parts, **query):
        """GET; ``parts`` are further parts of the path, and what is in them is quoted."""
        path = "/".join([path, *(quote(part, safe="") for part in parts)])
        asked = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return self.ask("GET", path + (f"?{asked}" if asked else ""))

    def post(self, path, content):
        """POST of JSON."""
        return self.ask("POST", path, content)


@contextlib.contextmanager
def running(live, key=None):
    """A client of a service that runs in a thread."""
    from recbole_sigrec.service.app import create_app
    from recbole_sigrec.service.server import listen, make_server

    with listen("127.0.0.1", 0) as listener:
        server = make_server(create_app(live, key))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Client(*listener.getsockname(), key)
        finally:
            server.should_exit = True
            thread.join()
