"""Tars as webdataset and img2dataset write them: members of one key are one sample (`000123.jpg`, `.txt`, `.json`)."""

import json
import tarfile
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gapbridge.corpus import columns
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, unfit_name
from gapbridge.corpus.parquet import files
from gapbridge.corpus.pictures import SUFFIXES, tar_members
from gapbridge.corpus.records import PICTURED
from gapbridge.corpus.rows import ID_FIELDS, TEXT_FIELDS, Embedded, Row, drafts
from gapbridge.errors import InputError

_TEXTS = ("txt", "text", "caption")
_PICTURES = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
_CUT_SHORT = "the archive is cut short; its last sample may lack members"
_DAMAGED = "the archive is damaged; the sample before that, and what follows, are lost"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_CHUNK_BYTES = 1 << 20


class _BadMemberError(Exception):
    """A sample that cannot be read; the message is the reason."""


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Texts, words, pictures or pairs (`rows.drafts`) of one tar or of all in a folder, each read in one pass.

    The id is img2dataset's `key` where the JSON has one, else `<tar>/<key>`. Of several pictures or texts in one
    sample, `image_field` and `text_field` name the suffix that counts (`jpg`, `mask.png`).
    """
    return drafts(origin, kind, _rows(origin, kind))


def _rows(origin: Origin, kind: str) -> Iterator[Row | BadRow]:
    for file, below in files(origin, (".tar",), refused=_COMPRESSED):
        path = columns.fit_path(origin.relative(file))
        try:
            with tarfile.open(file, "r:") as archive:
                opened, seen = _Archive(archive, path, below.removesuffix(".tar")), set[str]()
                files_inside = (member for member in tar_members(archive) if not member.isdir())
                for key, members in groupby(files_inside, key=_key):
                    yield _sample(origin, kind, opened, key, list(members), seen)
                if reason := _unread(file, archive.offset):
                    yield BadRow(origin.path, path, None, reason)
        except tarfile.ReadError as error:
            if "unexpected end" not in str(error):
                raise InputError(f"{path}: no plain tar ({error}); unpack it if it is compressed") from error
            yield BadRow(origin.path, path, None, _CUT_SHORT)
        except (ValueError, OverflowError, RecursionError):  # a size that no file has, or headers upon headers
            yield BadRow(origin.path, path, None, _DAMAGED)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _unread(file: Path, offset: int) -> str | None:
    """Why the archive is not whole: it lacks the empty blocks at its end, or something stands where they should be."""
    if file.stat().st_size < offset + tarfile.BLOCKSIZE:
        return _CUT_SHORT
    with file.open("rb") as handle:
        handle.seek(offset)
        while chunk := handle.read(_CHUNK_BYTES):
            if chunk.count(0) != len(chunk):
                return f"the archive cannot be read from byte {offset} on; samples that follow are lost"
    return None


class _Archive(NamedTuple):
    """An open tar, its path relative to the root, and what its samples are named by."""

    tar: tarfile.TarFile
    path: str
    name: str


def _key(member: tarfile.TarInfo) -> str:
    """All but what follows the first dot of the last name."""
    folder, slash, name = member.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _suffix(member: tarfile.TarInfo) -> str:
    return member.name.rpartition("/")[2].partition(".")[2].lower()


def _sample(
    origin: Origin, kind: str, archive: _Archive, key: str, members: list[tarfile.TarInfo], seen: set[str]
) -> Row | BadRow:
    place = f"{archive.path} sample {key}"
    if reason := _refused(key, members, seen):
        shown = f"{archive.path} sample {key!r}" if unfit_name(key) else place
        return BadRow(origin.path, shown, None, reason)
    fields: dict[str, object] = {}
    try:
        for member in members:
            if _suffix(member) == "json":
                fields = _object(origin, archive.tar, member)
        if text := _chosen(members, origin.text_field, _TEXTS, "texts", "text_field"):
            fields[origin.text_field or "text"] = _decoded(archive.tar, text)
        if kind in PICTURED and (picture := _chosen(members, origin.image_field, _PICTURES, "pictures", "image_field")):
            locator = f"tar:{archive.path}#{picture.name}"
            fields[origin.image_field or "image"] = Embedded(locator, _content(archive.tar, picture))
    except _BadMemberError as error:
        return BadRow(origin.path, place, None, str(error))
    return Row(place, f"{archive.name}/{key}", fields)


def _chosen(
    members: list[tarfile.TarInfo], wanted: str | None, usual: Collection[str], what: str, field: str
) -> tarfile.TarInfo | None:
    """The member with the suffix that is wanted, or the only one with a usual suffix."""
    if wanted is not None and (found := [member for member in members if _suffix(member) == wanted.lower()]):
        return found[0]
    found = [member for member in members if _suffix(member).rpartition(".")[2] in usual]
    if len(found) > 1:
        suffixes = ", ".join(_suffix(member) for member in found)
        raise _BadMemberError(f"the sample holds several {what} ({suffixes}); name one in {field}")
    return found[0] if found else None


def _refused(key: str, members: list[tarfile.TarInfo], seen: set[str]) -> str | None:
    if reason := next(filter(None, (unfit_name(member.name) for member in members)), None):
        return reason
    if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
        return "the path leaves its root"
    if not all(member.isfile() for member in members) or any(member.issparse() for member in members):
        return "not a regular file"
    names = [member.name for member in members]
    if len(set(names)) < len(names) or seen & set(names):
        return "the archive holds a file of this name twice"
    seen.update(names)
    return None


def _object(origin: Origin, archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, object]:
    try:
        found = json.loads(_decoded(archive, member))
    except (ValueError, RecursionError) as error:
        raise _BadMemberError("the sample's JSON does not parse") from error
    if not isinstance(found, dict):
        raise _BadMemberError("the sample's JSON is no object")
    # A picture's own facts (url, width, …) are of no use here, and a name like "png" must not pass for a picture.
    names = (*ID_FIELDS, "group_id", *TEXT_FIELDS, *([origin.text_field] if origin.text_field else []))
    return {name: found[name] for name in names if found.get(name) is not None}


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
