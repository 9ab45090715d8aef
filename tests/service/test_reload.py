"""Another bundle is served in place of the first, without a request that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest
from helpers_service import Client, random_bundle, running, write_random_bundle

from recbole_sigrec.cli import run_command
from recbole_sigrec.errors import ConfigError, DataError, SIGRecError
from recbole_sigrec.serving.bundle import write_bundle

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from recbole_sigrec.service.live import Live
from recbole_sigrec.service.server import serve


def answers(recommender):
    """User → what GET /recommend answers."""
    return {
        user: [
            {"item": item, "score": float(score)}
            for item, score in zip(one.items[0], one.scores[0])
        ]
        for user in recommender.users.names
        for one in [recommender.rank(user, 10)]
    }


@pytest.fixture
def process(tmp_path):
    """Starts ``recbole-sigrec serve``: bundle → (process, client)."""
    started = []

    def start(path, key=None):
        command = [sys.executable, "-m", "recbole_sigrec.cli", "serve", str(path), "--port=0"]
        environment = os.environ if key is None else {**os.environ, "RECBOLE_SIGREC_API_KEY": key}
        with open(tmp_path / "log", "wb") as log:
            one = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        started.append(one)
        url = urlsplit(one.stdout.readline().split()[-1])
        return one, Client(url.hostname, url.port, key)

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


def test_200_reloads_under_load(tmp_path, process):
    """Every answer is that of one of the two bundles, and after a reload of the new one."""
    bundles = [write_random_bundle(tmp_path / f"{seed}.rec", seed) for seed in (1, 2)]
    expected = [answers(Live(path).now.recommender) for path in bundles]
    path, following = tmp_path / "shop.rec", tmp_path / "following"
    path.symlink_to(bundles[0])
    users, done, wrong, asked = list(expected[0]), threading.Event(), [], []

    def hammer(client):
        while not done.is_set():
            for user in users:
                status, answer = client.get("/recommend", user)
                asked.append(user)
                if status != 200 or answer["items"] not in (one[user] for one in expected):
                    wrong.append((user, status, answer))

    _, client = process(path, "key")
    threads = [
        threading.Thread(target=hammer, args=[Client(client.host, client.port, "key")])
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    digests = set()
    for turn in range(1, 201):
        following.symlink_to(bundles[turn % 2])
        following.replace(path)
        status, answer = client.post("/reload", {})
        assert status == 200
        digests.add(answer["digest"])
        for user in users[:3]:
            items = client.get("/recommend", user)[1]["items"]
            assert items == expected[turn % 2][user] != expected[1 - turn % 2][user]
    done.set()
    for thread in threads:
        thread.join()
    assert 'reloads_total{result="ok"} 200' in client.get("/metrics")[1]
    assert wrong == [] and len(asked) > 200 and len(digests) == 2


def damage(path, how):
    if how == "cut":  # in place, as a copy over it does: what is served must not be on the disk
        os.truncate(path / "arrays.safetensors", 100)
    elif how == "gone":
        path.rename(path.with_name("elsewhere"))
    elif how == "no json":
        (path / "users.json").write_text("[", "utf-8")


@pytest.mark.parametrize(
    ("how", "said"), [("cut", "changed or cut"), ("gone", "does not exist"), ("no json", "users")]
)
def test_a_damaged_bundle_leaves_the_earlier_one(tmp_path, how, said):
    path = write_random_bundle(tmp_path / "shop.rec")
    live = Live(path)
    expected = answers(live.now.recommender)
    with running(live, "key") as client:
        before = client.get("/health")
        damage(path, how)
        status, answer = client.post("/reload", {})
        assert status == 409 and said in answer["error"] and "stays" in answer["error"]
        assert client.get("/health") == before
        for user, items in expected.items():
            assert client.get("/recommend", user) == (200, {"user": user, "items": items})
        text = client.get("/metrics")[1]
        assert 'reloads_total{result="failed"} 1' in text
        assert 'reloads_total{result="ok"} 0' in text


def test_a_bundle_that_lacks_an_array_leaves_the_earlier_one(tmp_path):
    path = write_random_bundle(tmp_path / "shop.rec")
    live = Live(path)
    digest = live.now.digest
    bundle = random_bundle(5)
    del bundle.arrays["items.count"]
    write_bundle(bundle, path, force=True)
    with pytest.raises(SIGRecError, match=r"stays.*items\.count"):
        live.reload()
    assert live.now.digest == digest


def test_a_bundle_that_is_replaced_while_it_is_read_is_not_served(tmp_path, monkeypatch):
    from recbole_sigrec.service import live as module

    path, read = write_random_bundle(tmp_path / "shop.rec"), module.read_bundle

    def read_slowly(path):
        bundle = read(path)
        write_random_bundle(path, 2)
        return bundle

    live = Live(path)
    monkeypatch.setattr(module, "read_bundle", read_slowly)
    with pytest.raises(SIGRecError, match="replaced while it was read"):
        live.reload()


def test_a_signal_reads_the_bundle_again(tmp_path, process):
    path = write_random_bundle(tmp_path / "shop.rec")
    running_service, client = process(path)
    first = client.get("/health")[1]
    write_random_bundle(path, 2)
    running_service.send_signal(signal.SIGHUP)
    end = time.monotonic() + 60
    while (now := client.get("/health")[1]) == first and time.monotonic() < end:
        time.sleep(0.05)
    assert now["dataset"] == "<i>shop</i> 2"
    assert now["digest"] == (path / "manifest.sha256").read_text().strip()
    damage(path, "cut")
    running_service.send_signal(signal.SIGHUP)
    while "changed or cut" not in (tmp_path / "log").read_text() and time.monotonic() < end:
        time.sleep(0.05)
    assert "the earlier one stays" in (tmp_path / "log").read_text()
    assert client.get("/health")[1] == now
    running_service.terminate()
    assert running_service.wait(30) in (0, -signal.SIGTERM)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_port_that_is_taken(tmp_path, process, capsys):
    path = write_random_bundle(tmp_path / "shop.rec")
    _, client = process(path)
    assert run_command("serve", str(path), f"--port={client.port}") == 2
    said = capsys.readouterr().err
    assert f"port [{client.port}]" in said and "in use" in said
    assert client.get("/health")[0] == 200


def test_what_cannot_be_served(tmp_path, monkeypatch):
    path = write_random_bundle(tmp_path / "shop.rec")
    with pytest.raises(DataError, match="does not exist"):
        serve(tmp_path / "none.rec", "127.0.0.1", 0, "title", "picture")
    with pytest.raises(DataError, match=r"no column \[name\]"):
        serve(path, "127.0.0.1", 0, "name", "picture")
    with pytest.raises(ConfigError, match=r"port \[70000\]"):
        serve(path, "127.0.0.1", 70_000, "title", "picture")
    with pytest.raises(ConfigError, match=r"no\.such\.host\.invalid"):
        serve(path, "no.such.host.invalid", 0, "title", "picture")
    monkeypatch.setenv("RECBOLE_SIGREC_API_KEY", "")
    with pytest.raises(ConfigError, match="is empty"):
        serve(path, "127.0.0.1", 0, "title", "picture")


def test_the_service_needs_neither_torch_nor_recbole():
    code = (
        "import sys; import recbole_sigrec.service.server, recbole_sigrec.service.look, "
        "recbole_sigrec.commands.serve, recbole_sigrec.commands.look; "
        "print([n for n in ('torch', 'recbole', 'plotly', 'statsmodels') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
