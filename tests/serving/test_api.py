"""The API as a client sees it: answers, streams, numbers, and what is said of the service itself."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from gapbridge.evaluate.predict import Predictor
from tests.evaluate.tiny import QUESTIONS
from tests.serving.chats import CHAT, benchmark_answer, chat, first_message, picture
from tests.serving.conftest import Start


def lines_of(text: str) -> list[Any]:
    """The events of a stream, without the mark at its end."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_an_answer_is_the_benchmarks_own(client: TestClient, predictor: Predictor) -> None:
    for seed, question in enumerate(QUESTIONS):
        expected = benchmark_answer(predictor, question, picture(seed))
        found = client.post(CHAT, json=chat(seed, question)).json()
        assert found["object"] == "chat.completion" and found["model"] == "tiny" and len(found["choices"]) == 1
        (choice,) = found["choices"]
        assert choice["message"] == {"role": "assistant", "content": expected, "refusal": None}
        assert choice["finish_reason"] in ("stop", "length")
        read = len(predictor.prompt(question))
        written = found["usage"]["completion_tokens"]
        assert found["usage"] == {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        assert written == 8 or choice["finish_reason"] == "stop"


def test_a_stream_is_the_whole_answer_in_pieces(client: TestClient) -> None:
    whole = client.post(CHAT, json=chat(1, max_tokens=20)).json()
    response = client.post(CHAT, json=chat(1, max_tokens=20, stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = lines_of(response.text)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    *pieces, last = chunks
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in pieces]
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(deltas) == whole["choices"][0]["message"]["content"]
    assert sum(map(bool, deltas)) > 3, "it came word by word"
    assert pieces[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in pieces)


def test_a_stream_counts_only_where_it_is_asked_to(client: TestClient) -> None:
    chunks = lines_of(client.post(CHAT, json=chat(stream=True)).text)
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


def test_earlier_turns_are_part_of_the_prompt(client: TestClient, predictor: Predictor) -> None:
    turns = [
        first_message(2, QUESTIONS[0]),
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": [{"type": "text", "text": QUESTIONS[3]}]},
    ]
    found = client.post(CHAT, json={"messages": turns, "max_tokens": 8}).json()
    ids = predictor.prompter.ask(QUESTIONS[3], 3, history=[(QUESTIONS[0], "red")])
    assert found["usage"]["prompt_tokens"] == len(ids)
    assert found["choices"][0]["message"]["content"] != client.post(CHAT, json=chat(2, QUESTIONS[3])).json()


def test_chance_is_reproducible_and_only_where_it_is_asked_for(client: TestClient) -> None:
    def answer(**others: Any) -> str:
        return client.post(CHAT, json=chat(**others)).json()["choices"][0]["message"]["content"]

    greedy = answer()
    assert answer(temperature=0) == greedy == answer(seed=3)
    drawn = [answer(temperature=2, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert answer(temperature=1) != answer(temperature=1)
    for coldest in (1e-3, 1e-50, 5e-324):
        assert answer(temperature=coldest, seed=1) == greedy, "the colder, the greedier"


def test_an_answer_ends_at_the_services_limit_whatever_is_asked_for(start: Start) -> None:
    short = start(max_answer_tokens=3)
    for others in ({}, {"max_tokens": 2}, {"max_tokens": 1000}, {"max_completion_tokens": 1000}):
        found = short.post(CHAT, json={**chat(1), "max_tokens": None, **others}).json()
        assert found["usage"]["completion_tokens"] == others.get("max_tokens", 3) if others == {"max_tokens": 2} else 3
        assert found["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "others",
    [
        {"n": 1, "top_p": 1, "stop": None, "tools": [], "response_format": {"type": "text"}, "logprobs": False},
        {"user": "someone", "metadata": {"a": "b"}, "store": False, "model": "tiny"},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "modalities": ["text"]},
    ],
)
def test_parameters_that_change_nothing_are_taken(client: TestClient, others: dict[str, Any]) -> None:
    assert client.post(CHAT, json=chat(**others)).status_code == 200


def test_the_service_says_what_it_serves(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert ready["ready"] is True and ready["model"] == "tiny" and ready["refused_version"] is None
    assert client.get("/v1/models").json()["data"] == [
        {"id": "tiny", "object": "model", "created": 0, "owned_by": "gapbridge"}
    ]


def test_metrics_count_requests_batches_and_tokens(start: Start) -> None:
    client = start()
    client.post(CHAT, json=chat())
    client.post(CHAT, json={})
    client.get("/somewhere/else")
    lines = client.get("/metrics").text.splitlines()
    assert 'gapbridge_requests_total{path="/v1/chat/completions",status="200"} 1.0' in lines
    assert 'gapbridge_requests_total{path="/v1/chat/completions",status="400"} 1.0' in lines
    assert 'gapbridge_requests_total{path="other",status="404"} 1.0' in lines
    assert "gapbridge_batch_requests_count 1.0" in lines
    assert "gapbridge_requests_in_flight 0.0" in lines
    assert 'gapbridge_tokens_total{kind="answer"} 8.0' in lines
    assert any(line.startswith('gapbridge_model_info{digest="') and line.endswith(" 1.0") for line in lines)


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        assert f'"{name}"' in page.text
        assert client.get(f"/{name}").headers["content-type"].startswith(kind)
    texts = [client.get(path).text for path in ("/", "/page.css", "/page.js")]
    assert not any("http://" in text or "https://" in text or "//cdn" in text for text in texts)
    assert " style=" not in page.text and "onclick" not in page.text, "the policy forbids what stands inline"


def test_a_stream_that_takes_too_long_ends_with_the_reason(start: Start) -> None:
    client = start(answer_seconds=3, max_answer_tokens=100_000)
    *pieces, last = lines_of(client.post(CHAT, json=chat(stream=True, max_tokens=100_000)).text)
    assert last["error"]["code"] == "timeout" and len(pieces) > 3
    assert client.post(CHAT, json=chat()).status_code == 200, "the model is free again"
