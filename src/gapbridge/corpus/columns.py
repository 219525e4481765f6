"""Columns of Arrow data, whatever file they stand in, as rows of named fields."""

from collections.abc import Iterable, Iterator

import pyarrow

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Origin, unfit_name
from gapbridge.corpus.records import PICTURED
from gapbridge.corpus.rows import ID_FIELDS, IMAGE_FIELDS, TEXT_FIELDS, Embedded, Row
from gapbridge.errors import InputError

BATCH_ROWS = 256
"""Pictures of so many rows are in memory at once."""


def needed(origin: Origin, kind: str, schema: pyarrow.Schema) -> list[str]:
    """The columns that records of `kind` are made of. Raises InputError where the text or the picture is missing."""
    texts = _there(origin, "text_field", origin.text_field, TEXT_FIELDS, schema)
    images = _there(origin, "image_field", origin.image_field, IMAGE_FIELDS, schema)
    if kind in PICTURED and not images:
        raise InputError(_missing(origin, "pictures", "image_field", schema))
    if not texts and (kind in ("text", "language", "pair") or (kind == "image" and origin.captions)):
        raise InputError(_missing(origin, "texts", "text_field", schema))
    names = [*(name for name in ID_FIELDS if name in schema.names), *texts[:1]]
    names += ["group_id"] if "group_id" in schema.names else []
    return names + (images[:1] if kind in PICTURED else [])


def rows(
    origin: Origin, kind: str, path: str, batches: Iterable[pyarrow.RecordBatch], first: int = 0
) -> Iterator[Row | BadRow]:
    """Rows of the file at `path` (relative to the root); embedded pictures are located by column and row."""
    place = first
    for batch in batches:
        if kind in PICTURED:
            _demand_pictures(origin, batch.schema)
        for fields in batch.to_pylist():
            yield _row(origin, path, place, fields)
            place += 1


def _row(origin: Origin, path: str, number: int, fields: dict[str, object]) -> Row | BadRow:
    place = f"{path} row {number + 1}"
    for name, value in fields.items():
        held = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(held, bytes):
            fields[name] = Embedded(f"rows:{path}#{name}#{number}", held)
        elif isinstance(value, dict):
            fields[name] = value.get("path")
    return Row(place, f"{path}#{number:09d}" if path != origin.path else f"row-{number + 1:09d}", fields)


def _demand_pictures(origin: Origin, schema: pyarrow.Schema) -> None:
    """A column of paths needs the folder that they are in."""
    for name in {*IMAGE_FIELDS, origin.image_field} & set(schema.names):
        if _holds_strings(schema.field(name).type) and origin.images is None:
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


def _shown(schema: pyarrow.Schema) -> str:
    return ", ".join(schema.names[:12]) or "none at all"


def fit_path(path: str) -> str:
    """`path` as a locator can hold it. Raises InputError for one with a # or a line break."""
    if "#" in path or unfit_name(path):
        raise InputError(f"{path!r}: the name holds a # or a line break; rename the file")
    return path
