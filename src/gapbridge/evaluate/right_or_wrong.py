"""Rules of published benchmarks: every answer is right or wrong, and some figures look at groups of them."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gapbridge.evaluate.answers import option_letter
from gapbridge.evaluate.protocol import Graded, Item


def _equal(parsed: Any, item: Item) -> bool:
    return parsed == item.answer


def _nothing(graded: Sequence[Graded]) -> dict[str, Any]:
    del graded
    return {}


@dataclass(frozen=True)
class RightOrWrong:
    """`id` names the protocol, `parser` finds the answer in a generation, `summary` gives the official aggregates."""

    id: str
    parser: Callable[[str, Item], Any]
    summary: Callable[[Sequence[Graded]], dict[str, Any]] = _nothing
    is_right: Callable[[Any, Item], bool] = _equal
    measure: Literal["accuracy", "f1"] = "accuracy"

    def parse(self, raw: str, item: Item) -> Any:
        """The answer to `item` that `raw` names; None where the protocol finds none."""
        return self.parser(raw, item)

    def score(self, parsed: Any, item: Item) -> float:
        """1 for the right answer, else 0."""
        return float(parsed is not None and self.is_right(parsed, item))

    def majority(self, items: Sequence[Item]) -> float:
        """The share of the commonest right answer."""
        return Counter(item.answer for item in items).most_common(1)[0][1] / len(items)

    def extras(self, graded: Sequence[Graded]) -> dict[str, Any]:
        """The official aggregates."""
        return self.summary(graded)


def chosen_letter(raw: str, item: Item) -> str | None:
    """The option of `item` that `raw` names; `detail` has the `choices`, empty where only the letter is known."""
    return option_letter(raw, item.detail["choices"])


def accuracy(graded: Sequence[Graded]) -> float:
    """The share of right answers. Needs at least one item."""
    return math.fsum(one.score for one in graded) / len(graded)


def split(graded: Iterable[Graded], key: Callable[[Item], Hashable]) -> dict[Hashable, list[Graded]]:
    """The items by what `key` makes of each, in the order of their first appearance."""
    parts: dict[Hashable, list[Graded]] = {}
    for one in graded:
        parts.setdefault(key(one.item), []).append(one)
    return parts


def all_right(graded: Iterable[Graded], key: Callable[[Item], Hashable], size: int | None = None) -> float | None:
    """The share of the groups that `key` makes in which every answer is right.

    With `size` only groups of so many items count: one that lost an item in ingest is not judged by the rest. None
    where no group counts.
    """
    groups = [part for part in split(graded, key).values() if size is None or len(part) == size]
    if not groups:
        return None
    return sum(all(one.score for one in part) for part in groups) / len(groups)
