"""InternVL's meta file, a mixture of sets in LLaVA's layout: `{"<set>": {"root", "annotation", "repeat_time"?}}`."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gapbridge.corpus import llava
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, unfit_name
from gapbridge.errors import InputError


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Every set in the order of the file; `root` and `annotation` are relative to the root of all sources.

    Ids are `<set>/<id>`. `repeat_time` below one keeps that share of the rows, chosen by hash of seed and id; above
    one it repeats rows as `<set>/<id>#2`, the broken part of it likewise by hash.
    """
    for name, entry in _sets(origin).items():
        times = _times(origin, name, entry)
        inner = replace(origin, path=entry["annotation"], images=entry["root"])
        for row in llava.read(inner, kind):
            if isinstance(row, BadRow):
                yield row
                continue
            copies = int(times) + (_chance(origin.seed, name, row.record["id"]) < times % 1)
            for copy in range(copies):
                suffix = f"#{copy + 1}" if copy else ""
                yield replace(row, record={**row.record, "id": f"{name}/{row.record['id']}{suffix}"})


def _sets(origin: Origin) -> dict[str, Any]:
    try:
        sets = json.loads(origin.file().read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{origin.path}: cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin.path}: not JSON ({error}); it must name sets with root and annotation") from error
    if not isinstance(sets, dict) or not sets:
        raise InputError(f"{origin.path}: not an object of sets; it must name sets with root and annotation")
    for name, entry in sets.items():
        if reason := unfit_name(name):
            raise InputError(f"{origin.path}: the set {name!r} cannot be taken ({reason}); call it otherwise")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("root", "annotation")):
            raise InputError(f"{origin.path}: the set {name!r} has no root and annotation; name a folder and a file")
    return sets


def _times(origin: Origin, name: str, entry: dict[str, Any]) -> float:
    times = entry.get("repeat_time", 1)
    if isinstance(times, bool) or not isinstance(times, int | float) or not 0 < times <= 1000:
        raise InputError(
            f"{origin.path}: repeat_time {times!r} of the set {name!r}; give a number above 0, at most 1000"
        )
    return float(times)


def _chance(seed: int, name: str, row_id: str) -> float:
    """A number from 0 to 1 that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed}:{name}/{row_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
