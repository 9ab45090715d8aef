"""What stands before every request: the key, the body's size, the counts, and the last error."""

from __future__ import annotations

import hmac
import json
import time
from typing import Any

from fastapi import HTTPException, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recbole_sigrec.service.live import LOG
from recbole_sigrec.service.metrics import Metrics
from recbole_sigrec.service.requests import MOST_BYTES, MOST_READ

OPEN = "/health"
"""The path that needs no key."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src http: https: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def answer(content: Any, status: int = 200) -> Response:
    """A response of JSON."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(body, status, media_type="application/json")


class Guard:
    """Middleware: refuses without a key or with a body that is too large, counts, adds headers.

    Args:
        app: what answers.
        key: what the header X-API-Key must be; None: nothing.
        metrics: what counts.
    """

    def __init__(self, app: ASGIApp, key: str | None, metrics: Metrics):
        self.app, self.metrics = app, metrics
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status, size = time.perf_counter(), 0, 0

        async def limited() -> Message:
            nonlocal size
            while True:
                message = await receive()
                size += len(message.get("body", b""))
                if size <= MOST_BYTES:
                    return message
                if size > MOST_READ or not message.get("more_body"):
                    raise HTTPException(413, _TOO_LARGE)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += _HEADERS
                if status == 413:  # the rest of the body, if any, is not read
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            refusal = self._refusal(scope)
            await (refusal or self.app)(scope, limited, noted)
        except Exception:
            LOG.exception("%s %r failed", scope["method"], scope["path"])
            if not status:
                await answer({"error": "internal error; the log has more"}, 500)(
                    scope, receive, noted
                )
        finally:
            route = scope.get("route")
            path = "other" if route is None else route.path_format
            if status:  # else the client has gone
                self.metrics.count(path, status, time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        if self._key is not None and scope["path"] != OPEN:
            if not hmac.compare_digest(headers.get(b"x-api-key", b""), self._key):
                return answer({"error": "give the key of this service in X-API-Key"}, 401)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > MOST_READ:
            return answer({"error": _TOO_LARGE}, 413)
        return None


_TOO_LARGE = f"the body is larger than {MOST_BYTES} bytes"
