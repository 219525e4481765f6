"""Comma- or tab-separated tables with a header line."""

import csv
from collections.abc import Iterator

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.corpus.rows import ID_FIELDS, IMAGE_FIELDS, TEXT_FIELDS, Row, drafts
from gapbridge.errors import InputError

DELIMITERS = ",\t;|"
_LARGEST_FIELD = 1 << 24
"""A longer text is a quote that was never closed."""


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, words, pictures or pairs (`rows.drafts`), one a record of the table."""
    return drafts(origin, kind, rows(origin))


def rows(origin: Origin) -> Iterator[Row | BadRow]:
    """Every record by its line; the delimiter is the one that stands oftenest in the header.

    Raises InputError where the file cannot be read, has no header or two columns of one name, or a quote is
    never closed.
    """
    csv.field_size_limit(_LARGEST_FIELD)
    line = 1
    try:
        with origin.file().open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
            header = handle.readline()
            delimiter = max(DELIMITERS, key=header.count)
            names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
            if not any(names):
                raise InputError(f"{origin.path}: has no header; name the columns in its first line")
            read_fields = {*ID_FIELDS, *TEXT_FIELDS, *IMAGE_FIELDS, "group_id", origin.text_field, origin.image_field}
            if twice := next((name for name in names if name in read_fields and names.count(name) > 1), None):
                raise InputError(f"{origin.path}: has several columns {twice!r}; rename all but one")
            reader = csv.reader(handle, delimiter=delimiter, strict=True)
            for number, values in enumerate(reader, 1):
                line = reader.line_num + 1
                if values:
                    yield _row(origin, f"{origin.path} line {line}", number, names, values)
    except csv.Error as error:
        raise InputError(f"{origin.path} near line {line}: {error}; mend the quotes there") from error
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error


def _row(origin: Origin, place: str, number: int, names: list[str], values: list[str]) -> Row | BadRow:
    if len(values) != len(names):
        return BadRow(origin.path, place, None, f"{len(values)} fields in a table of {len(names)} columns")
    if any("\udc80" <= letter <= "\udcff" for value in values for letter in value if not value.isascii()):
        return BadRow(origin.path, place, None, "the row is not UTF-8")
    filled = {name: value for name, value in zip(names, values, strict=True) if value}
    return Row(place, f"row-{number:09d}", filled)
