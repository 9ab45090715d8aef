"""The service's paths."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from recbole_sigrec import __version__
from recbole_sigrec.display.page_style import STYLE
from recbole_sigrec.errors import SIGRecError
from recbole_sigrec.service.guard import Guard, answer
from recbole_sigrec.service.live import Live, Served
from recbole_sigrec.service.metrics import Metrics
from recbole_sigrec.service.page_views import PAGE, PICTURE, TITLE, Views
from recbole_sigrec.service.requests import Explain, OneUser, Recommend, Similar, Token, View
from recbole_sigrec.serving.token_rows import UnknownTokens

KEY_VARIABLE = "RECBOLE_SIGREC_API_KEY"

_THREADS = 4  # that compute at a time; each may hold 256 MB of scores

PathToken = Annotated[Token, InPath()]


def create_app(
    live: Live, key: str | None = None, title: str = TITLE, picture: str = PICTURE
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        live: the bundle.
        key: what a request must give in X-API-Key; None: nothing, and there is no ``/reload``.
        title, picture: columns of the bundle for the page.
    """
    app = FastAPI(
        title="recbole-sigrec", version=__version__, docs_url=None, redoc_url=None,
        redirect_slashes=False,
        lifespan=_with_few_threads,
    )  # fmt: skip
    metrics = Metrics()
    app.add_middleware(Guard, key=key, metrics=metrics)
    _answer_errors(app)
    _add_recommending(app, live)
    _add_operating(app, live, key, metrics)
    _add_page(app, live, title, picture)
    return app


@contextlib.asynccontextmanager
async def _with_few_threads(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    yield


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(UnknownTokens)
    async def unknown(request: Request, error: UnknownTokens) -> Response:
        return answer({"error": error.told}, 404)

    @app.exception_handler(SIGRecError)
    async def refused(request: Request, error: SIGRecError) -> Response:
        return answer({"error": str(error)}, 400)

    @app.exception_handler(AnyHTTPException)
    async def failed(request: Request, error: AnyHTTPException) -> Response:
        return answer({"error": error.detail}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        said = [
            f"{'.'.join(map(str, one['loc']))[:200]}: {one['msg'].removeprefix('Value error, ')}"
            for one in found[:3]
        ]
        return answer({"error": "; ".join(said)}, 422)


def _pairs(items: Any, scores: Any) -> list[dict[str, Any]]:
    return [{"item": i, "score": s} for i, s in zip(items.tolist(), scores.tolist())]


def _add_recommending(app: FastAPI, live: Live) -> None:
    # One user is faster in the event loop than in a thread; what may take longer is in a thread.
    @app.get("/recommend/{user:path}")
    async def recommend_one(user: PathToken, query: Annotated[OneUser, Query()]) -> Response:
        """The best items of a user."""
        found = live.now.recommender.rank(user, query.k, exclude=query.exclude)
        return answer({"user": user, "items": _pairs(found.items[0], found.scores[0])})

    @app.post("/recommend")
    def recommend(asked: Recommend) -> Response:
        """The best items of users, or of histories, in their order."""
        how = asked.model_dump(exclude={"users", "histories"})
        found = live.now.recommender.rank(asked.users, history=asked.histories, **how)
        rows = zip(found.users, found.items, found.scores)
        return answer([{"user": user, "items": _pairs(*row)} for user, *row in rows])

    @app.get("/similar/{item:path}")
    def similar(item: PathToken, query: Annotated[Similar, Query()]) -> Response:
        """The items most like one: by behavior, content, or a modality."""
        table = live.now.recommender.similar(item, query.k, query.by)
        return answer({"item": item, "items": _pairs(table["similar"], table["score"])})

    @app.post("/explain")
    def explain(asked: Explain) -> Response:
        """The addends of scores, each of a part of the item and of an item of the history."""
        table = live.now.recommender.explain(asked.user, asked.items, history=asked.history)
        return answer(table.to_dict("records"))


def _add_operating(app: FastAPI, live: Live, key: str | None, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> Response:
        """What is served."""
        return answer({"status": "ok", **_about(live.now)})

    @app.get("/metrics")
    async def counts() -> Response:
        """Requests, latencies and reloads, for Prometheus."""
        return PlainTextResponse(metrics.text(live.reloads))

    @app.post("/reload")
    def reload() -> Response:
        """Serve the bundle that is now in the path."""
        if key is None:
            why = f"only a service with a key ({KEY_VARIABLE}) does this; or send SIGHUP"
            raise HTTPException(403, why)
        try:
            return answer({"status": "ok", **_about(live.reload())})
        except SIGRecError as error:
            return answer({"error": str(error)}, 409)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return RedirectResponse("/openapi.json")  # a page of it would need a network


def _about(served: Served) -> dict[str, Any]:
    recommender, manifest = served.recommender, served.recommender.manifest
    return {
        "model": manifest["model"],
        "dataset": manifest["dataset"],
        "users": len(recommender.users),
        "items": len(recommender.items),
        "modalities": recommender.content.modalities,
        "digest": served.digest,
        "version": __version__,
    }


def _add_page(app: FastAPI, live: Live, title: str, picture: str) -> None:
    def views() -> Views:
        return Views(live.now.recommender, title, picture)

    hidden: dict[str, Any] = {"include_in_schema": False}
    for path in (STYLE, PAGE / "page.css", PAGE / "page.js"):
        app.get(f"/{path.name}", **hidden)(_file(path))
    app.get("/", **hidden)(_file(PAGE / "index.html"))

    @app.get("/page/about", **hidden)
    async def about() -> Response:
        return answer(views().about())

    @app.get("/page/users", **hidden)
    def users(search: Token = "") -> Response:
        return answer(views().users(search))

    @app.get("/page/items", **hidden)
    def items(search: Token = "") -> Response:
        return answer(views().items(search))

    @app.post("/page/view", **hidden)
    def view(asked: View) -> Response:
        shown = views()
        shown.recommender.items.find(asked.history)
        return answer(shown.view(asked.user, asked.history))

    @app.get("/page/similar", **hidden)
    def similar(item: Token) -> Response:
        return answer(views().similar([item]))


def _file(path: Path) -> Any:
    async def send() -> Response:
        return FileResponse(path)

    return send
