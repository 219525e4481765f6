"""Candidate against champion on the same benchmark items: paired bootstrap on the scores of each item.

Shapes: `g` groups (scenes, source pictures) of one benchmark, `a` those of all of them, `r` bootstrap draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

AVERAGE = "average"
_DRAWS = 2000
_DRAWS_AT_ONCE = 100
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
    """95 % percentile interval of `difference`: whole groups redrawn, for both models and every benchmark at once."""


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
    paired = [_Paired.of(ours[name], theirs[name]) for name in names]
    draws = _redraw(paired, seed) if paired else np.empty((0, 0))
    benchmarks = tuple(
        Difference(name, one.items, *one.means, one.means[0] - one.means[1], _interval(differences))
        for name, one, differences in zip(names, paired, draws, strict=True)
    )
    return Comparison(benchmarks, _average(benchmarks, draws), unmatched)


class _Paired(NamedTuple):
    """Both models' scores on the items of one benchmark, summed by group."""

    groups: list[str]
    sums: np.ndarray
    """(g, 3): candidate, champion, items."""

    @classmethod
    def of(cls, candidate: Mapping[str, Line], champion: Mapping[str, Line]) -> "_Paired":
        sums: dict[str, list[float]] = {}
        for item_id in sorted(candidate):
            row = sums.setdefault(str(candidate[item_id].get("group_id") or item_id), [0.0, 0.0, 0.0])
            for place, line in enumerate((candidate[item_id], champion[item_id])):
                row[place] += _score(line)
            row[2] += 1
        return cls(sorted(sums), np.array([sums[group] for group in sorted(sums)]))

    @property
    def items(self) -> int:
        return int(self.sums[:, 2].sum())

    @property
    def means(self) -> tuple[float, float]:
        candidate, champion = (math.fsum(self.sums[:, place]) / self.items for place in (0, 1))
        return candidate, champion


def _redraw(paired: Sequence[_Paired], seed: int) -> np.ndarray:
    """(benchmarks, r): the differences when the groups of all benchmarks together are drawn again, with replacement.

    Benchmarks that ask about the same scenes so rise and fall together in a draw, as they would with other scenes.
    NaN where a draw has no group of the benchmark.
    """
    groups = sorted(set().union(*(one.groups for one in paired)))
    places = {group: place for place, group in enumerate(groups)}
    columns = [[places[group] for group in one.groups] for one in paired]
    random = np.random.default_rng([seed, len(groups)])
    even = np.full(len(groups), 1 / len(groups))
    found = []
    for _ in range(0, _DRAWS, _DRAWS_AT_ONCE):
        weights = random.multinomial(len(groups), even, size=_DRAWS_AT_ONCE)  # (draws at once, a)
        totals = [weights[:, own] @ one.sums for own, one in zip(columns, paired, strict=True)]
        with np.errstate(invalid="ignore"):
            found.append([(ours - theirs) / items for ours, theirs, items in (total.T for total in totals)])
    return np.concatenate(found, axis=1)


def _average(benchmarks: Sequence[Difference], draws: np.ndarray) -> Difference | None:
    if not benchmarks:
        return None
    candidate, champion, difference = (
        math.fsum(getattr(one, key) for one in benchmarks) / len(benchmarks)
        for key in ("candidate", "champion", "difference")
    )
    items = sum(one.items for one in benchmarks)
    present = draws[:, ~np.isnan(draws).all(axis=0)]
    return Difference(AVERAGE, items, candidate, champion, difference, _interval(np.nanmean(present, axis=0)))


def _interval(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(draws, _INTERVAL)
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
