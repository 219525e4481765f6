"""From a user's files to checked records: read, refuse second uses of an id, look into every picture once."""

from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from gapbridge.corpus import (
    brought,
    folder,
    imagefolder,
    internvl,
    jsonl,
    lines,
    llava,
    parquet,
    pope,
    saved,
    table,
    unpaired,
    webdataset,
)
from gapbridge.corpus.inspection import MISSING, PictureFacts, inspect, inspect_content
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, Reader
from gapbridge.corpus.pictures import BadPictureError
from gapbridge.corpus.quarantine import Quarantine
from gapbridge.corpus.records import PICTURED
from gapbridge.errors import InputError

_TEXTS = frozenset({"text", "language"})
_ALL = frozenset({"text", "language", "image", "pair"})
_QUESTIONS = frozenset({"question"})
READERS: dict[str, tuple[Reader, frozenset[str]]] = {
    "jsonl": (jsonl.read, _ALL),
    "csv": (table.read, _ALL),
    "lines": (lines.read, _TEXTS),
    "parquet": (parquet.read, _ALL),
    "datasets": (saved.read, _ALL),
    "folder": (folder.read, frozenset({"image"})),
    "imagefolder": (imagefolder.read, _ALL),
    "webdataset": (webdataset.read, _ALL),
    "llava": (llava.read, _ALL | {"dialogue"}),
    "internvl": (internvl.read, _ALL | {"dialogue"}),
    "unpaired": (unpaired.read, frozenset({"text", "language", "image"})),
    "pope": (pope.read, _QUESTIONS),
    "embeddings": (brought.read, frozenset({"text", "image", "pair"})),
}
"""Each format's reader and the kinds of record that it gives."""

_BATCH_ROWS = 256


def gather(
    origin: Origin,
    file_format: str,
    kind: str,
    max_pixels: int,
    threads: int = 2,
    benchmarks: Mapping[str, Reader] = MappingProxyType({}),
) -> Iterator[dict[str, Any] | BadRow]:
    """Good records and bad rows of one source, in the order of the source.

    `benchmarks` are further formats, which give questions. `max_pixels` bounds width × height of a picture. Raises
    InputError when the source as a whole cannot be read or the format does not give records of `kind`.
    """
    readers = READERS | {name: (reader, _QUESTIONS) for name, reader in benchmarks.items()}
    reader, kinds = readers[file_format]
    if kind not in kinds:
        fitting = " or ".join(sorted(name for name, (_, gives) in readers.items() if kind in gives))
        raise InputError(f"sources.{origin.set_name}.format: {file_format} gives no {kind} records; use {fitting}")
    drafts = _first_uses(origin, _own_names(origin, reader(origin, kind), benchmarks.keys() - {file_format}))
    if origin.vectors is not None:
        drafts = brought.attach(origin, kind, drafts, by_place=file_format == "embeddings")
    if kind in PICTURED:
        drafts = _with_pictures(origin, drafts, max_pixels, threads)
    for row in tqdm(drafts, desc=f"ingest {origin.set_name}", unit=" rows", mininterval=1):
        yield row if isinstance(row, BadRow) else row.record


def stop_if_too_bad(set_name: str, good: int, bad: Quarantine, max_bad_fraction: float, table: Path) -> None:
    """Raise InputError when more than `max_bad_fraction` of the rows are bad.

    Its line says the commonest reason, the first place where it stands, the counts, and the quarantine `table`.
    """
    rows = good + bad.rows
    if not bad.rows or bad.rows <= max_bad_fraction * rows:
        return
    reason, count = bad.reasons.most_common(1)[0]
    remedy = f"; sources.{set_name}.images names the folder where it is looked for" if reason == MISSING else ""
    raise InputError(
        f"{bad.first[reason]}: {reason} ({count} such rows; in all {bad.rows} of the {rows} rows of {set_name} are bad"
        f" and stand in {table}, ingest.max_bad_fraction allows {max_bad_fraction:g}){remedy}"
    )


def _first_uses(origin: Origin, rows: Iterable[Draft | BadRow]) -> Iterator[Draft | BadRow]:
    seen: set[str] = set()
    for row in rows:
        if isinstance(row, Draft):
            name = row.record["id"]
            if name in seen:
                yield BadRow(origin.path, row.place, name, "the id was used before")
                continue
            seen.add(name)
        yield row


def _own_names(origin: Origin, rows: Iterable[Draft | BadRow], taken: Set[str]) -> Iterator[Draft | BadRow]:
    """The rows; a question that calls itself one of a published benchmark that it was not read as is a bad one."""
    for row in rows:
        name = row.record.get("benchmark") if isinstance(row, Draft) else None
        if isinstance(row, Draft) and name in taken:
            reason = f"{name} is a published benchmark; read its own files with `format: {name}`, or use another name"
            yield BadRow(origin.path, row.place, row.record["id"], reason)
        else:
            yield row


def _with_pictures(
    origin: Origin, rows: Iterator[Draft | BadRow], max_pixels: int, threads: int
) -> Iterator[Draft | BadRow]:
    """The rows with the facts of their pictures; each distinct file is decoded once, the order stays."""
    known: dict[str, PictureFacts | str] = {}

    def look(draft: Draft) -> PictureFacts | str:
        try:
            if draft.content is not None:
                return inspect_content(draft.content, max_pixels)
            return inspect(origin.root / str(draft.picture).removeprefix("root:"), max_pixels)
        except BadPictureError as error:
            return str(error)

    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(rows, _BATCH_ROWS)):
            drafts = {row.picture: row for row in batch if isinstance(row, Draft) and row.picture is not None}
            unknown = {picture: draft for picture, draft in drafts.items() if picture not in known}
            known.update(zip(unknown, pool.map(look, unknown.values()), strict=True))
            for row in batch:
                yield row if isinstance(row, BadRow) else _pictured(origin, row, known)


def _pictured(origin: Origin, draft: Draft, known: dict[str, PictureFacts | str]) -> Draft | BadRow:
    if draft.picture is None and draft.record.get("image_vector"):
        return draft
    if draft.picture is None:
        raise AssertionError(f"{draft.place}: a record with a picture was drafted without one")
    facts = known[draft.picture]
    if isinstance(facts, str):
        return BadRow(origin.path, draft.place, draft.record["id"], facts)
    return Draft(draft.place, {**draft.record, "image": draft.picture, **asdict(facts)}, draft.picture)
