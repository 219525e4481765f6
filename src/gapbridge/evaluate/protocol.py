"""What a benchmark is: how it is read, how a raw generation becomes an answer, and how an answer is scored.

A protocol's `id` names the rules with a version: scores under different ids are not comparable.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gapbridge.corpus.origin import Reader

Family = Literal["general", "reasoning", "hallucination"]


@dataclass(frozen=True)
class Item:
    """One question of a benchmark with its right answer. `group_id` names the scene that it is about.

    `detail` is what the benchmark's reader wrote beside it: choices, category, ids of a pair.
    """

    item_id: str
    benchmark: str
    group_id: str
    question: str
    answer: str
    subset: str | None = None
    novel: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict, hash=False)


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

    @property
    def id(self) -> str:
        """Which rules these are, with their version."""

    @property
    def measure(self) -> Literal["accuracy", "f1"]:
        """What the mean score is called."""

    def parse(self, raw: str, item: Item) -> Any:
        """The answer to `item` in a raw generation; None where there is none or more than one."""

    def score(self, parsed: Any, item: Item) -> float:
        """0 to 1; an answer that could not be parsed scores 0."""

    def majority(self, items: Sequence[Item]) -> float:
        """The score of the best constant answer on `items`, which must not be empty."""

    def extras(self, graded: Sequence[Graded]) -> dict[str, Any]:
        """What this kind of benchmark reports besides scores, of all its items and of each subset."""


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark: one module `evaluate/<name>.py` with one of these, entered in `evaluate/benchmarks.py`."""

    name: str
    """Its `format` in params.yaml, and the `benchmark` of its records and figures."""
    title: str
    family: Family
    layout: str
    """Which published release is read."""
    source: str
    """Where the official scorer stands."""
    protocols: tuple[str, ...]
    """The ids that its rules may have."""
    read: Reader
    """Drafts of questions, each with `name` as its benchmark; `corpus.questions.question` makes one."""
    rules: Callable[[Sequence[Item]], Rules]
    """The rules for these items, which are all of this benchmark."""
    max_new_tokens: int | None = None
    """Instead of `evaluate.max_new_tokens`, where the protocol needs longer or shorter answers."""


def grade(rules: Rules, items: Sequence[Item], prompts: Sequence[str], raws: Sequence[str]) -> list[Graded]:
    """Every item with its raw generation, parsed and scored, in the order of `items`."""
    graded = []
    for item, prompt, raw in zip(items, prompts, raws, strict=True):
        parsed = rules.parse(raw, item)
        graded.append(Graded(item, prompt, raw, parsed, rules.score(parsed, item)))
    return graded


def mean_score(graded: Sequence[Graded]) -> float:
    """Mean score, exactly rounded, so that it does not depend on the order. Needs at least one item."""
    return math.fsum(one.score for one in graded) / len(graded)
