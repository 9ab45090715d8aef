"""Downloads from a local server: resumed, checked, and whole or not there."""

from __future__ import annotations

import functools
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recbole_sigrec.errors import DataError
from recbole_sigrec.preparation.download import Published, download

CONTENT = bytes(range(256)) * 4000  # more than is read at a time


class Handler(BaseHTTPRequestHandler):
    """/file and /cut know ranges (/cut ends early once), /whole does not, /page is a web page.

    /mute refuses ranges without a size, /open tells no size, /chunks breaks off between chunks.
    """

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        name = self.path.strip("/")
        if name not in ("file", "cut", "whole", "page", "mute", "open", "chunks"):
            return self.send_error(404, "gone")
        start = 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if match and name == "mute":
            return self.send_error(416)
        current = self.headers.get("If-Range") in (None, *self.server.version.values())
        if match and name != "whole" and current:
            start = int(match[1])
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            last = len(CONTENT) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(CONTENT)}")
        else:
            self.send_response(200)
        kind = "text/html" if name == "page" else "application/octet-stream"
        self.send_header("Content-Type", kind)
        for header in self.server.version.items():
            self.send_header(*header)
        if name == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
        elif name != "open":
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        if name == "chunks":
            return self.wfile.write(b"4\r\nabcd\r\n")
        stop = len(CONTENT) // 2 if name == "cut" and not start else len(CONTENT)
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server; ``server.asked`` are the ranges that it was asked for, ``server.url(name)``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.version = [], {}
        server.url = functools.partial("http://127.0.0.1:{}/{}".format, server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_arrives_once(server, tmp_path):
    file = Published("f.bin", server.url("file"))
    path = download(file, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["f.bin"]
    download(file, path.parent)
    assert server.asked == [None]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    file = Published("f.bin", server.url("cut"))
    half = len(CONTENT) // 2
    with pytest.raises(DataError, match=f"broke off after {half} of {len(CONTENT)} bytes"):
        download(file, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin.part"]
    assert download(file, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={half}-"]


@pytest.mark.parametrize(
    "header, old, new",
    [
        ("ETag", '"1"', '"2"'),
        ("Last-Modified", "Mon, 05 May 2014 05:05:05 GMT", "Tue, 06 May 2014 05:05:05 GMT"),
    ],
)
def test_halves_of_two_versions_do_not_join(server, tmp_path, header, old, new):
    for now, asked in ((old, f"bytes={len(CONTENT) // 2}-"), (new, "bytes=500-")):
        server.version = {header: old}
        with pytest.raises(DataError, match="broke off"):
            download(Published("f.bin", server.url("cut")), tmp_path)
        assert (tmp_path / "f.bin.version").read_text() == old
        if now == new:
            (tmp_path / "f.bin.part").write_bytes(b"x" * 500)  # of the old one
        server.version = {header: now}
        path = download(Published("f.bin", server.url("file")), tmp_path)
        assert path.read_bytes() == CONTENT
        assert server.asked[-1] == asked
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


def test_a_weak_etag_is_no_version(server, tmp_path):
    server.version = {"ETag": 'W/"1"'}
    with pytest.raises(DataError, match="broke off"):
        download(Published("f.bin", server.url("cut")), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin.part"]


def test_a_part_that_is_refused_without_a_size_is_fetched_again(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"any")
    assert download(Published("f.bin", server.url("mute")), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=3-", None]


def test_an_end_that_cannot_be_checked_is_told(server, tmp_path, caplog):
    with pytest.raises(DataError, match=r"/chunks: IncompleteRead"):
        download(Published("c.bin", server.url("chunks")), tmp_path)
    assert not (tmp_path / "c.bin").exists()
    download(Published("a.bin", server.url("file")), tmp_path)
    assert not caplog.text
    download(Published("b.bin", server.url("open")), tmp_path)
    assert "does not tell its size: whether it arrives whole cannot be checked" in caplog.text


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(b"x" * 1000)
    path = download(Published("f.bin", server.url("whole")), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_part_that_has_everything_needs_only_its_name(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(CONTENT)
    path = download(Published("f.bin", server.url("file")), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_too_long_is_removed(server, tmp_path):
    (tmp_path / "f.bin.part").write_bytes(CONTENT + b"x")
    with pytest.raises(DataError, match=f"gave {len(CONTENT) + 1} bytes instead"):
        download(Published("f.bin", server.url("file")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_link(server, tmp_path):
    with pytest.raises(DataError, match=r"/gone: .*gone"):
        download(Published("f.bin", server.url("gone")), tmp_path)
    with pytest.raises(DataError, match="a web page, not to the file"):
        download(Published("f.bin", server.url("page")), tmp_path)
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1/f: .*refused"):
        download(Published("f.bin", "http://127.0.0.1:1/f"), tmp_path)
    with pytest.raises(DataError, match="no link"):
        download(Published("f.bin"), tmp_path)
    assert list(tmp_path.iterdir()) == []
