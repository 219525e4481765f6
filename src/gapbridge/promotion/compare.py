"""Candidate against champion on the same benchmark items: paired bootstrap on the scores of each item.

Shapes: `g` groups (scenes, source pictures) of one benchmark, `r` bootstrap draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

AVERAGE = "average"
_DRAWS = 2000
_INTERVAL = (2.5, 97.5)
_SAME = ("protocol", "prompt", "answer")
"""What has to be equal for an item to be the same question under the same rules."""

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """Candidate minus champion on the items of one benchmark (or `average`: the plain mean over the benchmarks)."""

    benchmark: str
    items: int
    candidate: float
    champion: float
    difference: float
    interval: tuple[float, float]
    """95 % percentile interval of `difference`, whole groups redrawn together for both models."""


@dataclass(frozen=True)
class Comparison:
    """The differences of every benchmark that both answered, their average, and what could not be compared."""

    benchmarks: tuple[Difference, ...]
    average: Difference | None
    unmatched: Mapping[str, str]
    """Benchmark to the reason why its items are not the same ones for both."""


def compare(candidate: Sequence[Line], champion: Sequence[Line], seed: int) -> Comparison:
    """Compare two lists of prediction lines (predictions.jsonl); items of new combinations (`novel`) are left out.

    A benchmark counts only when both answered exactly the same items under the same protocol.
    """
    ours, theirs = _by_benchmark(candidate), _by_benchmark(champion)
    unmatched = {
        name: reason
        for name in sorted(ours.keys() | theirs.keys())
        if (reason := _mismatch(ours.get(name, {}), theirs.get(name, {})))
    }
    names = sorted(ours.keys() - unmatched.keys())
    drawn = {name: _Paired(ours[name], theirs[name], seed) for name in names}
    benchmarks = tuple(paired.difference(name) for name, paired in drawn.items())
    return Comparison(benchmarks, _average(benchmarks, list(drawn.values())), unmatched)


class _Paired:
    """Both models' scores on the items of one benchmark, summed by group: (g, 3) candidate, champion, items."""

    def __init__(self, candidate: Mapping[str, Line], champion: Mapping[str, Line], seed: int) -> None:
        sums: dict[str, list[float]] = {}
        for item_id in sorted(candidate):
            row = sums.setdefault(str(candidate[item_id].get("group_id") or item_id), [0.0, 0.0, 0.0])
            for place, line in enumerate((candidate[item_id], champion[item_id])):
                row[place] += _score(line)
            row[2] += 1
        table = np.array([sums[group] for group in sorted(sums)])
        self.means = [math.fsum(table[:, place]) / float(table[:, 2].sum()) for place in (0, 1)]
        self.items = int(table[:, 2].sum())
        weights = np.random.default_rng([seed, len(table)]).multinomial(
            len(table), np.full(len(table), 1 / len(table)), size=_DRAWS
        )
        totals = weights @ table  # (r, 3)
        self.draws = (totals[:, 0] - totals[:, 1]) / totals[:, 2]

    def difference(self, name: str) -> Difference:
        return Difference(name, self.items, *self.means, self.means[0] - self.means[1], _interval(self.draws))


def _average(benchmarks: Sequence[Difference], paired: Sequence[_Paired]) -> Difference | None:
    if not benchmarks:
        return None
    candidate, champion, difference = (
        math.fsum(getattr(one, key) for one in benchmarks) / len(benchmarks)
        for key in ("candidate", "champion", "difference")
    )
    draws = np.mean([one.draws for one in paired], axis=0)
    items = sum(one.items for one in benchmarks)
    return Difference(AVERAGE, items, candidate, champion, difference, _interval(draws))


def _interval(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(draws, _INTERVAL)
    return round(float(low), 4), round(float(high), 4)


def _by_benchmark(lines: Sequence[Line]) -> dict[str, dict[str, Line]]:
    found: dict[str, dict[str, Line]] = {}
    for line in lines:
        if not line.get("novel"):
            found.setdefault(line["benchmark"], {})[line["item_id"]] = line
    return found


def _mismatch(ours: Mapping[str, Line], theirs: Mapping[str, Line]) -> str | None:
    """Why the two did not answer the same items; None when they did."""
    if not ours or not theirs:
        return f"only the {'candidate' if ours else 'champion'} answered it"
    if ours.keys() != theirs.keys():
        return f"{len(ours.keys() ^ theirs.keys())} of the items are not among the other's"
    changed = sum(any(ours[key].get(name) != theirs[key].get(name) for name in _SAME) for key in ours)
    return f"{changed} of the items have another question, answer or protocol" if changed else None


def _score(line: Line) -> float:
    return float(line["f1"] if "f1" in line else line["correct"])
