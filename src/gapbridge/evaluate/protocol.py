"""What a benchmark is: an id, how a raw generation becomes an answer, and how an answer is scored.

A protocol's `id` names the rules with a version: scores under different ids are not comparable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Item:
    """One question of a benchmark with its right answer. `group_id` names the scene that it is about."""

    item_id: str
    benchmark: str
    group_id: str
    question: str
    answer: str
    subset: str | None = None
    novel: bool = False


@dataclass(frozen=True)
class Graded:
    """An item with what the model said: the raw text, the answer found in it (None: unparsed), its score in 0..1."""

    item: Item
    prompt: str
    raw: str
    parsed: Any
    score: float


class Rules(Protocol):
    """How one kind of benchmark is parsed and scored; made for the answers of one benchmark."""

    id: str
    measure: Literal["accuracy", "f1"]

    def parse(self, raw: str) -> Any:
        """The answer in a raw generation; None where there is none or more than one."""

    def score(self, parsed: Any, answer: str) -> float:
        """0 to 1; an answer that could not be parsed scores 0."""

    def majority(self, answers: Sequence[str]) -> float:
        """The score of the best constant answer on `answers`, which must not be empty."""

    def extras(self, graded: Sequence[Graded]) -> dict[str, Any]:
        """What this kind of benchmark reports besides scores."""


def grade(rules: Rules, items: Sequence[Item], prompts: Sequence[str], raws: Sequence[str]) -> list[Graded]:
    """Every item with its raw generation, parsed and scored, in the order of `items`."""
    graded = []
    for item, prompt, raw in zip(items, prompts, raws, strict=True):
        parsed = rules.parse(raw)
        graded.append(Graded(item, prompt, raw, parsed, rules.score(parsed, item.answer)))
    return graded


def mean_score(graded: Sequence[Graded]) -> float:
    """Mean score, exactly rounded, so that it does not depend on the order. Needs at least one item."""
    return math.fsum(one.score for one in graded) / len(graded)
