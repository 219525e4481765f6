"""Columns of Arrow data, whatever file they stand in, as rows of named fields."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Origin, unfit_name
from gapbridge.corpus.records import PICTURED
from gapbridge.corpus.rows import ID_FIELDS, IMAGE_FIELDS, TEXT_FIELDS, Embedded, Row
from gapbridge.errors import InputError

BATCH_ROWS = 256
"""Pictures of so many rows are in memory at once."""
UNREADABLE = "the row holds what is no text or number"
"""Why a row is bad that Arrow cannot turn into Python values."""


def needed(origin: Origin, kind: str, schema: pyarrow.Schema) -> list[str]:
    """The columns that records of `kind` are made of. Raises InputError where the text or the picture is missing."""
    texts = _there(origin, "text_field", origin.text_field, TEXT_FIELDS, schema)
    images = _there(origin, "image_field", origin.image_field, IMAGE_FIELDS, schema)
    if kind in PICTURED and not images:
        raise InputError(_missing(origin, "pictures", "image_field", schema))
    if not texts and (kind in ("text", "language", "pair") or (kind == "image" and origin.captions)):
        raise InputError(_missing(origin, "texts", "text_field", schema))
    names = [*(name for name in ID_FIELDS if name in schema.names), *texts]
    names += ["group_id"] if "group_id" in schema.names else []
    names += images[:1] if kind in PICTURED else []
    if twice := next((name for name in names if schema.names.count(name) > 1), None):
        raise InputError(f"{origin.path}: has several columns {twice!r}; rename all but one")
    return list(dict.fromkeys(names))


def rows(origin: Origin, kind: str, path: str, batches: Iterable[pyarrow.RecordBatch]) -> Iterator[Row | BadRow]:
    """Rows of the file at `path` (relative to the root); embedded pictures are located by column and row."""
    pictured = {name for name in (*IMAGE_FIELDS, origin.image_field) if name is not None} if kind in PICTURED else set()
    place = 0
    for batch in batches:
        if kind in PICTURED:
            _demand_pictures(origin, batch.schema)
        for fields in values(batch):
            if fields is None:
                yield BadRow(origin.path, f"{path} row {place + 1}", None, UNREADABLE)
            else:
                yield _row(origin, path, place, fields, pictured)
            place += 1


def values(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """The rows as Python values; None for one that has none, such as a text that is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except (UnicodeDecodeError, OverflowError, ValueError):
        for row in range(batch.num_rows):
            try:
                yield batch.slice(row, 1).to_pylist()[0]
            except (UnicodeDecodeError, OverflowError, ValueError):
                yield None


def _row(origin: Origin, path: str, number: int, fields: dict[str, Any], pictured: set[str]) -> Row | BadRow:
    place = f"{path} row {number + 1}"
    for name in pictured & fields.keys():
        value = fields[name]
        held = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(held, bytes):
            fields[name] = Embedded(f"rows:{path}#{name}#{number}", held)
        elif isinstance(value, dict):
            if value.get("path") is not None and not origin.takes_paths:
                folder = f"sources.{origin.set_name}.images"
                reason = f"the picture is not in the table, only its path; name its folder in {folder}"
                return BadRow(origin.path, place, None, reason)
            fields[name] = value.get("path")
    known = {name: value for name, value in fields.items() if value is not None}
    return Row(place, f"{path}#{number:09d}" if path != origin.path else f"row-{number + 1:09d}", known)


def _demand_pictures(origin: Origin, schema: pyarrow.Schema) -> None:
    """A column of paths needs the folder that they are in."""
    for name in {*IMAGE_FIELDS, origin.image_field} & set(schema.names):
        if _holds_strings(schema.field(name).type) and not origin.takes_paths:
            raise InputError(
                f"sources.{origin.set_name}.path: the column {name!r} of {origin.path} holds paths, not pictures; "
                f"name their folder in sources.{origin.set_name}.images"
            )


def _holds_strings(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _there(origin: Origin, key: str, wanted: str | None, usual: tuple[str, ...], schema: pyarrow.Schema) -> list[str]:
    if wanted is None:
        return [name for name in usual if name in schema.names]
    if wanted not in schema.names:
        raise InputError(
            f"sources.{origin.set_name}.{key}: {origin.path} has no column {wanted!r}, but {_shown(schema)}"
        )
    return [wanted]


def _missing(origin: Origin, what: str, key: str, schema: pyarrow.Schema) -> str:
    return (
        f"sources.{origin.set_name}.path: {origin.path} has no column of {what}, but {_shown(schema)}; "
        f"name one in sources.{origin.set_name}.{key}"
    )


def holds_pictures(field: pyarrow.Field) -> bool:
    """Whether a column holds pictures (or any bytes), as `datasets` or others write them."""
    types, kind = pyarrow.types, field.type
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def missing_columns(origin: Origin, path: str, wanted: Iterable[str], schema: pyarrow.Schema) -> str:
    """What to say of a table without the columns that a format needs."""
    return (
        f"sources.{origin.set_name}.path: {path} has no column {' or '.join(map(repr, wanted))}, but"
        f" {_shown(schema)}; name the file or folder of that benchmark"
    )


def _shown(schema: pyarrow.Schema) -> str:
    return ", ".join(schema.names[:12]) or "none at all"


def fit_path(path: str) -> str:
    """`path` as a locator can hold it. Raises InputError for one with a #, a line break, or what is not UTF-8."""
    if "#" in path or unfit_name(path):
        raise InputError(f"{path!r}: {unfit_name(path) or 'the name holds a #'}; rename the file")
    return path
