"""The service as an ASGI application: what stands at which address, and what starts and ends with it."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gapbridge.serving.completions import Completions
from gapbridge.serving.engine import Engine
from gapbridge.serving.follow import Follower
from gapbridge.serving.gate import CHAT, HEALTH, METRICS, MODELS, READY, Gate, answer_of, has_token
from gapbridge.serving.metrics import Metrics
from gapbridge.serving.refusals import RefusalError
from gapbridge.serving.settings import Settings
from gapbridge.serving.sources import Source
from gapbridge.serving.vector_log import VectorLog

_log = logging.getLogger(__name__)
_PAGE_FILES = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"),
               "/page.js": ("page.js", "text/javascript")}  # fmt: skip
_CODES = {404: "not_found", 405: "method_not_allowed"}


def make_app(settings: Settings, source: Source) -> FastAPI:
    """The service of the model that `source` names, which is opened here.

    Raises InputError and ArtifactError where there is none, or it does not open.
    """
    metrics = Metrics(settings.batch_size)
    follower = Follower(source, settings.min_probe_agreement, metrics)
    vectors = VectorLog(settings.log_embeddings) if settings.log_embeddings else None
    if vectors:
        metrics.lost_embeddings.set_function(lambda: vectors.lost)
    engine = Engine(settings.batch_size, settings.gather_seconds, settings.threads, metrics, vectors)
    running: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running.extend([asyncio.create_task(engine.run()), asyncio.create_task(follower.run(settings.poll_seconds))])
        yield
        for task in running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(follower.close)
        await asyncio.to_thread(engine.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate, token=settings.token, metrics=metrics)
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(HTTPException, _nothing_here)
    app.add_exception_handler(Exception, _broken)
    completions = Completions(settings, engine, follower, metrics)

    @app.post(CHAT)
    async def chat(request: Request) -> Response:
        return await completions(request)

    @app.get(MODELS)
    async def models() -> dict[str, Any]:
        model = {"id": follower.model.name, "object": "model", "created": 0, "owned_by": "gapbridge"}
        return {"object": "list", "data": [model]}

    @app.get(HEALTH)
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(READY)
    async def ready(request: Request) -> Response:
        is_ready = bool(running) and not any(task.done() for task in running)
        content: dict[str, Any] = {"ready": is_ready}
        if settings.token is None or has_token(request.headers, settings.token):
            model = follower.model
            content |= {"model": model.name, "version": model.version, "digest": model.digest}
            content |= follower.state.content
        return JSONResponse(content, 200 if is_ready else 503)

    @app.get(METRICS)
    async def numbers() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    for path, (name, media_type) in _PAGE_FILES.items():
        content = (files("gapbridge.serving") / "page" / name).read_bytes()
        app.add_api_route(path, _page(content, media_type), methods=["GET"], response_class=Response)
    return app


def _page(content: bytes, media_type: str) -> Any:
    async def page() -> Response:
        return Response(content, media_type=media_type)

    return page


async def _refused(_: Request, error: Any) -> Response:
    return answer_of(error)


async def _nothing_here(_: Request, error: Any) -> Response:
    code = _CODES.get(error.status_code, "invalid_request")
    return answer_of(RefusalError(error.status_code, code, str(error.detail), error.headers))


async def _broken(_: Request, error: Exception) -> Response:
    number = secrets.token_hex(4)
    _log.error("error %s", number, exc_info=error)
    return answer_of(
        RefusalError(500, "internal_error", f"something went wrong here; the log has it as error {number}")
    )
