"""Answers in batches, for any model: the same question about the same picture once, and nothing twice after a kill."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm


@dataclass(frozen=True)
class Request:
    """A question about the picture at a place, answered in at most so many tokens; `name` is what errors call it."""

    name: str
    question: str
    picture: int
    max_new_tokens: int


Generate = Callable[[Sequence[Request]], list[str]]
"""The raw answers to one batch, whose requests share `max_new_tokens`."""


class KeptAnswers:
    """Answers in a file, one JSON line each, appended as they come; those of a killed run are there again."""

    def __init__(self, path: Path, side: str) -> None:
        """Opens or makes the file; a damaged line, and all behind it, is dropped. `side` is what was looked at."""
        self._path, self._side = path, side
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known = dict(_read_whole_lines(path))

    def get(self, request: Request) -> str | None:
        """The answer, where it is known."""
        return self._known.get(self._key(request))

    def add(self, answers: Mapping[Request, str]) -> None:
        """Keep what is not known yet, in one write."""
        new = {request: raw for request, raw in answers.items() if self._key(request) not in self._known}
        lines = [
            json.dumps({"item": request.name, "prompt": request.question, "side": self._side, "raw": raw}) + "\n"
            for request, raw in new.items()
        ]
        with self._path.open("ab") as handle:
            handle.write("".join(lines).encode())
        self._known.update({self._key(request): raw for request, raw in new.items()})

    def _key(self, request: Request) -> "_Key":
        return (request.name, request.question, self._side)


_Key = tuple[str, str, str]


def _read_whole_lines(path: Path) -> Iterator[tuple[_Key, str]]:
    """Key and answer of every line up to the first damaged one, where the file is cut off."""
    end = 0
    with path.open("a+b") as handle:
        handle.seek(0)
        for line in handle:
            try:
                entry = json.loads(line)
                found = (entry["item"], entry["prompt"], entry["side"]), entry["raw"]
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            end += len(line)
            yield found
        handle.truncate(end)


def answer_all(
    requests: Sequence[Request],
    generate: Generate,
    length: Callable[[Request], int],
    batch_size: int,
    kept: KeptAnswers | None = None,
    label: str | None = None,
) -> list[str]:
    """The raw answer to each request, in order; `label` names the progress bar.

    Batches hold prompts of like `length`. They are formed alike whether some answers are known already or not, so that
    a run that was stopped ends with the same answers: a batch that is known as a whole is not generated again.
    """
    distinct: dict[tuple[str, int, int], Request] = {}
    for request in requests:
        distinct.setdefault(_what(request), request)
    found: dict[tuple[str, int, int], str] = {}
    with tqdm(total=len(requests), desc=label, unit="answer", dynamic_ncols=True, disable=label is None) as progress:
        for batch in _batches(list(distinct.values()), length, batch_size):
            found.update(zip(map(_what, batch), _answered(batch, generate, kept), strict=True))
            progress.update(len(batch))
        progress.update(len(requests) - len(distinct))
    return [found[_what(request)] for request in requests]


def _what(request: Request) -> tuple[str, int, int]:
    return request.question, request.picture, request.max_new_tokens


def _batches(requests: list[Request], length: Callable[[Request], int], batch_size: int) -> Iterator[list[Request]]:
    requests.sort(key=lambda request: (request.max_new_tokens, length(request), _what(request)))
    for limit in sorted({request.max_new_tokens for request in requests}):
        alike = [request for request in requests if request.max_new_tokens == limit]
        for first in range(0, len(alike), batch_size):
            yield alike[first : first + batch_size]


def _answered(batch: list[Request], generate: Generate, kept: KeptAnswers | None) -> list[str]:
    known = [kept.get(request) if kept else None for request in batch]
    if None not in known:
        return [raw for raw in known if raw is not None]
    raws = generate(batch)
    if kept is not None:
        kept.add(dict(zip(batch, raws, strict=True)))
    return raws
