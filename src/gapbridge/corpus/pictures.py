"""The only code that opens pictures: by locator, inside their roots, checked before and while they are decoded.

A locator is `own:pictures.tar#000123.png` (a member of a tar beside the manifest), `root:data/images/7.png` (a file
relative to `sources.root`), `tar:data/00000.tar#000000017.jpg` (a member of a tar there) or
`rows:data/a.parquet#image#7` (a row of a column of a Parquet or Arrow file there).
"""

import hashlib
import io
import os
import re
import struct
import tarfile
import threading
import warnings
import weakref
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from gapbridge import artifacts
from gapbridge.errors import ArtifactError

if TYPE_CHECKING:
    from gapbridge.corpus.cells import Cells

# Formats with a decoder in the Pillow wheel itself: none of them starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_EIGHT_BIT_MODES = frozenset(
    {
        "1",
        "L",
        "LA",
        "La",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "HSV",
        "LAB",
    }
)
# What Pillow's decoders raise for damaged files; nothing of ours runs inside the block that catches them.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)
# How an upright picture is made of one that EXIF says was taken otherwise.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Each scan of a JPEG walks over all its pixels, and some bytes make one: a small file could keep a decoder for minutes.
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
_MOST_SCANS = 100
_CHUNK_BYTES = 1 << 20
# Encoders bring the shorter side to their size: a line of pixels would take gigabytes.
_MOST_STRETCHED = 50
# `warnings.catch_warnings` swaps process-wide state; headers are short, so one thread at a time reads one.
_HEADER = threading.Lock()


class BadPictureError(Exception):
    """A file that is no usable picture; the message is a reason for the quarantine."""


class TooManyPixelsError(BadPictureError):
    """A picture larger than the caller allows."""


class Pictures:
    """The pictures of one set, opened by locator. Safe for several threads."""

    def __init__(self, manifest_folder: Path, root: Path) -> None:
        """`manifest_folder` holds the set's tars, `root` is the folder that `root:` locators are relative to."""
        self._folder = manifest_folder
        self._root = root
        self._tars: dict[Path, _Tar] = {}
        self._tables: dict[tuple[Path, str], Cells] = {}

    def load(self, locator: str, sha256: str | None = None) -> Image.Image:
        """The picture as RGB, turned as its EXIF says, transparency over white.

        Raises ArtifactError when it is missing, damaged, or not the file of that `sha256`, InputError when its path
        leaves the root.
        """
        content = self.read(locator)
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ArtifactError(f"{locator}: changed since ingest; run `gapbridge ingest` again")
        try:
            return decode(io.BytesIO(content), max_pixels=None)
        except BadPictureError as error:
            raise ArtifactError(f"{locator}: {error}; run `gapbridge ingest` again") from error

    def read(self, locator: str) -> bytes:
        """The bytes of the picture's file.

        Raises ArtifactError when it is missing, InputError when its path leaves the root.
        """
        scheme, _, rest = locator.partition(":")
        try:
            if scheme == "root":
                return artifacts.inside(self._root, rest).read_bytes()
            file, _, inner = rest.partition("#")
            if scheme == "rows":
                column, _, row = inner.rpartition("#")
                return self._cells(artifacts.inside(self._root, file), column).read(int(row))
            folder = self._folder if scheme == "own" else self._root
            return self._tar(artifacts.inside(folder, file)).read(inner)
        except (OSError, KeyError, IndexError, *TAR_DAMAGED) as error:
            raise ArtifactError(f"{locator}: cannot be read; run `gapbridge ingest` again") from error

    def _tar(self, path: Path) -> "_Tar":
        return self._tars.setdefault(path, _Tar(path))

    def _cells(self, path: Path, column: str) -> "Cells":
        from gapbridge.corpus.cells import Cells  # pyarrow is not needed for any other locator

        if (path, column) not in self._tables:
            self._tables[path, column] = Cells(path, column)
        return self._tables[path, column]


TAR_DAMAGED = (tarfile.TarError, ValueError, OverflowError, RecursionError)
"""What tarfile and `tar_members` raise for a damaged archive, besides OSError."""


def tar_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members in their order, however many; the archive's own list of them is not kept.

    Raises one of TAR_DAMAGED where the archive is damaged: cut short, with headers upon headers, or with a member of
    negative size, which leads back and would be met for ever.
    """
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # typeshed leaves it out
        if member.size < 0 or archive.offset <= member.offset:
            raise ValueError(f"{member.name}: ends before it begins")
        yield member


class _Tar:
    """Random access to the members of an uncompressed tar; reads do not move a shared file position."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """Where each member lies: the first of a name, and those before any damage, as they were taken in."""
        spans: dict[str, tuple[int, int]] = {}
        with tarfile.open(self._path, "r:") as archive, suppress(*TAR_DAMAGED):
            for member in tar_members(archive):
                spans.setdefault(member.name, (member.offset_data, member.size))
        return spans

    @cached_property
    def _descriptor(self) -> int:
        descriptor = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def read(self, member: str) -> bytes:
        offset, size = self._spans[member]
        return os.pread(self._descriptor, size, offset)


def decode(handle: BinaryIO, max_pixels: int | None) -> Image.Image:
    """The picture in `handle` as RGB, turned as its EXIF says, transparency over white; its first frame if it moves.

    Nothing but the pixels is left: no EXIF, colour profile or text. Raises BadPictureError with the reason.
    """
    with _HEADER, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = _opened(handle)
    if max_pixels is not None and picture.width * picture.height > max_pixels:
        raise TooManyPixelsError(f"more than {max_pixels} pixels")
    if max(picture.size) > _MOST_STRETCHED * min(picture.size):
        raise BadPictureError(f"one side is more than {_MOST_STRETCHED} times the other")
    if picture.mode not in _EIGHT_BIT_MODES:
        raise BadPictureError(f"pixels of mode {picture.mode}, not of 8 bits a channel")
    if picture.format == "JPEG" and _scans(handle) > _MOST_SCANS:
        raise BadPictureError(f"a JPEG of more than {_MOST_SCANS} scans")
    try:
        shown = _flat(_upright(picture))
    except _DAMAGED as error:
        raise BadPictureError("the picture is truncated or damaged") from error
    shown.info = {}  # what reads the picture later should not read its EXIF once more, nor stumble over it
    return shown


def _opened(handle: BinaryIO) -> Image.Image:
    try:
        return Image.open(handle, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadPictureError("a picture so large that Pillow takes it for a decompression bomb") from error
    except UnidentifiedImageError as error:
        raise BadPictureError("not a picture in a known format") from error
    except _DAMAGED as error:
        raise BadPictureError("the picture is truncated or damaged") from error


def _scans(handle: BinaryIO) -> int:
    """How many scans the JPEG announces."""
    place, count, rest = handle.tell(), 0, b""
    handle.seek(0)
    while chunk := handle.read(_CHUNK_BYTES):
        count += len(_SCAN.findall(rest + chunk))
        rest = chunk[-4:]  # shorter than what is looked for, so that nothing is counted twice
    handle.seek(place)
    return count


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as it was taken. Pillow's own `exif_transpose` also writes the EXIF anew, where odd fields fail."""
    picture.load()
    method = _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return picture if method is None else picture.transpose(method)


def _flat(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
