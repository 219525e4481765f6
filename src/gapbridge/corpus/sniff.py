"""Which format a user's file or folder is in, by its content."""

import json
from pathlib import Path

from gapbridge.corpus.imagefolder import METADATA
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.pictures import SUFFIXES
from gapbridge.corpus.saved import SPLITS_FILE, STATE_FILE
from gapbridge.errors import InputError

_HEAD_BYTES = 1 << 16
_TAR_MAGIC = slice(257, 262)


def sniff(origin: Origin) -> str:
    """The name of the format. Raises InputError where nothing in the file or folder tells it."""
    place = origin.place()
    found = _of_folder(place) if place.is_dir() else _of_file(place, _head(origin, place))
    if found is None:
        raise InputError(
            f"sources.{origin.set_name}: {origin.path} is in no format that is known; name it in "
            f"sources.{origin.set_name}.format (docs/data.md has them)"
        )
    return found


def _head(origin: Origin, file: Path) -> bytes:
    try:
        with file.open("rb") as handle:
            return handle.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error


def _of_folder(folder: Path) -> str | None:
    names = {path.name for path in folder.iterdir()}
    if {STATE_FILE, SPLITS_FILE} & names:
        return "datasets"
    if set(METADATA) & names:
        return "imagefolder"
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if suffix == ".tar":
            return "webdataset"
        if suffix == ".parquet":
            return "parquet"
        if suffix in SUFFIXES:
            return "folder"
    return None


def _of_file(file: Path, head: bytes) -> str | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[_TAR_MAGIC] == b"ustar":
        return "webdataset"
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if text.startswith("["):
        return "llava"
    if text.startswith("{"):
        return _of_json(text)
    if file.suffix.lower() in (".csv", ".tsv"):
        return "csv"
    return "lines" if text and "\0" not in text else None


def _of_json(text: str) -> str | None:
    """One object a line, or one object that holds sets or lists."""
    try:
        row = json.loads(text.partition("\n")[0])
    except ValueError:
        row = None
    if isinstance(row, dict) and not any(isinstance(value, dict) for value in row.values()):
        if "conversations" in row:
            return "llava"
        if {"images", "texts"} <= set(row):
            return "unpaired"
        return "pope" if {"question_id", "label"} <= set(row) else "jsonl"
    keys = [key for key in ('"annotation"', '"images"', '"texts"') if key in text]
    if '"annotation"' in keys:
        return "internvl"
    return "unpaired" if keys else None
