"""What the outside data is now: the files of every set with size and digest, so that a changed one is noticed.

This stage runs every time. It imports little and remembers digests by (path, size, time of change), because
nothing may be paid for data that stayed as it was. The times stay in the cache; none enters the out.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gapbridge import artifacts
from gapbridge.errors import InputError
from gapbridge.params import Source
from gapbridge.stages.runner import StageRun, cache_root

FORMAT_VERSION = 1
# A file changed this recently could change again within the resolution of its time stamp.
_SETTLED_NANOSECONDS = 2_000_000_000
_LARGEST_META = 1 << 24


def run(stage: StageRun) -> dict[str, Any]:
    """Write `sources.json`: per set its params and, for a user's files, path (relative to the root), bytes, sha256.

    Returns the number of files and bytes a set. Raises InputError when a source is missing or leaves the root.
    """
    sections = stage.params.sources
    root = (stage.workspace / sections.root).resolve()
    memory = DigestMemory(cache_root() / "digests" / f"{hashlib.sha256(str(root).encode()).hexdigest()[:32]}.json")
    sets: dict[str, Any] = {}
    for name in type(sections).model_fields:
        sources = [] if name == "root" else sections.of(name)
        if not sources:
            continue
        paths = {
            path: None for source in sources if source.format != "world" for path in source_files(root, name, source)
        }
        described = [source.model_dump() for source in sources]
        sets[name] = {"sources": described, "files": [_entry(root, path, memory) for path in paths]}
    memory.save()
    artifacts.write_json(stage.out / "sources.json", {"format_version": FORMAT_VERSION, "sets": sets})
    return {
        name: {"files": len(entry["files"]), "bytes": sum(file["bytes"] for file in entry["files"])}
        for name, entry in sets.items()
    }


class DigestMemory:
    """Digests of files, remembered by path, size and time of change. Runs beside each other lose nothing but memory."""

    def __init__(self, path: Path) -> None:
        """`path` is the JSON file that holds the memory; an unreadable one is as good as none."""
        self._path = path
        self._old = _remembered(path)
        self._new: dict[str, list[Any]] = {}

    def digest(self, path: Path) -> tuple[int, str]:
        """Size in bytes and sha256 of the file at `path`."""
        state = path.stat()
        key = str(path)
        size, changed, sha256 = self._new.get(key) or self._old.get(key) or (None, None, None)
        if (size, changed) != (state.st_size, state.st_mtime_ns):
            sha256 = artifacts.file_digest(path)
        if time.time_ns() - state.st_mtime_ns > _SETTLED_NANOSECONDS:
            self._new[key] = [state.st_size, state.st_mtime_ns, sha256]
        return state.st_size, str(sha256)

    def save(self) -> None:
        """Write what was asked for in this run, if it differs from what was known."""
        if self._new != self._old:
            artifacts.write_bytes(self._path, json.dumps(self._new).encode())


def _remembered(path: Path) -> dict[str, list[Any]]:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def source_files(root: Path, name: str, source: Source) -> Iterator[Path]:
    """The files of one source, sorted: the file itself or those in its folder, then those in its pictures' folder."""
    if source.path is None:
        return
    place = artifacts.source_path(root, source.path, f"sources.{name}.path")
    yield from _below(place)
    if place.is_file():
        yield from _named_inside(root, name, source, place)
    if source.images is not None:
        yield from _below(artifacts.source_path(root, source.images, f"sources.{name}.images"))


def _named_inside(root: Path, name: str, source: Source, place: Path) -> Iterator[Path]:
    """What an InternVL meta file names; `ingest` says what is wrong with it."""
    if source.format not in (None, "internvl") or place.stat().st_size > _LARGEST_META:
        return
    try:
        content = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    entries = list(content.values()) if isinstance(content, dict) else []
    if not all(isinstance(entry, dict) and {"root", "annotation"} <= entry.keys() for entry in entries):
        return
    for entry in entries:
        for path in (entry["annotation"], entry["root"]):
            if isinstance(path, str) and path:
                yield from _below(artifacts.source_path(root, path, f"sources.{name}.path"))


def _below(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _entry(root: Path, path: Path, memory: DigestMemory) -> dict[str, Any]:
    """What is written of one file; what a link outside the root holds is not looked at, `ingest` refuses that row."""
    relative = path.relative_to(root).as_posix()
    if not path.resolve().is_relative_to(root):
        return {"path": relative, "bytes": 0, "sha256": None}
    try:
        size, sha256 = memory.digest(path)
    except OSError as error:
        raise InputError(f"{relative}: cannot be read ({error.strerror}); check its permissions") from error
    return {"path": relative, "bytes": size, "sha256": sha256}
