"""JSON Lines, an object a line: `{"text", "id"?, "group_id"?}`, or DenseFusion's `{"image_path", "caption"}`."""

import json
import re
from collections.abc import Iterator
from typing import Any

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.corpus.rows import Row, drafts
from gapbridge.errors import InputError

_ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*(\{|$)")
"""How a file begins that is one array of objects, over one line or many."""


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, words for a language model, pictures or pairs (`rows.drafts`); its line names a row without an id."""
    return drafts(origin, kind, rows(origin))


def lines(origin: Origin) -> Iterator[tuple[str, int, dict[str, Any] | BadRow]]:
    """Place, line number (from 1) and object of every line that is not blank.

    Raises InputError when the file cannot be opened, or is one JSON array.
    """
    path = origin.file()
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if number == 1 and _ARRAY.match(line) and not (line.rstrip().endswith(b"]") and handle.peek(1)):
                    raise InputError(f"{origin.path}: is one JSON array, not an object a line; set format to llava?")
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


def rows(origin: Origin) -> Iterator[Row | BadRow]:
    """Every line as a row, called by its number where it has no id."""
    for place, number, row in lines(origin):
        yield row if isinstance(row, BadRow) else Row(place, f"line-{number:09d}", row)
