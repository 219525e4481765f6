"""The service on a real socket: OpenAI's own client, slow and rude clients, many at once, and an orderly end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gapbridge.evaluate.predict import Predictor
from gapbridge.serving.app import make_app
from gapbridge.serving.settings import Settings
from gapbridge.serving.sources import FolderSource
from tests.evaluate.tiny import QUESTIONS
from tests.serving.chats import CHAT, benchmark_answer, chat, first_message, picture, running

READ_SECONDS = 1.0


@pytest.fixture(scope="module")
def address(model_folder: Path) -> Iterator[str]:
    """A service that is short of patience and takes few at once."""
    settings = Settings(read_seconds=READ_SECONDS, max_requests=40, batch_size=8, max_body_bytes=100_000)
    with running(make_app(settings, FolderSource(model_folder)), settings) as found:
        yield found


@pytest.fixture
def connection(address: str) -> Iterator[socket.socket]:
    """A bare connection to it."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as found:
        yield found


def head(length: int, more: str = "") -> bytes:
    lines = [f"POST {CHAT} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"]
    return ("\r\n".join([*lines, *([more] if more else [])]) + "\r\n\r\n").encode()


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_openais_client_asks_and_streams(address: str, predictor: Predictor) -> None:
    expected = benchmark_answer(predictor, QUESTIONS[0], picture(0))
    messages: Any = [first_message(0)]
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=8)
        assert whole.choices[0].message.content == expected
        assert whole.usage is not None and whole.usage.total_tokens > 8
        with client.chat.completions.create(model="tiny", messages=messages, max_tokens=8, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(pieces) == expected and len(pieces) > 3
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError, match="this service has tiny"):
            client.chat.completions.create(model="other", messages=messages)
        with pytest.raises(openai.BadRequestError, match="no picture"):
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])


def test_many_at_once_get_what_each_would_get_alone(address: str, predictor: Predictor) -> None:
    wanted = [(number % 5, QUESTIONS[number % 4]) for number in range(24)]
    alone = {
        (number, question): benchmark_answer(predictor, question, picture(number)) for number, question in set(wanted)
    }
    assert len(set(alone.values())) > 10, "the comparison says something"

    async def ask(client: httpx.AsyncClient, number: int, question: str, place: int) -> str:
        if place % 3:
            response = await client.post(CHAT, json=chat(number, question))
            return response.json()["choices"][0]["message"]["content"]
        response = await client.post(CHAT, json=chat(number, question, stream=True))
        lines = [json.loads(line[6:]) for line in response.text.split("\n\n") if line.startswith("data: {")]
        return "".join(line["choices"][0]["delta"].get("content", "") for line in lines)

    async def ask_all() -> list[str]:
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            return await asyncio.gather(*(ask(client, *pair, place) for place, pair in enumerate(wanted)))

    told = asyncio.run(ask_all())
    # Another shape of a batch rounds otherwise, which may tip a near tie of random weights.
    assert sum(answer == alone[pair] for answer, pair in zip(told, wanted, strict=True)) >= len(wanted) - 2
    counted = httpx.get(f"{address}/metrics").text
    rows, batches = (
        float(next(line for line in counted.splitlines() if line.startswith(name)).split()[1])
        for name in ("gapbridge_batch_requests_sum", "gapbridge_batch_requests_count")
    )
    assert rows > 1.5 * batches, "they were answered together"


def test_a_full_house_sends_the_next_one_away(address: str) -> None:
    async def ask_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            return await asyncio.gather(*(client.post(CHAT, json=chat(max_tokens=64)) for _ in range(60)))

    found = asyncio.run(ask_all())
    assert {response.status_code for response in found} == {200, 429}
    refused = [response for response in found if response.status_code == 429]
    assert len(refused) <= 20
    assert all(response.headers["retry-after"] == "1" for response in refused)
    assert all(response.json()["error"]["type"] == "rate_limit_error" for response in refused)
    assert httpx.post(f"{address}{CHAT}", json=chat(), timeout=60).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [head(1000) + b'{"messages": [', head(1000), b"", b"POST /v1/chat", f"POST {CHAT} HTTP/1.1\r\nHost:".encode()],
)
def test_a_client_that_stops_sending_is_told_in_time(connection: socket.socket, sent: bytes) -> None:
    started = time.monotonic()
    connection.sendall(sent)
    answer = everything(connection)
    assert status_of(answer) == 408 and b'"code":' in answer.replace(b": ", b":")
    assert READ_SECONDS / 2 < time.monotonic() - started < READ_SECONDS + 3


def test_a_client_that_dribbles_is_told_in_time(connection: socket.socket) -> None:
    started, stop = time.monotonic(), threading.Event()
    connection.sendall(head(1000))

    def dribble() -> None:
        while not stop.wait(0.1):
            try:
                connection.sendall(b" ")
            except OSError:
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        assert status_of(connection.recv(65536)) == 408
        assert time.monotonic() - started < READ_SECONDS + 3
    finally:
        stop.set()
        thread.join()


def test_a_refused_body_need_not_be_sent_and_the_connection_ends(connection: socket.socket) -> None:
    connection.sendall(head(10**12))
    assert status_of(connection.recv(65536)) == 413
    stop, started = threading.Event(), time.monotonic()

    def push() -> None:
        while not stop.wait(0.05):
            try:
                connection.sendall(b" " * 1000)
            except OSError:
                return

    thread = threading.Thread(target=push)
    thread.start()
    try:
        with pytest.raises((ConnectionError, StopIteration)):
            while connection.recv(65536):
                pass
            raise StopIteration
        assert time.monotonic() - started < 10
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000])
def test_what_is_no_http_is_refused(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    answer = everything(connection)
    assert status_of(answer) == 400 and b"invalid_http" in answer


def test_nonsense_after_a_refusal_ends_the_connection_quietly(
    connection: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"POST {CHAT} HTTP/1.1", "Host: localhost", "Content-Type: text/plain", "Transfer-Encoding: chunked"]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert status_of(connection.recv(65536)) == 415
    connection.sendall(b"no length of a chunk\r\n")
    assert everything(connection) == b""
    assert not [record for record in caplog.records if record.exc_info], "nothing broke inside"


def test_who_takes_no_answers_is_left(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(READ_SECONDS + 5)
        connection.connect((host, int(port)))
        started = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - started < READ_SECONDS + 10:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)


def test_a_connection_serves_several_requests_and_a_refusal_does_not_end_it(connection: socket.socket) -> None:
    content = json.dumps(chat()).encode()
    for body, status in ((content, 200), (b"{}", 400), (content, 200)):
        connection.sendall(head(len(body)) + body)
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert status_of(answer) == status


def test_who_leaves_is_forgotten(address: str, connection: socket.socket) -> None:
    content = json.dumps(chat(max_tokens=256, stream=True)).encode()
    connection.sendall(head(len(content)) + content)
    assert b"200 OK" in connection.recv(1000)
    connection.close()
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as another:
        whole = json.dumps(chat(max_tokens=256)).encode()
        another.sendall(head(len(whole)) + whole)
        time.sleep(0.1)
    deadline = time.monotonic() + 10
    while "gapbridge_requests_in_flight 0.0" not in httpx.get(f"{address}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def process(model_folder: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`gapbridge serve` as people start it, and its address."""
    program = "from gapbridge.cli import main; main()"
    started = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--model", str(model_folder), "--port", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "GAPBRIDGE_SERVE_MAX_ANSWER_TOKENS": "200"},
    )  # fmt: skip
    try:
        assert started.stderr is not None
        line = started.stderr.readline()
        assert line.startswith("serving tiny at http://127.0.0.1:"), line + started.stderr.read()
        yield started, line.split()[-1]
    finally:
        started.kill()
        started.communicate()


def test_a_term_signal_lets_what_runs_finish(process: tuple[subprocess.Popen[str], str]) -> None:
    server, address = process
    with httpx.stream("POST", f"{address}{CHAT}", json=chat(max_tokens=1000, stream=True), timeout=60) as stream:
        lines = stream.iter_lines()
        while '"content": "' not in next(lines).replace('"content": ""', ""):
            pass
        server.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/healthz")
        rest = list(lines)
    assert rest[-2] == "data: [DONE]" or "data: [DONE]" in rest
    assert '"finish_reason": "length"' in "".join(rest), "all 200 tokens came"
    assert server.wait(20) == 0
    assert server.stderr is not None and server.stderr.read() == ""
