"""JSON files too large to be held: their items one by one."""

from collections.abc import Iterator
from typing import Any

import ijson

from gapbridge.corpus.origin import Origin
from gapbridge.errors import InputError


def items(origin: Origin, prefix: str) -> Iterator[Any]:
    """The values under `prefix` (`item` for those of a list), in order and in constant memory.

    Raises InputError where the file cannot be read or is not JSON; what came before is given first.
    """
    count = 0
    try:
        with origin.file().open("rb") as handle:
            if handle.read(3) != b"\xef\xbb\xbf":
                handle.seek(0)
            for item in ijson.items(handle, prefix, use_float=True):
                count += 1
                yield item
    except ijson.JSONError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{origin.path} after row {count}: not JSON ({reason}); mend it there") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{origin.path} after row {count}: not UTF-8 JSON ({error}); mend it there") from error
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error


def first_sign(origin: Origin) -> bytes:
    """The first byte of the file that is no space, none of an empty file. Raises InputError where it cannot be read."""
    try:
        with origin.file().open("rb") as handle:
            return handle.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error
