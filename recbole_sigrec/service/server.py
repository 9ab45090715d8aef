"""The service in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from recbole_sigrec.errors import ConfigError, SIGRecError
from recbole_sigrec.service.app import KEY_VARIABLE, create_app
from recbole_sigrec.service.live import Live
from recbole_sigrec.service.page_views import Views


def serve(path: Path, host: str, port: int, title: str, picture: str) -> None:
    """Serve a bundle until the process is told to end; SIGHUP reads the bundle again.

    Args:
        port: 0 takes a free one, which is printed.
        title, picture: columns of the bundle for the page.

    Raises:
        ConfigError: the port is taken, or the key in the environment is empty.
        DataError: the bundle cannot be read, or lacks a column.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key == "":
        raise ConfigError(f"{KEY_VARIABLE} is empty; give a key, or unset it to need none")
    with listen(host, port) as listener:
        live = Live(path)
        Views(live.now.recommender, title, picture).check_columns()
        if hasattr(signal, "SIGHUP"):  # Windows has none
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=_again(live)).start())
        host, port = listener.getsockname()[:2]
        print(f"{path}: http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            make_server(create_app(live, key, title, picture)).run([listener])


def make_server(app: FastAPI) -> uvicorn.Server:
    """The server of an application."""
    config = uvicorn.Config(
        app,
        http="h11",  # has a limit on the head of a request
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # seconds; proxies keep their connections for up to 60
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the port is taken, or there is no such host or port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen at [{host}] port [{port}]: {error}") from None
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _again(live: Live):
    def reload() -> None:
        with contextlib.suppress(SIGRecError):  # it is in the log
            live.reload()

    return reload
