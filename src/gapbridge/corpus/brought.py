"""Vectors brought along: a folder of them as a corpus of its own, or beside one, found by name or by place."""

from collections.abc import Iterable, Iterator
from typing import Any

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import (
    BadFieldError,
    BroughtVector,
    BroughtVectors,
    Draft,
    Origin,
    Side,
    group_of,
    identified,
    words,
)
from gapbridge.corpus.rows import TEXT_FIELDS, first_of
from gapbridge.errors import InputError

_SIDES: dict[str, tuple[Side, ...]] = {
    "text": ("texts",),
    "image": ("images",),
    "pair": ("images", "texts"),
    "dialogue": ("images",),
    "question": ("images",),
}
"""Of which sides a record of a kind needs a vector."""


def sides(kind: str) -> tuple[Side, ...]:
    """The sides of which records of `kind` need a vector."""
    return _SIDES.get(kind, ())


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, pictures or pairs (kinds `text`, `image`, `pair`) that are known by their vectors alone, one a vector.

    The id is the vector's name, the text that of the table beside; the group is id and source unless the table says.
    """
    vectors = _of(origin, sides(kind)[0])
    wanted = (origin.text_field,) if origin.text_field else TEXT_FIELDS
    for number, fields in enumerate(vectors.fields((*wanted, "group_id")), 1):
        place, name = f"{origin.path} vector {number}", None
        try:
            name = identified(fields)
            yield Draft(place, _record(origin, kind, name, fields))
        except BadFieldError as error:
            yield BadRow(origin.path, place, name, str(error))


def _record(origin: Origin, kind: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    record = {"id": name, "group_id": group_of(fields) or f"{origin.path}#{name}", "source": origin.path}
    if kind == "image" and not origin.captions:
        return {**record, "caption": None}
    text = words(fields, first_of(fields, origin.text_field, TEXT_FIELDS))
    return {**record, "caption" if kind == "image" else "text": text}


def attach(origin: Origin, kind: str, rows: Iterable[Draft | BadRow], by_place: bool) -> Iterator[Draft | BadRow]:
    """The rows with where their vectors lie; one without a vector of use is a bad row.

    Vectors with names are found by a record's id or its picture's name, others by place, as with `by_place`. A picture
    whose file is not there is known by its vector. Raises InputError where places do not match.
    """
    places, number = [vectors for vectors in (origin.vectors or {}).values() if by_place or not vectors.named], 0
    for number, row in enumerate(rows, 1):
        for vectors in places:
            _demand(origin, vectors, number <= vectors.rows, f"more than {vectors.rows}")
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield _attached(origin, kind, row, number - 1, by_place)
        except BadFieldError as error:
            yield BadRow(origin.path, row.place, row.record["id"], str(error))
    for vectors in places:
        _demand(origin, vectors, number == vectors.rows, str(number))


def _demand(origin: Origin, vectors: BroughtVectors, fits: bool, found: str) -> None:
    if not fits:
        raise InputError(
            f"sources.{origin.set_name}: {vectors.path} has {vectors.rows} vectors without names, {origin.path} has "
            f"{found} rows; give one vector a row, or names (a column id, key or image_path in metadata/)"
        )


def _attached(origin: Origin, kind: str, row: Draft, place: int, by_place: bool) -> Draft:
    record, picture = dict(row.record), row.picture
    for side in sides(kind):
        vector = _vector(_of(origin, side), row, place, by_place)
        if vector is None:
            raise BadFieldError(f"no vector of this row in {_of(origin, side).path}")
        if vector.reason:
            raise BadFieldError(vector.reason)
        record["image_vector" if side == "images" else "text_vector"] = vector.locator
        if side == "images" and not _is_there(origin, row):
            record["sha256"], picture = vector.sha256, None
    if kind == "dialogue" and record["context"] is not None and origin.vectors and "texts" in origin.vectors:
        context = _vector(origin.vectors["texts"], row, place, by_place)
        record["text_vector"] = None if context is None or context.reason else context.locator
    return Draft(row.place, record, picture, row.content)


def _vector(vectors: BroughtVectors, row: Draft, place: int, by_place: bool) -> BroughtVector | None:
    if by_place or not vectors.named:
        return vectors.at(place)
    picture = (row.picture or "").partition(":")[2].rpartition("#")[2]
    return vectors.find([picture, row.record["id"]] if picture else [row.record["id"]])


def _is_there(origin: Origin, row: Draft) -> bool:
    if row.content is not None:
        return True
    try:
        return row.picture is not None and (origin.root / row.picture.removeprefix("root:")).is_file()
    except OSError:  # too long a name
        return False


def _of(origin: Origin, side: Side) -> BroughtVectors:
    if origin.vectors is None or side not in origin.vectors:
        raise InputError(
            f"sources.{origin.set_name}: {origin.path} has no vectors of {side}; name a folder that holds some"
        )
    return origin.vectors[side]
