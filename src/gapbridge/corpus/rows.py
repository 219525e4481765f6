"""Rows of named fields, as tables, JSON Lines and archives have them: which field is what, and the record they make."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, group_of, identified, words
from gapbridge.corpus.records import PICTURED

TEXT_FIELDS = ("text", "caption", "txt", "TEXT")
IMAGE_FIELDS = ("image", "image_path", "file_name", "jpg", "png", "jpeg", "webp")
ID_FIELDS = ("id", "key", "image_id")
"""What corpora call a text, a picture and a name, commonest first."""


class Embedded(NamedTuple):
    """A picture that stands in the row itself: how to find it again, and its bytes."""

    locator: str
    content: bytes


class Row(NamedTuple):
    """One row: where it stands (`captions.csv row 7`), what it is called where it has no id, and its fields."""

    place: str
    name: str
    fields: Mapping[str, Any]


def drafts(origin: Origin, kind: str, rows: Iterable[Row | BadRow]) -> Iterator[Draft | BadRow]:
    """A draft for each row of `text`, `language`, `image` or `pair`; a row without a group is one of its own.

    The fields are the origin's, or the first of TEXT_FIELDS, IMAGE_FIELDS and ID_FIELDS that a row has.
    """
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        name = None
        try:
            name = _name(row)
            yield _draft(origin, kind, row, name)
        except BadFieldError as error:
            yield BadRow(origin.path, row.place, name, str(error))


def first_of(fields: Mapping[str, Any], wanted: str | None, usual: tuple[str, ...]) -> str:
    """The field to read: the one that is `wanted`, or the first of the usual ones that is there."""
    return wanted or next((name for name in usual if fields.get(name) is not None), usual[0])


def _name(row: Row) -> str:
    field = first_of(row.fields, None, ID_FIELDS)
    return identified(dict(row.fields), field) if row.fields.get(field) is not None else row.name


def _draft(origin: Origin, kind: str, row: Row, name: str) -> Draft:
    fields = dict(row.fields)
    picture, group, content = None, f"{origin.path}#{name}", None
    if kind in PICTURED:
        picture, group, content = _picture(origin, fields)
    record: dict[str, Any] = {"id": name, "group_id": group_of(fields) or group, "source": origin.path}
    text = first_of(fields, origin.text_field, TEXT_FIELDS)
    if kind == "image":
        return Draft(
            row.place, {**record, "caption": words(fields, text) if origin.captions else None}, picture, content
        )
    record["text"] = words(fields, text)
    if kind == "language":
        record |= {"context": None, "turns": []}
    if kind == "pair":
        record["objects"] = None
    return Draft(row.place, record, picture, content)


def _picture(origin: Origin, fields: dict[str, Any]) -> tuple[str, str, bytes | None]:
    """Locator, group and bytes of the row's picture."""
    field = first_of(fields, origin.image_field, IMAGE_FIELDS)
    value = fields.get(field)
    if isinstance(value, Embedded):
        return value.locator, value.locator.partition(":")[2], value.content
    path = origin.picture(words(fields, field))
    return f"root:{path}", path, None
