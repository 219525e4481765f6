"""JSON Lines: one object a line. As a source of its own it holds texts: `{"text", "id"?, "group_id"?}`."""

import json
from collections.abc import Iterator
from typing import Any

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, group_of, identified, words
from gapbridge.errors import InputError


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts (kind `text`), or the same for a language model (kind `language`).

    A row without an id is named after its line, and is its own group unless it says otherwise.
    """
    for place, number, row in lines(origin):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield Draft(place, _record(origin, kind, row, number))
        except BadFieldError as error:
            yield BadRow(origin.path, place, _named(row, "id"), str(error))


def lines(origin: Origin) -> Iterator[tuple[str, int, dict[str, Any] | BadRow]]:
    """Place, line number (from 1) and object of every line that is not blank.

    Raises InputError when the file cannot be opened.
    """
    path = origin.file()
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    place = f"{origin.path} line {number}"
                    yield place, number, _parsed(origin, place, line)
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error


def _parsed(origin: Origin, place: str, line: bytes) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return BadRow(origin.path, place, None, "the line is not UTF-8")
    except (ValueError, RecursionError):
        return BadRow(origin.path, place, None, "the line does not parse as JSON")
    if not isinstance(row, dict):
        return BadRow(origin.path, place, None, "the line is not a JSON object")
    return row


def _record(origin: Origin, kind: str, row: dict[str, Any], number: int) -> dict[str, Any]:
    text = words(row, "text")
    name = identified(row) if row.get("id") is not None else f"line-{number:09d}"
    group = group_of(row) or f"{origin.path}#{name}"
    record = {"id": name, "group_id": group, "source": origin.path, "text": text}
    return record if kind == "text" else {**record, "context": None, "turns": []}


def _named(row: dict[str, Any], key: str) -> str | None:
    """The id of a bad row, as far as it has one."""
    try:
        return identified(row, key)
    except BadFieldError:
        return None
