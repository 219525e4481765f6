"""What every reader is given and gives: where a set's rows come from, and drafts of records or bad rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from gapbridge import artifacts
from gapbridge.corpus.manifest import BadRow
from gapbridge.errors import InputError

Side = Literal["texts", "images"]


class BroughtVector(Protocol):
    """One of the vectors brought along."""

    @property
    def locator(self) -> str:
        """Where it lies: `data/img_emb/img_emb_0.npy#17`."""

    @property
    def sha256(self) -> str:
        """The digest of its unit row."""

    @property
    def reason(self) -> str | None:
        """What spoils it."""


class BroughtVectors(Protocol):
    """Vectors of one side that came with a source, in the order of their files."""

    path: str
    rows: int
    width: int
    named: bool
    """Whether they have names, or are known by their place alone."""

    def about(self) -> dict[str, Any]:
        """Width, the encoder's fingerprint where an index says it, and the digest of every file."""

    def at(self, place: int) -> BroughtVector:
        """The one at a place from 0."""

    def find(self, names: Sequence[str]) -> BroughtVector | None:
        """The one with the first of these names that any has: as written, then as the end of a path or its stem."""

    def fields(self, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Of every one its name as `id`, and the wanted columns of the table beside, as far as they are there."""


@dataclass(frozen=True)
class Origin:
    """The user's files for one set.

    `path` (a file or folder) and `images` (the folder that image names in the file are relative to) are relative
    to `root`. `captions` keeps the captions of an images set. `text_field` and `image_field` name the fields of a row,
    where they are called otherwise than usual; `seed` decides where rows are chosen by chance. With `vectors`, a
    picture's file need not be there.
    """

    set_name: str
    root: Path
    path: str
    images: str | None = None
    captions: bool = False
    text_field: str | None = None
    image_field: str | None = None
    seed: int = 0
    vectors: Mapping[Side, BroughtVectors] | None = None

    def place(self) -> Path:
        """The file or folder to read. Raises InputError when there is none, or when it lies outside the root."""
        return artifacts.source_path(self.root, self.path, f"sources.{self.set_name}.path")

    def file(self) -> Path:
        """The file to read. Raises InputError when there is none, or when it lies outside the root."""
        found = self.place()
        if not found.is_file():
            raise InputError(f"sources.{self.set_name}.path: {self.path} is no file in {self.root}")
        return found

    def folder(self) -> Path:
        """The folder to read. Raises InputError when there is none, or when it lies outside the root."""
        found = self.place()
        if not found.is_dir():
            raise InputError(f"sources.{self.set_name}.path: {self.path} is no folder in {self.root}")
        return found

    def picture(self, name: str) -> str:
        """The path, relative to the root, of the picture that a row calls `name`.

        Raises BadFieldError when it leaves the pictures' folder or no manifest could hold it, InputError when that
        folder was never named.
        """
        folder = self._pictures
        try:
            found = self.relative(artifacts.inside(folder, name))
        except (InputError, ValueError, RuntimeError) as error:  # ValueError: a NUL; RuntimeError: links in a circle
            raise BadFieldError("the path leaves its root") from error
        if reason := unfit_name(found):
            raise BadFieldError(reason)
        return found

    @property
    def takes_paths(self) -> bool:
        """Whether a row may say by a path which picture it means."""
        return self.images is not None or self.vectors is not None

    @cached_property
    def _pictures(self) -> Path:
        if self.images is None and self.vectors:
            return self.root / next(iter(self.vectors.values())).path  # equal names in other sets are other pictures
        if self.images is None:
            raise InputError(f"sources.{self.set_name}.images: name the folder that the pictures of {self.path} are in")
        folder = artifacts.source_path(self.root, self.images, f"sources.{self.set_name}.images")
        if not folder.is_dir():
            raise InputError(f"sources.{self.set_name}.images: {self.images} is no folder in {self.root}")
        return folder

    def relative(self, resolved: Path) -> str:
        """`resolved` relative to the root. Raises ValueError when it lies elsewhere."""
        return resolved.relative_to(self.root.resolve()).as_posix()


class BadFieldError(Exception):
    """A row that cannot become a record; the message is the reason."""


@dataclass(frozen=True)
class Draft:
    """A record whose picture, if any, is still unchecked: its locator, and its bytes where they are at hand."""

    place: str
    record: dict[str, Any]
    picture: str | None = None
    content: bytes | None = None


class Reader(Protocol):
    """One format. Rows come in the order of the file or of the sorted names."""

    def __call__(self, origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
        """Drafts of records of `kind`, and the rows that can be none.

        Raises InputError when the source as a whole cannot be read.
        """


def unfit_name(name: str) -> str | None:
    """Why a manifest cannot hold the name of this file; None when it can."""
    if "\n" in name:
        return "the name holds a line break"
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # how Python shows bytes that do not decode
        return "the name is not UTF-8"
    return None


def shown_name(name: str) -> str:
    """The name of a file as a quarantine can hold it: escaped where it is unfit."""
    return repr(name)[1:-1] if unfit_name(name) else name


def identified(row: Mapping[str, Any], key: str = "id") -> str:
    """The id in `row`; integers count as text. Raises BadFieldError."""
    if key not in row:
        raise BadFieldError(f'"{key}" is missing')
    value = row[key]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return _words(value, key)


def words(row: Mapping[str, Any], key: str) -> str:
    """The text under `key`, without the spaces around it. Raises BadFieldError when missing, empty or no text."""
    if key not in row:
        raise BadFieldError(f'"{key}" is missing')
    return _words(row[key], key)


def group_of(row: Mapping[str, Any]) -> str | None:
    """The `group_id` in `row`, None when missing or null; integers count as text. Raises BadFieldError."""
    return None if row.get("group_id") is None else identified(row, "group_id")


def optional_words(row: Mapping[str, Any], key: str) -> str | None:
    """As `words`, but None when the key is missing or null."""
    return None if row.get(key) is None else words(row, key)


def _words(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise BadFieldError(f'"{key}" is not a text')
    if not value.strip():
        raise BadFieldError(f'"{key}" is empty')
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise BadFieldError(f'"{key}" holds half a surrogate pair')
    return value.strip()
