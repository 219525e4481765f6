"""Plain text, one text a line."""

from collections.abc import Iterator

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.corpus.rows import Row, drafts
from gapbridge.errors import InputError


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts or words for a language model; a text is named by its line, blank lines are passed over."""
    return drafts(origin, kind, _rows(origin))


def _rows(origin: Origin) -> Iterator[Row | BadRow]:
    try:
        with origin.file().open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    yield _row(origin, number, line)
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error


def _row(origin: Origin, number: int, line: bytes) -> Row | BadRow:
    place = f"{origin.path} line {number}"
    try:
        return Row(place, f"line-{number:09d}", {origin.text_field or "text": line.decode("utf-8-sig")})
    except UnicodeDecodeError:
        return BadRow(origin.path, place, None, "the line is not UTF-8")
