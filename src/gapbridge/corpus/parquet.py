"""Parquet tables, one file or a folder of them: texts, pictures as bytes or as paths, or both."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from gapbridge import artifacts
from gapbridge.corpus import columns
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.corpus.rows import Embedded, Row, drafts
from gapbridge.errors import InputError

_BUFFER_BYTES = 1 << 20


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, words, pictures or pairs (`rows.drafts`); only the columns that are needed are read, batch by batch."""
    return drafts(origin, kind, needed_rows(origin, kind))


class TableRow(NamedTuple):
    """A row with all its columns: where it stands, a name for one that has no id, its fields, and its pictures."""

    place: str
    name: str
    fields: dict[str, Any]
    pictures: dict[str, Embedded]
    """By column, in the order asked for; columns that are null in this row are left out."""


def rows(origin: Origin, image_columns: Sequence[str], prefix: str = "") -> Iterator[TableRow | BadRow]:
    """Every row of a table, or of those in a folder whose names begin with `prefix` (`validation-`), sorted by path.

    `image_columns` hold pictures as `datasets` writes them (`{bytes, path}`) or as bytes; other columns of pictures are
    not read. Columns that a table lacks are missing from `fields` and `pictures`. Raises InputError where there is no
    such file, where one is no parquet table, or where none of the `image_columns` is in it.
    """
    every, is_folder = files(origin, (".parquet", ".pq")), origin.place().is_dir()
    found = [file for file, name in every if not is_folder or Path(name).name.startswith(prefix)]
    if not found:
        raise InputError(
            f"sources.{origin.set_name}.path: {origin.path} holds no parquet file whose name begins with"
            f" {prefix!r}; name another folder or file"
        )
    for file in found:
        path = columns.fit_path(origin.relative(file))
        try:
            with open_table(file) as table:
                schema = table.schema_arrow
                pictured = [name for name in image_columns if name in schema.names]
                if not pictured:
                    raise InputError(columns.missing_columns(origin, path, image_columns, schema))
                kept = [field.name for field in schema if field.name in pictured or not columns.holds_pictures(field)]
                batches = table.iter_batches(columns.BATCH_ROWS, columns=kept)
                yield from _table_rows(origin, path, pictured, batches)
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(_damaged(path, error)) from error


def _table_rows(
    origin: Origin, path: str, pictured: Sequence[str], batches: Iterator[pyarrow.RecordBatch]
) -> Iterator[TableRow | BadRow]:
    number = 0
    for batch in batches:
        for fields in columns.values(batch):
            place = f"{path} row {number + 1}"
            if fields is None:
                yield BadRow(origin.path, place, None, columns.UNREADABLE)
            else:
                held = {name: _bytes(fields.pop(name)) for name in pictured}
                pictures = {
                    name: Embedded(f"rows:{path}#{name}#{number}", content)
                    for name, content in held.items()
                    if content is not None
                }
                yield TableRow(place, f"{path}#{number:09d}", fields, pictures)
            number += 1


def _bytes(value: bytes | Mapping[str, Any] | None) -> bytes | None:
    content = value.get("bytes") if isinstance(value, Mapping) else value
    return content if isinstance(content, bytes) else None


def needed_rows(origin: Origin, kind: str) -> Iterator[Row | BadRow]:
    """Every row of the tables, as far as records of `kind` need its columns."""
    for file, _ in files(origin, (".parquet", ".pq")):
        path = columns.fit_path(origin.relative(file))
        try:
            with open_table(file) as table:
                names = columns.needed(origin, kind, table.schema_arrow)
                batches = table.iter_batches(columns.BATCH_ROWS, columns=names)
                yield from columns.rows(origin, kind, path, batches)
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(_damaged(path, error)) from error


def _damaged(path: str, error: Exception) -> str:
    return f"{path}: no parquet table, or a damaged one ({' '.join(str(error).split())}); copy it again"


def open_table(file: Path) -> pyarrow.parquet.ParquetFile:
    """The table, read through a small buffer, which halves the memory that a group of rows takes."""
    return pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)


def files(origin: Origin, suffixes: Sequence[str], refused: Sequence[str] = ()) -> list[tuple[Path, str]]:
    """The file itself, or those with these suffixes in the folder: resolved, and as they are called below it, sorted.

    Raises InputError where there are none, where one leaves the root, or where one has a `refused` suffix.
    """
    found = origin.place()
    if not found.is_dir():
        return [(found, found.name)]
    below = sorted((path for path in found.rglob("*") if path.is_file()), key=lambda path: path.as_posix())
    for path in below:
        if path.name.lower().endswith(tuple(refused)):
            raise InputError(f"{origin.path}/{path.relative_to(found).as_posix()}: is compressed; unpack it first")
    kept = [path for path in below if path.name.lower().endswith(tuple(suffixes))]
    if not kept:
        raise InputError(
            f"sources.{origin.set_name}.path: {origin.path} holds no {suffixes[0]} file; name another folder"
        )
    return [(artifacts.inside(origin.root, path), path.relative_to(found).as_posix()) for path in kept]
