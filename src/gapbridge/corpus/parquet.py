"""Parquet tables, one file or a folder of them: texts, pictures as bytes or as paths, or both."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from gapbridge.corpus import columns
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.corpus.rows import Row, drafts
from gapbridge.errors import InputError


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, words, pictures or pairs (`rows.drafts`); only the columns that are needed are read, batch by batch."""
    return drafts(origin, kind, _rows(origin, kind))


def _rows(origin: Origin, kind: str) -> Iterator[Row | BadRow]:
    for file in files(origin, "*.parquet"):
        path = columns.fit_path(origin.relative(file))
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                names = columns.needed(origin, kind, table.schema_arrow)
                batches = table.iter_batches(columns.BATCH_ROWS, columns=names)
                yield from columns.rows(origin, kind, path, batches)
        except (OSError, pyarrow.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: no parquet table, or a damaged one ({reason}); copy it again") from error


def files(origin: Origin, pattern: str) -> list[Path]:
    """The file itself, or those in the folder, sorted. Raises InputError where there are none."""
    found = origin.place()
    if found.is_file():
        return [found]
    inside = sorted(path.resolve() for path in found.rglob(pattern) if path.is_file())
    if not inside:
        raise InputError(f"sources.{origin.set_name}.path: {origin.path} holds no {pattern}; name another folder")
    return inside
