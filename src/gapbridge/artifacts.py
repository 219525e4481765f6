"""Files on disk: written whole or not at all, read inside their roots, identified by digests."""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapbridge.errors import ArtifactError, InputError

_CHUNK_BYTES = 1 << 20
_SHOWN_CHARACTERS = 60


def read_json(path: Path) -> Any:
    """The parsed content of `path`.

    Raises ArtifactError when the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing; run the stage that writes it") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: not JSON ({error}); delete it and run its stage again") from error


def write_json(path: Path, content: Any) -> None:
    """Write `content` as `json_bytes` gives it."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """`content` as sorted, indented JSON. Raises ValueError for NaN and infinity, since JSON has neither."""
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def inside(root: Path, relative: str | Path) -> Path:
    """`root / relative`, resolved, provided that it stays inside `root`.

    Raises InputError when the path, or a link on it, leaves the root.
    """
    resolved_root = root.resolve()
    resolved = (resolved_root / relative).resolve()
    if not resolved.is_relative_to(resolved_root):
        raise InputError(f"{relative}: leaves its root {root}; keep every path inside it")
    return resolved


def source_path(root: Path, relative: str, key: str) -> Path:
    """`inside` for what params.yaml names under `key`: a file or folder that is there.

    Raises InputError, naming the key, when it is not, and when it leaves the root or no path can be like that.
    """
    if not root.is_dir():
        raise InputError(f"sources.root: there is no folder {root}; mend it in params.yaml")
    try:
        found = inside(root, relative)
        is_there = found.exists()
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    except (OSError, ValueError, RuntimeError) as error:  # too long a name; a NUL; links in a circle
        shown, reason = relative[:_SHOWN_CHARACTERS], getattr(error, "strerror", None) or error
        raise InputError(f"{key}: {shown!r} cannot be opened ({reason}); mend the path") from error
    if not is_there:
        raise InputError(f"{key}: {relative} does not exist in {root}; mend the path or sources.root")
    return found


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of one file's bytes."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def dvc_digest(path: Path, without: Collection[str] = ()) -> str:
    """The md5 by which DVC knows `path`: a file's own, or a folder's listing with the suffix `.dir`.

    `without` names files at the top of the folder that are not counted.
    """
    if path.is_file():
        return file_digest(path, "md5")
    listing = [
        {"md5": file_digest(file, "md5"), "relpath": file.relative_to(path).as_posix()}
        for file in path.rglob("*")
        if file.is_file() and file.relative_to(path).as_posix() not in without
    ]
    listing.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"
