"""Parquet tables, one file or a folder of them: texts, pictures as bytes or as paths, or both."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from gapbridge import artifacts
from gapbridge.corpus import columns
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.corpus.rows import Row, drafts
from gapbridge.errors import InputError

_BUFFER_BYTES = 1 << 20


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, words, pictures or pairs (`rows.drafts`); only the columns that are needed are read, batch by batch."""
    return drafts(origin, kind, rows(origin, kind))


def rows(origin: Origin, kind: str) -> Iterator[Row | BadRow]:
    """Every row of the tables, as far as records of `kind` need its columns."""
    for file, _ in files(origin, (".parquet", ".pq")):
        path = columns.fit_path(origin.relative(file))
        try:
            with open_table(file) as table:
                names = columns.needed(origin, kind, table.schema_arrow)
                batches = table.iter_batches(columns.BATCH_ROWS, columns=names)
                yield from columns.rows(origin, kind, path, batches)
        except (OSError, pyarrow.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: no parquet table, or a damaged one ({reason}); copy it again") from error


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
