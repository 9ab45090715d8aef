"""The service's answers are the library's, and what is wrong gets an error in JSON."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from helpers_service import Client, random_bundle, running

from recbole_sigrec import __version__
from recbole_sigrec.serving.bundle import write_bundle

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from recbole_sigrec.service.live import Live
from recbole_sigrec.service.requests import MOST_BYTES, MOST_READ


@pytest.fixture(scope="module")
def client(live):
    with running(live) as found:
        yield found


def pairs(items, scores):
    return [{"item": item, "score": score} for item, score in zip(items, map(float, scores))]


def rows(ranking):
    found = zip(ranking.users, ranking.items, ranking.scores)
    return [{"user": user, "items": pairs(*row)} for user, *row in found]


# ---- answers ---------------------------------------------------------------------------------


def test_every_user_gets_what_the_library_gives(client, live):
    recommender, n = live.now.recommender, 0
    for user in recommender.users.names:
        for k in (1, 2, 3, 10, 49, 50):
            assert client.get("/recommend", user, k=k) == (200, rows(recommender.rank(user, k))[0])
            n += 1
        assert client.get("/recommend", user)[1] == rows(recommender.rank(user, 10))[0]
    assert n == 360


def test_every_item_gets_the_similar_ones_that_the_library_gives(client, live):
    recommender = live.now.recommender
    for item in recommender.items.names:
        for by in ("behavior", "content", "image", "text"):
            table = recommender.similar(item, 7, by)
            expected = {"item": item, "items": pairs(table["similar"], table["score"])}
            assert client.get("/similar", item, k=7, by=by) == (200, expected)
        table = recommender.similar(item)
        assert client.get("/similar", item)[1]["items"] == pairs(table["similar"], table["score"])


USERS = ["plain", "<b>bold</b>", "u40", "plain"]
HISTORIES = [["..", "i30"], ["__proto__"], ["i31", "i32", "i33"]]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"k": 50},
        {"exclude": "none"},
        {"exclude": {"plain": ["a/b", "i40"]}, "users": ["plain", "u40"]},
        {"exclude": {"1": ["a/b", "i40"]}, "users": None, "histories": HISTORIES},
        {"candidates": ["i30", "i31", "i32", "<b>bold</b>"]},
        {"where": {"kind": "tea"}},
        {"where": {"kind": ["tea", None], "title": ["Item 4", "Item 6", "Item 7"]}},
        {"diversity": 0.5, "k": 20},
        {"unknown": "new", "users": ["plain", "nobody"]},
        {"unknown": "new", "users": None, "histories": [[], ["i30", "nothing"]]},
        {"users": None, "histories": HISTORIES},
        {"users": []},
    ],
)
def test_many_at_once_get_what_the_library_gives(client, live, asked):
    given = {"users": USERS, "histories": None, **asked}
    how = {name: value for name, value in given.items() if name not in ("users", "histories")}
    expected = live.now.recommender.rank(given["users"], history=given["histories"], **how)
    assert client.post("/recommend", given) == (200, rows(expected))


def test_many_threads_get_the_library_answers(live, client):
    recommender, wrong = live.now.recommender, []
    users = recommender.users.names.tolist()
    expected = {user: rows(recommender.rank(user, 10))[0] for user in users}
    batch = rows(recommender.rank(users, 10))

    def ask():
        mine = Client(client.host, client.port)
        for user in users * 3:
            wrong.extend([user] * (mine.get("/recommend", user) != (200, expected[user])))
            if user == "plain" and mine.post("/recommend", {"users": users}) != (200, batch):
                wrong.append("all")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_numbers_are_taken_as_tokens(tmp_path):
    bundle = random_bundle()
    bundle.users = [str(place) for place in range(len(bundle.users))]
    write_bundle(bundle, tmp_path / "numbers.rec")
    with running(Live(tmp_path / "numbers.rec")) as client:
        assert client.post("/recommend", {"users": [7]}) == client.post(
            "/recommend", {"users": ["7"]}
        )


def test_explanations_are_the_library_ones_and_sum_to_the_score(client, live):
    recommender = live.now.recommender
    for whose in ({"user": "a/b"}, {"history": ["..", "i30", "i31"]}):
        how = {} if "user" in whose else {"history": [whose["history"]]}
        best = recommender.rank(whose.get("user"), 5, **how)
        items = best.items[0].tolist()
        status, answer = client.post("/explain", {**whose, "items": items})
        assert status == 200
        assert answer == recommender.explain(items=items, **whose).to_dict("records")
        for item, score in zip(items, best.scores[0]):
            total = sum(one["addend"] for one in answer if one["item"] == item)
            assert total == pytest.approx(score, abs=1e-5)


def test_without_histories_nothing_is_known_to_be_seen(tmp_path):
    bundle = random_bundle()
    left_out = ("graph", "training", "validation", "parts")
    bundle.arrays = {
        name: rows for name, rows in bundle.arrays.items() if name.split(".")[0] not in left_out
    }
    write_bundle(bundle, tmp_path / "bare.rec")
    live = Live(tmp_path / "bare.rec")
    best = live.now.recommender.rank("a/b", 12, exclude="none")
    with running(live) as client:
        refused(client.get("/recommend", "a/b"), 400, "without histories")
        assert client.get("/recommend", "a/b", k=12, exclude="none") == (200, rows(best)[0])
        status, view = client.post("/page/view", {"user": "a/b"})
        assert status == 200 and view["history"] == []
        assert [one["item"] for one in view["recommended"]] == best.items[0].tolist()
        for one in view["recommended"]:
            assert one["parts"] == [["vector", pytest.approx(one["score"], abs=1e-5)]]
            assert one["sources"] == []


def test_health_tells_what_is_served(client, live, tmp_path):
    status, answer = client.get("/health")
    assert status == 200
    assert answer == {
        **{"status": "ok", "model": "SIGRec", "dataset": "<i>shop</i> 0", "users": 60, "items": 50},
        **{"modalities": ["image", "text"], "digest": live.now.digest, "version": __version__},
    }
    assert len(live.now.digest) == 64


def test_metrics_count(live):
    with running(live) as client:
        for _ in range(3):
            client.get("/recommend", "a/b")
        client.get("/recommend", "nobody")
        client.get("/similar", "a/b")
        client.get("/nothing")
        text = client.get("/metrics")[1]
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    name, path = "recbole_sigrec_requests_total", '{path="/recommend/{user}"'
    assert lines[f'{name}{path},status="200"}}'] == "3"
    assert lines[f'{name}{path},status="404"}}'] == "1"
    assert lines[f'{name}{{path="/similar/{{item}}",status="200"}}'] == "1"
    assert lines[f'{name}{{path="other",status="404"}}'] == "1"
    name = "recbole_sigrec_request_seconds"
    assert lines[f"{name}_count{path}}}"] == lines[f'{name}_bucket{path},le="+Inf"}}'] == "4"
    buckets = [int(n) for line, n in lines.items() if line.startswith(f"{name}_bucket{path}")]
    assert buckets == sorted(buckets) and len(buckets) == 11
    assert 0 < float(lines[f"{name}_sum{path}}}"]) < 10
    assert lines['recbole_sigrec_reloads_total{result="ok"}'] == "0"


def test_the_description_needs_no_network(client):
    status, answer = client.get("/openapi.json")
    assert status == 200
    assert set(answer["paths"]) == {
        *("/recommend/{user}", "/recommend", "/similar/{item}", "/explain"),
        *("/health", "/metrics", "/reload"),
    }
    assert client.get("/docs")[0] == 307 and client.headers["location"] == "/openapi.json"


# ---- errors ----------------------------------------------------------------------------------


def refused(answer, status, *words):
    """An error in JSON that has the words, and nothing of a traceback."""
    assert answer[0] == status, answer
    assert list(answer[1]) == ["error"]
    said = answer[1]["error"]
    assert all(word in said for word in words), said
    assert "Traceback" not in said and len(said) < 1000


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/recommend/nobody", 404, ["unknown user(s): nobody"]),
        ("/recommend/", 404, ["unknown user(s)"]),
        ("/recommend/" + "%3Cb%3E", 404, ["unknown user(s): <b>"]),
        ("/recommend/" + "y" * 10_000, 422, ["user", "at most 1000"]),
        ("/recommend/%FF%00", 404, ["unknown user(s)"]),
        ("/recommend/plain?k=0", 422, ["query.k"]),
        ("/recommend/plain?k=-1", 422, ["query.k"]),
        ("/recommend/plain?k=1000000000", 422, ["query.k", "1000"]),
        ("/recommend/plain?k=" + "9" * 5000, 422, ["query.k"]),
        ("/recommend/plain?k=ten", 422, ["query.k"]),
        ("/recommend/plain?k=51", 400, ["k = [51]", "50"]),
        ("/recommend/plain?n=5", 422, ["query.n"]),
        ("/similar/nothing", 404, ["unknown item(s): nothing"]),
        ("/similar/plain?by=smell", 400, ["by = [smell]", "behavior, content, image, text"]),
        ("/nothing", 404, []),
        ("/reload", 405, []),
    ],
)
def test_wrong_queries(client, path, status, words):
    refused(client.ask("GET", path), status, *words)


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({}, 422, ["either users or histories"]),
        ({"users": ["plain"], "histories": [["plain"]]}, 422, ["either users or histories"]),
        ({"users": "plain"}, 422, ["body.users"]),
        ({"users": [["plain"]]}, 422, ["body.users.0"]),
        ({"users": [True]}, 422, ["body.users.0"]),
        ({"users": [None]}, 422, ["body.users.0"]),
        ({"users": ["\ud800"]}, 422, ["body.users.0"]),
        ({"users": ["y" * 10_000]}, 422, ["body.users.0", "1000"]),
        ({"users": ["plain"] * 1001}, 422, ["body.users", "1000"]),
        ({"users": ["nobody", "plain", "<b>"]}, 404, ["unknown user(s): nobody, <b>"]),
        ({"histories": [[]]}, 400, ["history [0] is empty"]),
        ({"histories": ["plain"]}, 422, ["body.histories.0"]),
        ({"histories": [["plain"] * 1001]}, 422, ["body.histories.0", "1000"]),
        ({"histories": [["nothing"]]}, 404, ["unknown item(s): nothing"]),
        ({"users": ["plain"], "k": 10**9}, 422, ["body.k", "1000"]),
        ({"users": ["plain"], "k": 10**400}, 422, ["body.k"]),
        ({"users": ["plain"], "k": True}, 422, ["body.k"]),
        ({"users": ["plain"], "k": "5"}, 422, ["body.k"]),
        ({"users": ["plain"], "k": 51}, 400, ["k = [51]"]),
        ({"users": ["plain"] * 500, "k": 1000}, 422, ["500 users", "100000"]),
        ({"users": ["plain"] * 101, "k": 50, "diversity": 0.5}, 422, ["101 users", "5000"]),
        ({"users": ["plain"], "k": 101, "diversity": 0.5}, 422, ["at most 100 with diversity"]),
        ({"users": ["plain"], "diversity": 1}, 422, ["body.diversity"]),
        ({"users": ["plain"], "diversity": float("nan")}, 422, ["body.diversity"]),
        ({"users": ["plain"], "exclude": "all"}, 422, ["body.exclude"]),
        ({"users": ["plain"], "exclude": {"u40": []}}, 400, ["u40", "not asked for"]),
        ({"users": ["plain"], "exclude": {"plain": ["nothing"]}}, 404, ["item(s): nothing"]),
        ({"users": ["plain"], "candidates": ["nothing"]}, 404, ["unknown item(s): nothing"]),
        ({"users": ["plain"], "candidates": ["plain"] * 10_001}, 422, ["candidates", "10000"]),
        ({"users": ["plain"], "where": {"colour": "red"}}, 400, ["[colour]", "title"]),
        ({"users": ["plain"], "where": {"kind": {"a": 1}}}, 422, ["body.where"]),
        ({"users": ["plain"], "where": ["kind"]}, 422, ["body.where"]),
        ({"users": ["plain"], "unknown": "guess"}, 422, ["body.unknown"]),
        ({"users": ["plain"], "user": "plain"}, 422, ["body.user"]),
        ([1], 422, ["body"]),
        (None, 422, ["body"]),
    ],
)
def test_wrong_bodies(client, asked, status, words):
    refused(client.post("/recommend", asked), status, *words)


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"users": [' + b"9" * 5000])
def test_bodies_that_are_no_json(client, body):
    answer = client.ask("POST", "/recommend", body=body, **{"Content-Type": "application/json"})
    assert answer[0] in (400, 422)
    refused(answer, answer[0])


def test_a_body_that_does_not_say_that_it_is_json(client):
    refused(
        client.ask(
            "POST", "/recommend", body=b'{"users": ["plain"]}', **{"Content-Type": "text/plain"}
        ),
        422,
    )


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"items": ["plain"]}, 422, ["either a user or a history"]),
        ({"user": "plain", "items": []}, 422, ["body.items"]),
        ({"user": "plain", "items": ["plain"] * 101}, 422, ["body.items", "100"]),
        ({"user": "nobody", "items": ["plain"]}, 404, ["unknown user(s): nobody"]),
        ({"user": "plain", "items": ["nothing"]}, 404, ["unknown item(s): nothing"]),
        ({"history": [], "items": ["plain"]}, 400, ["empty"]),
    ],
)
def test_wrong_questions_for_reasons(client, asked, status, words):
    refused(client.post("/explain", asked), status, *words)


def test_an_unexpected_error_is_short_and_logged(live, caplog, monkeypatch):
    with running(live) as client:
        with monkeypatch.context() as patch:
            patch.setattr(live.now.recommender, "rank", lambda *_, **__: 1 / 0)
            for answer in (
                client.get("/recommend", "plain"),
                client.post("/recommend", {"users": ["plain"]}),
            ):
                refused(answer, 500, "internal error")
                assert "division" not in answer[1]["error"]
        assert client.get("/recommend", "plain")[0] == 200
    assert caplog.text.count("ZeroDivisionError") == 2


# ---- large bodies ----------------------------------------------------------------------------


def raw(client, head):
    connection = socket.create_connection((client.host, client.port), timeout=30)
    connection.sendall(head)
    return connection


def whole(connection):
    data = b""
    with connection:
        while part := connection.recv(2**16):
            data += part
    return data


def test_a_large_body_is_refused_unread(client):
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    said = whole(raw(client, head + b"Content-Length: 100000000\r\n\r\n{"))  # and no more of it
    assert said.startswith(b"HTTP/1.1 413 ") and b"connection: close" in said
    assert json.loads(said.split(b"\r\n\r\n")[1])["error"].startswith("the body is larger than")


def sent_until_closed(connection, piece):
    """The bytes that a service takes before it closes the connection."""
    sent = 0
    with connection, pytest.raises(OSError):
        while sent < 100_000_000:
            connection.sendall(piece)
            sent += len(piece)
    return sent


def test_a_large_body_without_a_length_is_refused_on_the_way(client):
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection = raw(client, head + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = b"%x\r\n%s\r\n" % (2**16, b" " * 2**16)
    assert MOST_BYTES < sent_until_closed(connection, piece) < 50_000_000
    connection = raw(client, head + b"Transfer-Encoding: chunked\r\n\r\n" + 17 * piece)
    connection.sendall(b"0\r\n\r\n")
    assert whole(connection).startswith(b"HTTP/1.1 413 ")
    assert client.get("/health")[0] == 200


def test_the_largest_body_is_read(client):
    body = json.dumps({"users": ["plain"]}).encode().ljust(MOST_BYTES)
    headers = {"Content-Type": "application/json"}
    assert client.ask("POST", "/recommend", body=body, **headers)[0] == 200
    for larger in (body + b" ", body.ljust(MOST_READ)):
        refused(client.ask("POST", "/recommend", body=larger, **headers), 413, str(MOST_BYTES))


def test_a_long_head_is_refused(client):
    assert sent_until_closed(raw(client, b"GET /"), b"x" * 2**16) < 10_000_000
    assert sent_until_closed(raw(client, b"GET / HTTP/1.1\r\nA: "), b"x" * 2**16) < 10_000_000
    assert client.get("/health")[0] == 200


# ---- the key ---------------------------------------------------------------------------------

PATHS = [
    *(("GET", path) for path in ("/", "/page.js", "/recommend/plain", "/similar/plain")),
    *(("GET", path) for path in ("/metrics", "/openapi.json", "/docs", "/page/users", "/nothing")),
    *(("POST", path) for path in ("/recommend", "/explain", "/reload", "/page/view")),
]


def test_without_the_key_there_is_nothing_but_health(live):
    with running(live, "sésame") as client:
        for key in (None, "", "sesame", "sésam", "sésamee"):
            client.key = None if key is None else key.encode()
            for method, path in PATHS:
                refused(
                    client.ask(method, path, {} if method == "POST" else None), 401, "X-API-Key"
                )
            assert client.get("/health")[0] == 200
        client.key = "sésame".encode()
        answer = {path: client.ask(method, path)[0] for method, path in PATHS}
        assert answer["/recommend/plain"] == answer["/reload"] == answer["/"] == 200
        assert 401 not in answer.values()


def test_a_service_without_a_key_does_not_reload_when_told(client):
    refused(client.post("/reload", {}), 403, "RECBOLE_SIGREC_API_KEY", "SIGHUP")
