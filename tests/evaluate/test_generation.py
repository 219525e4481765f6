"""Batches of requests, and the answers that a killed run left behind."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gapbridge.evaluate.generation import KeptAnswers, Request, answer_all

REQUESTS = [Request(f"item {n}", "q" * (n % 5 + 1), n % 3, 8 if n % 2 else 4) for n in range(20)]


class Model:
    """Answers with what it was asked; remembers its batches, and can stop like a killed process."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.batches: list[list[Request]] = []
        self._stop_after = stop_after

    def __call__(self, batch: Sequence[Request]) -> list[str]:
        if len(self.batches) == self._stop_after:
            raise KeyboardInterrupt
        self.batches.append(list(batch))
        return [f"{one.question} {one.picture} {one.max_new_tokens} é\u2028\n" for one in batch]


def ask(model: Model, kept: KeptAnswers | None = None, requests: Sequence[Request] = REQUESTS) -> list[str]:
    return answer_all(requests, model, lambda request: len(request.question), 4, kept)


def test_answers_stand_in_the_order_of_the_requests() -> None:
    model = Model()
    assert ask(model) == [f"{one.question} {one.picture} {one.max_new_tokens} é\u2028\n" for one in REQUESTS]
    for batch in model.batches:
        assert len({request.max_new_tokens for request in batch}) == 1
        assert [len(one.question) for one in batch] == sorted(len(one.question) for one in batch)


def test_the_same_question_about_the_same_picture_is_asked_once() -> None:
    model = Model()
    ask(model, requests=[*REQUESTS, *(Request("again", one.question, one.picture, 4) for one in REQUESTS)])
    asked = [(one.question, one.picture, one.max_new_tokens) for batch in model.batches for one in batch]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("done", [0, 1, 3])
@pytest.mark.parametrize("torn", [b"", b'{"item": "item 0", "pro', b"\xff\n", b"{}\n", b"17\n"])
def test_a_killed_run_goes_on_and_generates_nothing_twice(done: int, torn: bytes, tmp_path: Path) -> None:
    path, first, second = tmp_path / "kept" / "answers.jsonl", Model(stop_after=done), Model()
    with pytest.raises(KeyboardInterrupt):
        ask(first, KeptAnswers(path, "seeing"))
    with path.open("ab") as handle:
        handle.write(torn)
    assert ask(second, KeptAnswers(path, "seeing")) == ask(Model())
    whole = Model()
    ask(whole)
    assert first.batches + second.batches == whole.batches
    third = Model()
    assert ask(third, KeptAnswers(path, "seeing")) == ask(Model())
    assert third.batches == []


def test_a_batch_that_was_torn_is_formed_as_before(tmp_path: Path) -> None:
    path, whole, again = tmp_path / "answers.jsonl", Model(), Model()
    ask(whole, KeptAnswers(path, "seeing"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]) + lines[6][:-1])  # the second batch lost its last two lines
    ask(again, KeptAnswers(path, "seeing"))
    assert again.batches == whole.batches[1:]
    assert path.read_bytes().splitlines(keepends=True) == lines


def test_the_side_and_the_question_must_be_the_same(tmp_path: Path) -> None:
    path, blind, other = tmp_path / "answers.jsonl", Model(), Model()
    ask(Model(), KeptAnswers(path, "seeing"))
    ask(blind, KeptAnswers(path, "blind"))
    ask(other, KeptAnswers(path, "blind"), [Request("item 0", "another", 0, 4)])
    whole = Model()
    ask(whole)
    assert blind.batches == whole.batches
    assert len(other.batches) == 1
