"""Which format a user's file or folder is in, by its content."""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

from gapbridge.corpus.imagefolder import METADATA
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.pictures import SUFFIXES
from gapbridge.corpus.saved import SPLITS_FILE, STATE_FILE
from gapbridge.errors import InputError

_HEAD_BYTES = 1 << 16
_LINE_BYTES = 1 << 24


def sniff(origin: Origin) -> str:
    """The name of the format. Raises InputError where nothing in the file or folder tells it."""
    place = origin.place()
    try:
        if place.is_dir():
            found = _of_folder(place)
        elif place.is_file():
            found = _of_file(origin, place)
        else:
            raise InputError(f"sources.{origin.set_name}.path: {origin.path} is neither a file nor a folder")
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error
    if found is None:
        raise InputError(
            f"sources.{origin.set_name}: {origin.path} is in no format that is known; name it in "
            f"sources.{origin.set_name}.format (docs/data.md has them)"
        )
    return found


def _of_folder(folder: Path) -> str | None:
    """Tables and archives count more than pictures, of which a folder of tables may hold a few."""
    names = {path.name for path in folder.iterdir()}
    if {"img_emb", "text_emb"} & names:
        return "embeddings"
    if {STATE_FILE, SPLITS_FILE} & names:
        return "datasets"
    if set(METADATA) & names:
        return "imagefolder"
    suffixes = {path.suffix.lower() for path in folder.rglob("*")}
    if ".tar" in suffixes:
        return "webdataset"
    if suffixes & {".parquet", ".pq"}:
        return "parquet"
    return "folder" if suffixes & SUFFIXES else None


def _of_file(origin: Origin, file: Path) -> str | None:
    with file.open("rb") as handle:
        head = handle.read(_HEAD_BYTES)
    if not head.strip():
        raise InputError(f"sources.{origin.set_name}.path: {origin.path} is empty")
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if "\0" in text:
        return "webdataset" if tarfile.is_tarfile(file) else None
    if re.match(r"\[\s*(\{|\]|$)", text):
        return "llava"
    if text.startswith("{"):
        return _of_json(file, text)
    return "csv" if file.suffix.lower() in (".csv", ".tsv") else "lines"


def _of_json(file: Path, head: str) -> str | None:
    """One object a line, or one object that holds sets or lists."""
    with file.open("rb") as handle:
        rows = [_parsed(handle.readline(_LINE_BYTES)) for _ in range(2)]
    row = rows[0]
    if row is None:  # an object over many lines, or a first line that is damaged
        if re.match(r'\{\s*"(images|texts)"\s*:\s*\[', head):
            return "unpaired"
        if re.match(r'\{\s*"[^"]*"\s*:\s*\{', head) and '"annotation"' in head:
            return "internvl"
        row = rows[1]
        if row is None:
            return None
    if "conversations" in row:
        return "llava"
    if isinstance(row.get("images"), list) and isinstance(row.get("texts"), list):
        return "unpaired"
    if row and all(isinstance(value, dict) and {"root", "annotation"} <= value.keys() for value in row.values()):
        return "internvl"
    return "pope" if {"question_id", "label"} <= row.keys() else "jsonl"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None where it holds none."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
