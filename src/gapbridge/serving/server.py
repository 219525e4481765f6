"""The service on a socket: who may listen where, patience with slow clients, and an orderly end."""

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from gapbridge.errors import InputError
from gapbridge.serving.app import make_app
from gapbridge.serving.refusals import closing
from gapbridge.serving.settings import Settings, require_token_elsewhere
from gapbridge.serving.sources import Source

_log = logging.getLogger(__name__)
_LINGER_SECONDS = 5.0
_BACKLOG = 1024


def serve(settings: Settings, source: Source) -> None:
    """Serve until SIGTERM or SIGINT; then what runs is finished and nothing more is accepted.

    Raises InputError where it may not or cannot listen, and as `make_app` does.
    """
    require_token_elsewhere(settings)
    with _listen(settings) as listening:
        app = make_app(settings, source)
        server = _Server(server_config(app, settings))
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        _log.info("serving %s at http://%s:%d", source.name, shown, port)
        server.run(sockets=[listening])


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the service."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Config(
        app,
        http=_patient(settings.read_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.answer_seconds + settings.read_seconds) + 1,
    )


def _listen(settings: Settings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=_BACKLOG)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise InputError(f"{where}: cannot listen there ({error.strerror}); choose another port") from error


class _Server(uvicorn.Server):
    """Ends with status 0 after the signal that asked it to; uvicorn would raise the signal once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn.Server."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _patient(read_seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol with three limits of time that it lacks.

    The head of a request must be there `read_seconds` after it began, or after the connection was made; what is sent to
    a client must be taken in that time, or the connection ends; and a client whose request was refused half-way has a
    moment to read that before the connection ends, however it goes on sending.
    """

    class Patient(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(0)  # whatever the client's side does not take at once pauses the writing
            self._wait(read_seconds, self._head_is_late)

        def connection_lost(self, exc: Exception | None) -> None:
            self._wait_no_more()
            self._is_read()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(read_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._is_read()
            super().resume_writing()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            in_head = self.conn.their_state is h11.IDLE
            if not in_head and self.conn.our_state is not h11.DONE:
                self._wait_no_more()
            elif in_head and self._waiting is None:
                self._wait(read_seconds, self._head_is_late)

        def on_response_complete(self) -> None:
            half_sent = self.conn.their_state is h11.SEND_BODY
            super().on_response_complete()
            if half_sent:
                self._wait(_LINGER_SECONDS, self.transport.close)

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._refuse(400, "invalid_http", msg)
            else:  # the answer was given before the rest of the request turned out to be nonsense
                self.transport.close()

        def _wait(self, seconds: float, then: Any) -> None:
            self._wait_no_more()
            self._waiting = self.loop.call_later(seconds, then)

        def _wait_no_more(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _is_read(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _head_is_late(self) -> None:
            if not self.transport.is_closing() and self.conn.our_state is h11.IDLE:
                self._refuse(408, "request_timeout", f"the request's head did not arrive within {read_seconds:g} s")

        def _refuse(self, status: int, code: str, message: str) -> None:
            refusal = closing(status, code, message)
            content = json.dumps(refusal.content).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(content)))]
            events = [
                h11.Response(status_code=status, headers=[*headers, *refusal.headers.items()]),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ]
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Patient
