"""How many rows a source has, as exactly as can be had without reading all of it."""

import json
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from gapbridge.corpus.origin import Origin
from gapbridge.corpus.pictures import SUFFIXES
from gapbridge.corpus.saved import STATE_FILE

_WHOLE_BYTES = 1 << 28
"""A file up to this size is gone through, of a larger one this much."""
_CHUNK_BYTES = 1 << 22
_OVERLAP_BYTES = 64
_TABLES = (".csv", ".tsv")
_ROW_KEYS = {"llava": rb'"conversations"\s*:', "internvl": rb'"conversations"\s*:'}
"""What stands once in every row of a JSON list."""


@dataclass(frozen=True)
class Count:
    """Rows, and whether they were counted or follow from a part and the size."""

    rows: int
    exact: bool


def count_rows(origin: Origin, file_format: str) -> Count | None:
    """The rows of a source that is there; None where only reading it would tell."""
    place = origin.place()
    if file_format == "embeddings" and origin.vectors:
        return Count(next(iter(origin.vectors.values())).rows, exact=True)
    if file_format in _ROW_KEYS:
        return _of_json(origin, place, file_format)
    if file_format == "unpaired":
        key = rb'"image"\s*:' if origin.set_name == "images" else rb'"text"\s*:'
        return _occurrences(place, re.compile(key))
    if file_format == "folder":
        return Count(sum(1 for path in place.rglob("*") if path.suffix.lower() in SUFFIXES), exact=True)
    if file_format == "webdataset":
        return _of_tars(place)
    if file_format == "datasets":
        return _of_saved(place)
    if tables := _below(place, (".parquet", ".pq")):
        return Count(sum(pyarrow.parquet.read_metadata(table).num_rows for table in tables), exact=True)
    lines = [place] if place.is_file() else _below(place, (".jsonl", *_TABLES))
    if lines and file_format in ("jsonl", "csv", "lines", "pope", "imagefolder"):
        return _sum([_lines(file) for file in lines])
    return None


def _of_json(origin: Origin, place: Path, file_format: str) -> Count:
    pattern = re.compile(_ROW_KEYS[file_format])
    if file_format == "llava":
        return _occurrences(place, pattern)
    sets = json.loads(place.read_text(encoding="utf-8-sig"))
    counts = []
    for entry in sets.values():
        one = _occurrences(origin.root / entry["annotation"], pattern)
        counts.append(Count(round(one.rows * float(entry.get("repeat_time", 1))), one.exact))
    return _sum(counts)


def _occurrences(file: Path, pattern: re.Pattern[bytes]) -> Count:
    """How often the pattern stands in a file, by its beginning where it is large."""
    found, rest = 0, b""

    def look(chunk: bytes) -> None:
        nonlocal found, rest
        text = rest + chunk
        ends = [match.end() for match in pattern.finditer(text)]
        found += len(ends)
        rest = text[max([0, len(text) - _OVERLAP_BYTES, *ends[-1:]]) :]

    seen = _through(file, look)
    return _scaled(found, seen, file)


def _lines(file: Path) -> Count:
    """Lines of a file, the header of a table left out; a line break inside quotes counts as one."""
    found, last = 0, b""

    def look(chunk: bytes) -> None:
        nonlocal found, last
        found, last = found + chunk.count(b"\n"), chunk[-1:]

    seen = _through(file, look)
    header = file.suffix.lower() in _TABLES
    count = _scaled(found + (last != b"\n"), seen, file)
    return Count(max(0, count.rows - header), count.exact and not header)


def _through(file: Path, look: Callable[[bytes], None]) -> int:
    """Hand out the first `_WHOLE_BYTES`; gives back how many there were."""
    seen = 0
    with file.open("rb") as handle:
        while seen < _WHOLE_BYTES and (chunk := handle.read(_CHUNK_BYTES)):
            seen += len(chunk)
            look(chunk)
    return seen


def _scaled(found: int, seen: int, file: Path) -> Count:
    size = file.stat().st_size
    return Count(found, exact=True) if seen >= size else Count(round(found * size / seen), exact=False)


def _of_tars(place: Path) -> Count:
    """Samples of the first archive, and of the others by their size."""
    tars = [place] if place.is_file() else _below(place, (".tar",))
    with tarfile.open(tars[0], "r:") as archive:
        first = len({member.name.partition(".")[0] for member in archive if member.isfile()})
    size = sum(tar.stat().st_size for tar in tars)
    return Count(round(first * size / max(1, tars[0].stat().st_size)), exact=len(tars) == 1)


def _of_saved(place: Path) -> Count | None:
    """Rows by the headers of the Arrow files; None where it is no dataset."""
    try:
        named = [
            place / str(entry["filename"]) for entry in json.loads((place / STATE_FILE).read_bytes())["_data_files"]
        ]
        return Count(sum(map(_arrow_rows, named)), exact=True)
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException):
        return None


def _arrow_rows(file: Path) -> int:
    with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
        return sum(batch.num_rows for batch in stream)


def _below(place: Path, suffixes: Sequence[str]) -> list[Path]:
    if place.is_file():
        return [place] if place.suffix.lower() in suffixes else []
    return sorted(path for path in place.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def _sum(counts: Sequence[Count]) -> Count:
    return Count(sum(count.rows for count in counts), all(count.exact for count in counts))
