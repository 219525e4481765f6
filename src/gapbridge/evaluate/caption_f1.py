"""Captions: F1 of the bound attributes, so that a red circle beside a blue ring is not a blue circle beside a red one.

Majority floor: the best of the benchmark's own captions, given for every picture.
"""

from collections.abc import Sequence
from typing import Any, Literal

from gapbridge.evaluate.protocol import Graded, Item
from gapbridge.world.describe import bound_attributes


class BoundAttributesF1:
    """F1 between the bound attributes that a caption names and those of the right caption."""

    id = "bound-attributes-f1/1"
    measure: Literal["accuracy", "f1"] = "f1"

    def parse(self, raw: str, item: Item) -> list[str] | None:
        """The bound attributes in words, sorted; None when the caption holds none."""
        del item
        return _attributes(raw) or None

    def score(self, parsed: list[str] | None, item: Item) -> float:
        """F1 of one caption, 0 to 1."""
        return _f1(set(parsed or ()), set(_attributes(item.answer)))

    def majority(self, items: Sequence[Item]) -> float:
        """The mean F1 of the caption among the right ones that does best for all of them."""
        wanted = [frozenset(_attributes(item.answer)) for item in items]
        return max(sum(_f1(caption, want) for want in wanted) / len(wanted) for caption in set(wanted))

    def extras(self, graded: Sequence[Graded]) -> dict[str, Any]:
        """Nothing more."""
        del graded
        return {}


def _attributes(text: str) -> list[str]:
    return sorted(" ".join(pair) if isinstance(pair, tuple) else str(pair) for pair in bound_attributes(text))


def _f1(said: set[str] | frozenset[str], wanted: set[str] | frozenset[str]) -> float:
    if not said or not wanted:
        return 0.0
    return 2 * len(said & wanted) / (len(said) + len(wanted))
