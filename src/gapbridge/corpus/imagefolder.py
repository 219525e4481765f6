"""Hugging Face's imagefolder: pictures beside `metadata.jsonl`, `.csv` or `.parquet` with `file_name` and a text."""

from collections.abc import Iterator
from dataclasses import replace

from gapbridge.corpus import jsonl, parquet, table
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.errors import InputError

METADATA = {"metadata.jsonl": jsonl.read, "metadata.csv": table.read, "metadata.parquet": parquet.read}


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Pictures or pairs, or the texts alone; `file_name` is relative to the folder."""
    folder = origin.folder()
    name = next((name for name in METADATA if (folder / name).is_file()), None)
    if name is None:
        raise InputError(
            f"sources.{origin.set_name}.path: {origin.path} has no {' or '.join(METADATA)}; "
            "use format folder for pictures alone"
        )
    inner = replace(
        origin, path=f"{origin.path}/{name}", images=origin.path, image_field=origin.image_field or "file_name"
    )
    return METADATA[name](inner, kind)
