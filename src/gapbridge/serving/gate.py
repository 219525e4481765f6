"""What every request passes, whatever it asks for: the host it names, the token, the headers of its answer."""

import hmac
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gapbridge.serving.metrics import Metrics
from gapbridge.serving.refusals import RefusalError

CHAT, MODELS, METRICS = "/v1/chat/completions", "/v1/models", "/metrics"
HEALTH, READY = "/healthz", "/readyz"
_COUNTED = frozenset({CHAT, MODELS, METRICS, HEALTH, READY, "/"})
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Gate:
    """ASGI middleware: counts every request, and refuses those without the token where one is needed.

    Without a token the service is for this machine alone; then a request must name it, so that no page of another
    site can lead a browser here under a name of its own.
    """

    def __init__(self, app: ASGIApp, token: str | None, metrics: Metrics) -> None:
        self._app, self._token, self._metrics = app, token, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Gate."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        try:
            if refusal is None:
                await self._app(scope, receive, send_with_headers)
            else:
                await answer_of(refusal)(scope, receive, send_with_headers)
        finally:
            path = scope["path"] if scope["path"] in _COUNTED else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            if path == CHAT:
                self._metrics.seconds.observe(time.monotonic() - started)

    def _refusal(self, scope: Scope) -> RefusalError | None:
        headers = Headers(scope=scope)
        if self._token is None:
            if _host_name(headers.get("host", "")) not in _LOCAL_NAMES:
                return RefusalError(
                    421, "wrong_host", "this service answers to localhost; set a token to open it to others"
                )
            return None
        if (scope["path"].startswith("/v1/") or scope["path"] == METRICS) and not has_token(headers, self._token):
            challenge = {"WWW-Authenticate": "Bearer"}
            return RefusalError(401, "invalid_api_key", "no valid token; send Authorization: Bearer TOKEN", challenge)
        return None


def has_token(headers: Headers, token: str) -> bool:
    """Whether the request carries the token."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), token.encode())


def answer_of(refusal: RefusalError) -> JSONResponse:
    """The response that says why there is no answer."""
    content: dict[str, Any] = refusal.content
    return JSONResponse(content, refusal.status, refusal.headers)


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if ":" in host else host
