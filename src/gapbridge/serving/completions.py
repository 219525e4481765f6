"""`/v1/chat/completions`: a request's way from its body to its answer, whole or word by word."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gapbridge.serving.body import read_body
from gapbridge.serving.chat import ChatRequest, conversation, parse
from gapbridge.serving.engine import Engine
from gapbridge.serving.follow import Follower
from gapbridge.serving.generation import Failed, Finished, Job, Piece
from gapbridge.serving.metrics import Metrics
from gapbridge.serving.refusals import RefusalError, invalid
from gapbridge.serving.settings import Settings

_PREPARED_AT_ONCE = 2
"""Pictures that are decoded at the same time: the memory of one is bounded, so that of all is."""
_GONE = 499
_PARTING_SECONDS = 1.0


class Completions:
    """Answers chats, at most `max_requests` at once."""

    def __init__(self, settings: Settings, engine: Engine, follower: Follower, metrics: Metrics) -> None:
        self._settings, self._engine, self._follower, self._metrics = settings, engine, follower, metrics
        self._admitted = 0
        self._preparing = anyio.CapacityLimiter(_PREPARED_AT_ONCE)
        metrics.in_flight.set_function(lambda: self._admitted)

    async def __call__(self, request: Request) -> Response:
        """The answer to `request`. Raises RefusalError where there is none."""
        self._admit()
        response = None
        try:
            response = await self._respond(request)
            return response
        except ClientDisconnect:
            return Response(status_code=_GONE)
        finally:
            if not isinstance(response, _Stream):  # which ends later
                self._release()

    def _admit(self) -> None:
        if self._admitted >= self._settings.max_requests:
            raise RefusalError(
                429, "too_many_requests", "too many requests wait already; try again", {"Retry-After": "1"}
            )
        self._admitted += 1

    def _release(self) -> None:
        self._admitted -= 1

    async def _respond(self, request: Request) -> Response:
        body = await read_body(request, self._settings.max_body_bytes, self._settings.read_seconds)
        events: asyncio.Queue[Piece | Finished | Failed] = asyncio.Queue()
        deadline = time.monotonic() + self._settings.answer_seconds
        with _until(deadline):  # many may wait for their turn; who has it keeps it, since a thread cannot be stopped
            chat, job = await anyio.to_thread.run_sync(
                self._prepared, body, _teller(events), deadline, limiter=self._preparing
            )
        answer = _Answer(chat, job, events)
        self._engine.submit(job)
        first: Any = None
        try:
            first = await _unless_gone(request, answer.next())
        finally:
            job.cancelled = first is None
        self._metrics.tokens.labels("prompt").inc(len(job.prompt))
        if chat.stream:
            return _Stream(answer, first, self._end)
        self._metrics.tokens.labels("answer").inc(first.answer_tokens)
        return JSONResponse(answer.whole(first))

    def _end(self, answer: "_Answer") -> None:
        """A stream is over, or its client is gone."""
        answer.job.cancelled = True
        self._metrics.tokens.labels("answer").inc(answer.told_tokens)
        self._release()

    def _prepared(
        self, body: bytes, tell: Callable[[Piece | Finished | Failed], None], deadline: float
    ) -> tuple[ChatRequest, Job]:
        """Everything that can be wrong with a request shows here, in a thread of its own. Raises RefusalError."""
        chat, model, settings = parse(body), self._follower.model, self._settings
        if chat.model is not None and chat.model not in (model.name, model.name.partition("@")[0]):
            raise RefusalError(404, "model_not_found", f"no such model here; this service has {model.name}")
        talk = conversation(chat, settings.max_image_pixels)
        room = model.context_tokens or settings.max_prompt_tokens + settings.max_answer_tokens
        prompt = model.prompt(talk, min(settings.max_prompt_tokens, room - 1))
        job = Job(
            model=model,
            prompt=prompt,
            pixels=model.pixels(talk.picture),
            max_answer_tokens=min(chat.answer_tokens or room, settings.max_answer_tokens, room - len(prompt)),
            deadline=deadline,
            tell=tell,
            stream=bool(chat.stream),
            temperature=chat.temperature or 0.0,
            seed=secrets.randbits(63) if chat.seed is None else chat.seed,
        )
        if chat.stream_options is not None and not chat.stream:
            raise invalid("invalid_request", "stream_options: only for a stream; set stream or leave it out")
        return chat, job


@contextlib.contextmanager
def _until(deadline: float) -> Iterator[None]:
    """Ends what is inside at that time of the monotonic clock. Raises RefusalError when it was not done by then."""
    try:
        with anyio.fail_after(max(0.0, deadline - time.monotonic())):
            yield
    except TimeoutError as error:
        raise RefusalError(504, "timeout", "the answer takes too long; ask for a shorter one") from error


class _Answer:
    """The answer to one chat as it comes, and the objects that OpenAI's clients expect of it."""

    def __init__(self, chat: ChatRequest, job: Job, events: asyncio.Queue[Piece | Finished | Failed]) -> None:
        self.chat, self.job, self._events = chat, job, events
        self.told_tokens = 0
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": job.model.name,
            "system_fingerprint": job.model.label,
        }

    async def next(self) -> Piece | Finished:
        """What comes next. Raises RefusalError when the model failed, or took too long."""
        with _until(self.job.deadline):
            event = await self._events.get()
        if isinstance(event, Failed):
            raise RefusalError(
                500, "internal_error", f"something went wrong here; the log has it as error {event.number}"
            )
        if isinstance(event, Finished):
            self.told_tokens = event.answer_tokens
        return event

    def whole(self, end: Finished) -> dict[str, Any]:
        """The completion in one piece."""
        message = {"role": "assistant", "content": end.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage(end)}

    def chunk(self, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        """Some words of it."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return chunk | ({"usage": None} if self._counts else {})

    def count(self, end: Finished) -> list[dict[str, Any]]:
        """The last chunk with the numbers of tokens, where the client wants it."""
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage(end)}
        return [chunk] if self._counts else []

    @property
    def _counts(self) -> bool:
        return self.chat.stream_options is not None and self.chat.stream_options.include_usage

    def _usage(self, end: Finished) -> dict[str, int]:
        read = len(self.job.prompt)
        return {
            "prompt_tokens": read,
            "completion_tokens": end.answer_tokens,
            "total_tokens": read + end.answer_tokens,
        }


class _Stream(StreamingResponse):
    """Server-sent events. Whatever happens to it, `end` is called once."""

    def __init__(self, answer: _Answer, first: Piece | Finished, end: Callable[[_Answer], None]) -> None:
        super().__init__(_events(answer, first), media_type="text/event-stream")
        self._answer, self._end = answer, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them; a client that takes none of them until the deadline is left."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._answer.job.deadline - time.monotonic()) + _PARTING_SECONDS):
                    await super().__call__(scope, receive, send)
        finally:
            self._end(self._answer)


async def _events(answer: _Answer, event: Piece | Finished) -> AsyncIterator[str]:
    yield _line(answer.chunk({"role": "assistant", "content": ""}))
    try:
        while isinstance(event, Piece):
            yield _line(answer.chunk({"content": event.text}))
            event = await answer.next()
    except RefusalError as refusal:  # the status is sent already
        yield _line(refusal.content)
    else:
        for chunk in [answer.chunk({}, event.reason), *answer.count(event)]:
            yield _line(chunk)
    yield "data: [DONE]\n\n"


def _line(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _teller(events: asyncio.Queue[Piece | Finished | Failed]) -> Callable[[Piece | Finished | Failed], None]:
    """Puts outcomes into the queue, from any thread."""
    loop = asyncio.get_running_loop()

    def tell(event: Piece | Finished | Failed) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    return tell


async def _unless_gone(request: Request, coming: Any) -> Any:
    """The awaited result. Raises ClientDisconnect as soon as nobody waits for it any more."""
    work, gone = asyncio.ensure_future(coming), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        gone.cancel()
