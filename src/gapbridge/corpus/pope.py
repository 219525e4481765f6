"""POPE's layout: JSON Lines of `{"question_id", "image", "text", "label", "benchmark"?, "subset"?, "group_id"?}`."""

from collections.abc import Iterator
from typing import Any

from gapbridge.corpus import jsonl
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, group_of, identified, optional_words, words


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions (kind `question`); the benchmark is `pope` unless the row names another."""
    del kind
    for place, _, row in jsonl.lines(origin):
        if isinstance(row, BadRow):
            yield row
            continue
        name = None
        try:
            name = identified(row, "question_id")
            yield _draft(origin, row, name, place)
        except BadFieldError as error:
            yield BadRow(origin.path, place, name, str(error))


def _draft(origin: Origin, row: dict[str, Any], name: str, place: str) -> Draft:
    question, answer = words(row, "text"), words(row, "label")
    benchmark = optional_words(row, "benchmark") or "pope"
    if benchmark == "pope":
        answer = answer.lower()
    if benchmark == "pope" and answer not in ("yes", "no"):
        raise BadFieldError('"label" of a pope question is neither yes nor no')
    picture = origin.picture(words(row, "image"))
    record = {
        "id": name,
        "group_id": group_of(row) or picture,
        "source": origin.path,
        "benchmark": benchmark,
        "question": question,
        "answer": answer,
        "subset": optional_words(row, "subset"),
        "novel": False,
    }
    return Draft(place, record, f"root:{picture}")
