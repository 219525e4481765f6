"""What is not answered, and how that is said: always soon, always in OpenAI's shape, never with our insides."""

import base64
import json
import struct
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import ValidationError

from gapbridge.serving import completions
from gapbridge.serving.chat import MAX_MESSAGES, MAX_PARTS, parse
from gapbridge.serving.refusals import RefusalError
from tests.serving.chats import CHAT, address, chat, encoded, first_message, picture
from tests.serving.conftest import Start

JSON = {"content-type": "application/json"}


def png_of(width: int, height: int) -> bytes:
    """A small file that unpacks to width x height black pixels, or says so and stops after 5,000 rows."""

    def block(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(width + 1)) for _ in range(min(height, 5000))) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + block(b"IDAT", packed) + block(b"IEND", b"")


def _with_picture(content: bytes | str, kind: str = "image/png") -> dict[str, Any]:
    url = content if isinstance(content, str) else address(content, kind)
    return {"messages": [first_message(url=url)]}


def _messages(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def _cut() -> bytes:
    return encoded(picture(0, (400, 300)))[:5000]


BAD_PICTURES: dict[str, Callable[[], dict[str, Any]]] = {
    "a decompression bomb": lambda: _with_picture(png_of(30_000, 30_000)),
    "too many pixels": lambda: _with_picture(png_of(5000, 4000)),
    "tiny": lambda: _with_picture(encoded(picture(0, (3, 40)))),
    "a mere line": lambda: _with_picture(encoded(picture(0, (500, 5)))),
    "truncated": lambda: _with_picture(_cut()),
    "no picture": lambda: _with_picture(b"%PDF-1.7 no picture"),
    "empty": lambda: _with_picture(b""),
    "16 bits": lambda: _with_picture(encoded(Image.new("I;16", (40, 40)))),
    "an svg": lambda: _with_picture(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
    "not base64": lambda: _with_picture("data:image/png;base64,*****"),
    "cut base64": lambda: _with_picture(address(encoded(picture(0)))[:-3]),
    "a data URL in another coding": lambda: _with_picture("data:image/png,%89PNG"),
    "no data URL": lambda: _with_picture("data:"),
    "another address": lambda: _with_picture("http://169.254.169.254/latest/meta-data"),
    "a file": lambda: _with_picture("file:///etc/passwd"),
}
BAD_CHATS: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": (_messages({"role": "user", "content": "what is it"}), "image_required"),
    "two pictures": (
        _messages({"role": "user", "content": first_message()["content"] * 2}),
        "invalid_image",
    ),
    "a later picture": (
        _messages({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, first_message()),
        "invalid_image",
    ),
    "no words": (_messages(first_message(question="  ")), "invalid_messages"),
    "a marker": (_messages(first_message(question="what <image> is it")), "invalid_messages"),
    "no messages": (_messages(), "invalid_messages"),
    "an answer first": (_messages({"role": "assistant", "content": "a"}), "invalid_messages"),
    "an answer last": (_messages(first_message(), {"role": "assistant", "content": "a"}), "invalid_messages"),
    "two in a row": (_messages(first_message(), {"role": "user", "content": "a"}), "invalid_messages"),
    "a system message": (_messages({"role": "system", "content": "a"}, first_message()), "invalid_request"),
    "too many parts": (
        _messages({"role": "user", "content": [{"type": "text", "text": "a"}] * (MAX_PARTS + 1)}),
        "invalid_request",
    ),
    "too many messages": (_messages(*[first_message()] * (MAX_MESSAGES + 1)), "invalid_request"),
    "a long prompt": (_messages(first_message(question="where is it " * 1000)), "context_length_exceeded"),
    "a very long prompt": (_messages(first_message(question="a" * 100_000)), "context_length_exceeded"),
    "several answers": (chat(n=2), "unsupported_parameter"),
    "tools": (chat(tools=[{"type": "function"}]), "unsupported_parameter"),
    "log probabilities": (chat(logprobs=True), "unsupported_parameter"),
    "JSON answers": (chat(response_format={"type": "json_object"}), "unsupported_parameter"),
    "a stop word": (chat(stop="red"), "unsupported_parameter"),
    "a narrower choice": (chat(top_p=0.5), "unsupported_parameter"),
    "an unknown parameter": (chat(beams=4), "unknown_parameter"),
    "options of no stream": (chat(stream_options={"include_usage": True}), "invalid_request"),
    "no tokens": (chat(max_tokens=0), "invalid_request"),
    "half a token": (chat(max_tokens=1.5), "invalid_request"),
    "a word for a number": (chat(max_tokens="8"), "invalid_request"),
    "too warm": (chat(temperature=3), "invalid_request"),
    "nothing in it": ({}, "invalid_request"),
}
BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "invalid_json"),
    "no JSON": (b"what is it", "invalid_json"),
    "half of it": (json.dumps(chat()).encode()[:-5], "invalid_json"),
    "no text": (b'{"messages": "\xff\xfe"}', "invalid_json"),
    "a list": (b"[]", "invalid_request"),
    "a number": (b"1e400", "invalid_request"),
    "deep lists": (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "invalid_json"),
    "a long list": (b'{"messages": [' + b"0," * 1_000_000 + b"0]}", "invalid_request"),
    "an endless number": (b'{"max_tokens": ' + b"9" * 100_000 + b', "messages": []}', "invalid_json"),
    "not a number": (b'{"temperature": NaN, "messages": []}', "invalid_request"),
    "an unpaired surrogate": (b'{"model": "\\ud800", "messages": []}', "invalid_json"),
}


def refused(response: Any, status: int, code: str | None = None) -> str:
    """The message of a refusal, whose shape and manner are checked."""
    assert response.status_code == status, response.text[:300]
    (name,) = response.json()
    error = response.json()[name]
    assert name == "error" and set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code
    assert 0 < len(error["message"]) < 700 and "\n" not in error["message"]
    for inside in ("Traceback", "site-packages", ".py", "/tmp/", "0x7"):  # noqa: S108
        assert inside not in response.text
    return error["message"]


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_refused_soon(client: TestClient, name: str) -> None:
    content = BAD_PICTURES[name]()
    started = time.monotonic()
    refused(client.post(CHAT, json=content), 400, "invalid_image")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", BAD_CHATS)
def test_a_bad_chat_is_refused(client: TestClient, name: str) -> None:
    content, code = BAD_CHATS[name]
    refused(client.post(CHAT, json=content), 400, code)


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused_soon(client: TestClient, name: str) -> None:
    content, code = BAD_BODIES[name]
    started = time.monotonic()
    refused(client.post(CHAT, content=content, headers=JSON), 400, code)
    assert time.monotonic() - started < 5


def test_millions_of_wrong_parts_make_no_million_errors() -> None:
    """They would take gigabytes."""
    body = b'{"messages": [{"role": "user", "content": [' + b"{}," * 300_000 + b"{}]}]}"
    started = time.process_time()
    with pytest.raises(RefusalError) as found:
        parse(body)
    cause = found.value.__cause__
    assert isinstance(cause, ValidationError) and cause.error_count() < 5
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=a"},
        {"content-type": ""},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_another_type_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    refused(client.post(CHAT, content=json.dumps(chat()).encode(), headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_large_body_is_refused_whatever_it_says_of_itself(start: Start, is_declared: bool) -> None:
    read: list[int] = []

    def pieces() -> Any:
        for number in range(1000):
            read.append(number)
            yield b" " * 1000

    client = start(max_body_bytes=10_000)
    content = b" " * 1_000_000 if is_declared else pieces()
    refused(client.post(CHAT, content=content, headers=JSON), 413, "request_too_large")


def test_another_model_another_way_and_another_place_are_refused(client: TestClient) -> None:
    assert "tiny" in refused(client.post(CHAT, json=chat(model="gpt-4o")), 404, "model_not_found")
    refused(client.get(CHAT), 405, "method_not_allowed")
    refused(client.get("/v1/embeddings"), 404, "not_found")
    refused(client.get("/openapi.json"), 404, "not_found")
    refused(client.get("/../../etc/passwd"), 404, "not_found")


def test_a_token_is_needed_where_one_is_set(start: Start) -> None:
    client = start(token="s3cret-ü")  # noqa: S106
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic czNjcmV0"}, {"authorization": ""}):
        for path in (CHAT, "/v1/models", "/v1/anything", "/metrics"):
            response = client.request("POST" if path == CHAT else "GET", path, headers=headers)
            refused(response, 401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz").status_code == client.get("/").status_code == 200
    assert client.get("/readyz").json() == {"ready": True}, "what is served is for those with the token"
    right = {"authorization": "Bearer s3cret-ü".encode()}
    assert client.post(CHAT, json=chat(), headers=right).status_code == 200
    assert client.get("/readyz", headers=right).json()["model"] == "tiny"
    assert client.get("/healthz", headers={"host": "gapbridge.example"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", ""])
def test_without_a_token_only_this_machine_is_answered(client: TestClient, host: str) -> None:
    refused(client.post(CHAT, json=chat(), headers={"host": host}), 421, "wrong_host")
    assert client.get("/healthz", headers={"host": "127.0.0.1:8000"}).status_code == 200
    assert client.get("/healthz", headers={"host": "[::1]:8000"}).status_code == 200


def test_what_breaks_inside_stays_inside(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = start()

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(completions, "parse", broken)
    message = refused(client.post(CHAT, json=chat()), 500, "internal_error")
    assert "a secret" not in message and message.rpartition(" ")[2] in caplog.text and "a secret" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr("gapbridge.serving.engine.answer", broken)
    message = refused(client.post(CHAT, json=chat()), 500, "internal_error")
    assert "a secret" not in message and message.rpartition(" ")[2] in caplog.text
    monkeypatch.undo()
    assert client.post(CHAT, json=chat()).status_code == 200, "the next one is answered"
    assert client.get("/readyz").json()["ready"]


def test_an_answer_that_takes_too_long_is_given_up(start: Start) -> None:
    client = start(answer_seconds=0.001)
    refused(client.post(CHAT, json=chat()), 504, "timeout")
    refused(client.post(CHAT, json=chat(stream=True)), 504, "timeout")


def test_who_waits_too_long_for_a_turn_is_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start(answer_seconds=0.5)
    conversation = completions.conversation

    def slow(*arguments: Any) -> Any:
        time.sleep(1.5)
        return conversation(*arguments)

    monkeypatch.setattr(completions, "conversation", slow)

    def ask(number: int) -> tuple[int, float]:
        started = time.monotonic()
        return client.post(CHAT, json=chat(number)).status_code, time.monotonic() - started

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, range(6)))
    assert {status for status, _ in found} == {504}
    assert sum(seconds < 1.4 for _, seconds in found) == 4, "two were being prepared, the others left the queue"


def test_the_message_does_not_repeat_what_was_sent(client: TestClient) -> None:
    secret = base64.b64encode(b"do not repeat").decode() * 1000
    for content in (chat(**{secret: 1}), {"messages": [{"role": secret, "content": secret}]}, chat(model=secret)):
        response = client.post(CHAT, json=content)
        assert 400 <= response.status_code < 500 and len(response.text) < 900
