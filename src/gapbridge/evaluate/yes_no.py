"""Benchmarks of yes and no in POPE's layout: accuracy, how often yes is said, and a score for each way of asking."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from gapbridge.evaluate.answers import yes_or_no
from gapbridge.evaluate.protocol import Graded, Item


class YesNo:
    """The first yes or no of the generation's first sentence counts."""

    id = "yes-no/1"
    measure: Literal["accuracy", "f1"] = "accuracy"

    def parse(self, raw: str, item: Item) -> str | None:
        """`yes`, `no` or None."""
        del item
        return yes_or_no(raw)

    def score(self, parsed: str | None, item: Item) -> float:
        """1 for the right answer, else 0."""
        return float(parsed is not None and parsed == yes_or_no(item.answer))

    def majority(self, items: Sequence[Item]) -> float:
        """The larger of the shares of yes and no."""
        return Counter(yes_or_no(item.answer) for item in items).most_common(1)[0][1] / len(items)

    def extras(self, graded: Sequence[Graded]) -> dict[str, Any]:
        """`yes_rate`: the share of all generations that say yes."""
        return {"yes_rate": sum(one.parsed == "yes" for one in graded) / len(graded)}
