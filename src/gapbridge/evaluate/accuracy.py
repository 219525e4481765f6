"""Benchmarks with one right answer out of a known set: color, shape, position, count, and most of a user's own."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from gapbridge.evaluate.answers import choices, find_choice, words
from gapbridge.evaluate.protocol import Graded


class NormalisedMatch:
    """An answer is right when it names the right one of the benchmark's answers and no other."""

    id = "normalised-match/1"
    measure: Literal["accuracy", "f1"] = "accuracy"

    def __init__(self, answers: Sequence[str]) -> None:
        self._known = choices(answers)

    def parse(self, raw: str) -> str | None:
        """The one answer of the benchmark that `raw` names."""
        return find_choice(raw, self._known)

    def score(self, parsed: str | None, answer: str) -> float:
        """1 for the right answer, else 0."""
        return float(parsed is not None and parsed == " ".join(words(answer)))

    def majority(self, answers: Sequence[str]) -> float:
        """The share of the commonest answer."""
        return Counter(map(words, answers)).most_common(1)[0][1] / len(answers)

    def extras(self, graded: Sequence[Graded]) -> dict[str, Any]:
        """Nothing more."""
        del graded
        return {}
