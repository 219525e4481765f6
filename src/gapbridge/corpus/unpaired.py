"""Two unpaired lists in one JSON file, as the paper's own code reads them:
`{"images": [{"id", "image"}], "texts": [{"id", "text"}]}`.
"""

from collections.abc import Iterator

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin
from gapbridge.corpus.records import PICTURED
from gapbridge.corpus.rows import Row, drafts
from gapbridge.corpus.stream import items
from gapbridge.errors import InputError


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """The texts, or the pictures, of the file's two lists."""
    return drafts(origin, kind, _rows(origin, "images" if kind in PICTURED else "texts"))


def _rows(origin: Origin, side: str) -> Iterator[Row | BadRow]:
    number = 0
    for number, row in enumerate(items(origin, f"{side}.item"), 1):
        place = f"{origin.path} {side} {number}"
        if isinstance(row, dict):
            yield Row(place, f"{side}-{number:09d}", row)
        else:
            yield BadRow(origin.path, place, None, "the row is not a JSON object")
    if not number:
        raise InputError(
            f"{origin.path}: has no list of {side}; it must hold an object with the lists images and texts"
        )
