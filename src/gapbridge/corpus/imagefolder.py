"""Hugging Face's imagefolder: pictures beside `metadata.jsonl`, `.csv` or `.parquet` with `file_name` and a text."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gapbridge.corpus import jsonl, parquet, table
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, shown_name
from gapbridge.corpus.pictures import SUFFIXES
from gapbridge.corpus.records import PICTURED
from gapbridge.corpus.rows import Row, drafts
from gapbridge.errors import InputError

METADATA: dict[str, Callable[[Origin, str], Iterator[Row | BadRow]]] = {
    "metadata.jsonl": lambda origin, _: jsonl.rows(origin),
    "metadata.csv": lambda origin, _: table.rows(origin),
    "metadata.parquet": parquet.needed_rows,
}


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Pictures or pairs, or the texts alone; `file_name` is relative to the folder.

    A picture that no row names is a bad row, except where texts alone are wanted.
    """
    folder = origin.folder()
    name = next((name for name in METADATA if (folder / name).is_file()), None)
    if name is None:
        raise InputError(
            f"sources.{origin.set_name}.path: {origin.path} has no {' or '.join(METADATA)}; "
            "use format folder for pictures alone"
        )
    field = origin.image_field or "file_name"
    inner = replace(origin, path=f"{origin.path}/{name}", images=origin.path, image_field=field)
    named: set[str] = set()
    yield from drafts(inner, kind, _noted(METADATA[name](inner, kind), field, named))
    if kind in PICTURED:
        for path in _pictures(folder):
            if path not in named:
                shown = shown_name(path)
                yield BadRow(origin.path, f"{origin.path}/{shown}", shown, f"no row of {name} names the picture")


def _noted(rows: Iterable[Row | BadRow], field: str, named: set[str]) -> Iterator[Row | BadRow]:
    """The rows, and in `named` the pictures that they speak of."""
    for row in rows:
        if isinstance(row, Row):
            named.add(PurePosixPath(str(row.fields.get(field))).as_posix())
        yield row


def _pictures(folder: Path) -> list[str]:
    """The pictures below `folder`, by name; what begins with a dot is left out, as are links to folders."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
