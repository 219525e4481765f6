"""The proof that sets do not overlap: by group, and by the digests of their pictures' files; and who looks alike."""

import hashlib
from dataclasses import dataclass
from typing import Any

from polars import DataFrame

from gapbridge.corpus.twins import near_twins
from gapbridge.errors import InputError

APART: tuple[tuple[str, str, str], ...] = (
    ("texts", "images", "unpaired sets"),
    *((other, "probe", "the probe") for other in ("texts", "images", "encoder")),
    *((other, "instruct", "the instructions") for other in ("texts", "images", "encoder", "probe")),
    *((other, "benchmark", "a benchmark") for other in ("texts", "images", "encoder", "llm", "probe", "instruct")),
)
"""Pairs of sets that may share nothing, and what would be spoilt."""
TRAINED = ("images", "encoder", "instruct")
"""The sets with pictures that something is fitted on."""


EXTENT_COLUMNS = ("group_id", "sha256", "look")
"""What of a set's records its extent is made of."""


@dataclass(frozen=True)
class Extent:
    """What one set covers: its group ids, the sha256 of its pictures' files, and what its pictures look like."""

    groups: frozenset[str]
    pictures: frozenset[str]
    looks: tuple[str, ...] = ()

    @classmethod
    def of(cls, frame: DataFrame) -> "Extent":
        """The extent of a table of records."""
        pictures = frame["sha256"].to_list() if "sha256" in frame.columns else []
        looks = frame["look"].drop_nulls().unique().sort().to_list() if "look" in frame.columns else []
        return cls(frozenset(frame["group_id"].to_list()), frozenset(pictures), tuple(looks))

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
    return {"sets": sets, "pairs": pairs, "near_twins": _near_twins(extents)}


def _near_twins(extents: dict[str, Extent]) -> dict[str, Any]:
    """How many of the benchmark's pictures, by look, have a near twin in each set that is trained on."""
    asked = extents["benchmark"].looks
    trained = {name: extents[name].looks for name in TRAINED if extents[name].looks}
    return {"pictures": len(asked), **{name: int(near_twins(asked, looks).sum()) for name, looks in trained.items()}}


def _refuse(left: str, right: str, spoilt: str, thing: str, count: int, first: str) -> None:
    raise InputError(
        f"sources.{left} and sources.{right} share {count} {thing}{'s' if count > 1 else ''} (the first: {first});"
        f" {spoilt} may share none with other sets, so take them out of one"
    )
