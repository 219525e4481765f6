"""Tars as webdataset and img2dataset write them: members of one key are one sample (`000123.jpg`, `.txt`, `.json`)."""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePosixPath

from gapbridge.corpus import columns
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, unfit_name
from gapbridge.corpus.parquet import files
from gapbridge.corpus.pictures import SUFFIXES
from gapbridge.corpus.records import PICTURED
from gapbridge.corpus.rows import Embedded, Row, drafts
from gapbridge.errors import InputError

_CUT_SHORT = "the archive is cut short; its last sample may lack members"
_TEXTS = ("txt", "text", "caption")


class _BadMemberError(Exception):
    """A sample that cannot be read; the message is the reason."""


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, words, pictures or pairs (`rows.drafts`) of one tar or of all in a folder, each read in one pass.

    The id is img2dataset's `key` where the JSON has one, else `<tar>/<key>`.
    """
    return drafts(origin, kind, _rows(origin, kind))


def _rows(origin: Origin, kind: str) -> Iterator[Row | BadRow]:
    for file in files(origin, "*.tar"):
        path = columns.fit_path(origin.relative(file))
        try:
            with tarfile.open(file, "r:") as archive:
                for key, members in groupby(_members(archive), key=_key):
                    yield _sample(origin, kind, archive, path, key, list(members))
                if file.stat().st_size < archive.offset + tarfile.BLOCKSIZE:  # a whole archive ends in empty blocks
                    yield BadRow(origin.path, path, None, _CUT_SHORT)
        except tarfile.ReadError as error:
            if _is_compressed(error):
                raise InputError(f"{path}: no plain tar ({error}); unpack it if it is compressed") from error
            yield BadRow(origin.path, path, None, _CUT_SHORT)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _is_compressed(error: tarfile.ReadError) -> bool:
    return "unexpected end" not in str(error)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members that are no folders; the archive's own list of them is not kept."""
    while (member := archive.next()) is not None:
        archive.members = []
        if not member.isdir():
            yield member


def _key(member: tarfile.TarInfo) -> str:
    """All but what follows the first dot of the last name."""
    folder, slash, name = member.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _sample(
    origin: Origin, kind: str, archive: tarfile.TarFile, path: str, key: str, members: list[tarfile.TarInfo]
) -> Row | BadRow:
    place = f"{path} sample {key}"
    if reason := _refused(key, members):
        return BadRow(origin.path, f"{path} sample {key!r}" if unfit_name(key) else place, None, reason)
    fields: dict[str, object] = {}
    try:
        for member in members:
            suffix = member.name.rpartition("/")[2].partition(".")[2].lower()
            if suffix == "json":
                fields = {**_object(archive, member), **fields}
            elif suffix in _TEXTS:
                fields[origin.text_field or "text"] = _decoded(archive, member)
            elif f".{suffix.rpartition('.')[2]}" in SUFFIXES and kind in PICTURED:
                fields[origin.image_field or "image"] = Embedded(f"tar:{path}#{member.name}", _content(archive, member))
    except _BadMemberError as error:
        return BadRow(origin.path, place, None, str(error))
    return Row(place, f"{PurePosixPath(path).stem}/{key}", fields)


def _refused(key: str, members: list[tarfile.TarInfo]) -> str | None:
    if reason := unfit_name(key):
        return reason
    if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
        return "the path leaves its root"
    if not all(member.isfile() for member in members):
        return "not a regular file"
    return None


def _object(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, object]:
    try:
        found = json.loads(_decoded(archive, member))
    except (ValueError, RecursionError) as error:
        raise _BadMemberError("the sample's JSON does not parse") from error
    if not isinstance(found, dict):
        raise _BadMemberError("the sample's JSON is no object")
    # A picture's own facts (url, width, …) are of no use here, and a name like "png" must not pass for a picture.
    return {name: found[name] for name in ("id", "key", "group_id", "caption", "text") if found.get(name) is not None}


def _decoded(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    try:
        return _content(archive, member).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _BadMemberError("the sample's text is not UTF-8") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    handle = archive.extractfile(member)
    if handle is None:
        raise _BadMemberError("not a regular file")
    return handle.read()
