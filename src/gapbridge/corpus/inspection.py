"""Every picture looked into once, when it is taken in: whether it can be shown, and what a manifest keeps of it."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gapbridge.corpus.pictures import BadPictureError, TooManyPixelsError, decode
from gapbridge.corpus.twins import look

MISSING = "the picture's file is missing"


@dataclass(frozen=True)
class PictureFacts:
    """What a manifest keeps of a picture: the digest of its file, its look, and its size in pixels as shown."""

    sha256: str
    look: str
    width: int
    height: int


def inspect(path: Path, max_pixels: int) -> PictureFacts:
    """Decode the picture at `path` once, whole.

    Raises BadPictureError with the reason when it has more than `max_pixels` pixels or is a mere line of them (both
    seen before decoding), is damaged, truncated, or no picture at all.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise BadPictureError("not a regular file")
        with path.open("rb") as handle:
            return _facts(handle, max_pixels)
    except FileNotFoundError as error:
        raise BadPictureError(MISSING) from error
    except OSError as error:
        raise BadPictureError("the picture's file cannot be read") from error


def inspect_content(content: bytes, max_pixels: int) -> PictureFacts:
    """As `inspect`, for the bytes of a file."""
    return _facts(io.BytesIO(content), max_pixels)


def _facts(handle: BinaryIO, max_pixels: int) -> PictureFacts:
    try:
        shown = decode(handle, max_pixels)
    except TooManyPixelsError as error:
        raise BadPictureError(f"{error} (ingest.max_image_pixels)") from error
    handle.seek(0)
    digest = hashlib.sha256()
    while chunk := handle.read(1 << 20):
        digest.update(chunk)
    return PictureFacts(digest.hexdigest(), look(shown), shown.width, shown.height)
