"""The proof that sets do not overlap: by group, and by the digests of their pictures' files."""

import hashlib
from dataclasses import dataclass
from typing import Any

from polars import DataFrame

from gapbridge.errors import InputError

APART: tuple[tuple[str, str, str], ...] = (
    ("texts", "images", "unpaired sets"),
    *((other, "probe", "the probe") for other in ("texts", "images", "encoder")),
    *((other, "instruct", "the instructions") for other in ("texts", "images", "encoder", "probe")),
    *((other, "benchmark", "a benchmark") for other in ("texts", "images", "encoder", "llm", "probe", "instruct")),
)
"""Pairs of sets that may share nothing, and what would be spoilt."""


@dataclass(frozen=True)
class Extent:
    """What one set covers: its group ids and the sha256 of its pictures' files."""

    groups: frozenset[str]
    pictures: frozenset[str]

    @classmethod
    def of(cls, frame: DataFrame) -> "Extent":
        """The extent of a table of records."""
        pictures = frame["sha256"].to_list() if "sha256" in frame.columns else []
        return cls(frozenset(frame["group_id"].to_list()), frozenset(pictures))

    @property
    def digest(self) -> str:
        """sha256 of the sorted group ids, one a line."""
        return hashlib.sha256("\n".join(sorted(self.groups)).encode()).hexdigest()


def prove(extents: dict[str, Extent]) -> dict[str, Any]:
    """The counts behind the proof, for metrics: groups and digest a set, shared groups and pictures a pair.

    Raises InputError at the first pair of `APART` that shares a group or a picture.
    """
    pairs = {}
    for left, right, what in APART:
        groups = extents[left].groups & extents[right].groups
        pictures = extents[left].pictures & extents[right].pictures
        if groups:
            _refuse(left, right, what, "group", len(groups), min(groups))
        if pictures:
            _refuse(left, right, what, "picture file", len(pictures), f"sha256 {min(pictures)}")
        pairs[f"{left}/{right}"] = {"shared_groups": 0, "shared_pictures": 0}
    sets = {name: {"groups": len(extent.groups), "digest": extent.digest} for name, extent in extents.items()}
    return {"sets": sets, "pairs": pairs}


def _refuse(left: str, right: str, spoilt: str, thing: str, count: int, first: str) -> None:
    raise InputError(
        f"sources.{left} and sources.{right} share {count} {thing}{'s' if count > 1 else ''} (the first: {first});"
        f" {spoilt} may share none with other sets, so take them out of one"
    )
