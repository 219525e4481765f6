"""Benchmarks with one right answer out of a known set: color, shape, position, count, and most of a user's own."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from gapbridge.evaluate.answers import choices, find_choice, words
from gapbridge.evaluate.protocol import Graded, Item


class NormalisedMatch:
    """An answer is right when it names the right one of the benchmark's answers and no other."""

    id = "normalised-match/1"
    measure: Literal["accuracy", "f1"] = "accuracy"

    def __init__(self, answers: Sequence[str]) -> None:
        self._known = choices(answers)

    def parse(self, raw: str, item: Item) -> str | None:
        """The one answer of the benchmark that `raw` names."""
        del item
        return find_choice(raw, self._known)

    def score(self, parsed: str | None, item: Item) -> float:
        """1 for the right answer, else 0."""
        return float(parsed is not None and parsed == " ".join(words(item.answer)))

    def majority(self, items: Sequence[Item]) -> float:
        """The share of the commonest answer."""
        return Counter(words(item.answer) for item in items).most_common(1)[0][1] / len(items)

    def extras(self, graded: Sequence[Graded]) -> dict[str, Any]:
        """Nothing more."""
        del graded
        return {}
