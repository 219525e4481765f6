"""Graded items to the figures of metrics/evaluate.json: scores beside the blind and the majority floor.

Items with attribute combinations that training never saw (`novel`) are scored apart and enter no other figure.
Shapes: `g` groups (scenes, source pictures) of one benchmark, `r` bootstrap draws.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from gapbridge.errors import InputError
from gapbridge.evaluate.protocol import Benchmark, Graded, Rules, mean_score

FORMAT_VERSION = 1
_DRAWS = 1000
_INTERVAL = (2.5, 97.5)


def benchmark_figures(rules: Rules, seeing: Sequence[Graded], blind: Sequence[Graded], seed: int) -> dict[str, Any]:
    """The figures of one benchmark, its items answered with the picture (`seeing`) and without (`blind`).

    Raises InputError when every item is novel, since there is then no score to state.
    """
    seen = [one for one in seeing if not one.item.novel]
    seen_blind = [one for one in blind if not one.item.novel]
    if not seen:
        raise InputError(f"benchmark {seeing[0].item.benchmark}: every item is novel; add items that are not")
    figures = {
        "protocol": rules.id,
        "measure": rules.measure,
        **_pair(seen, seen_blind),
        "majority": rules.majority([one.item for one in seen]),
        "interval": bootstrap_interval(seen, seed),
        "unparsed": sum(one.parsed is None for one in seen),
        **rules.extras(seen),
    }
    novel = [one for one in seeing if one.item.novel]
    if novel:
        novel_blind = [one for one in blind if one.item.novel]
        figures["novel"] = {**_pair(novel, novel_blind), "interval": bootstrap_interval(novel, seed)}
    if subsets := _subsets(rules, seen, seen_blind):
        figures["subsets"] = subsets
    return figures


def whole_figures(
    benchmarks: dict[str, dict[str, Any]], published: Mapping[str, Benchmark] = MappingProxyType({})
) -> dict[str, Any]:
    """The content of metrics/evaluate.json: every benchmark, and the plain mean over the benchmarks.

    The `published` ones also say their family; a family that is there as a whole has averages of its own, and so have
    all of them together (`published`).
    """
    named = {
        name: {**figures, "family": published[name].family} if name in published else figures
        for name, figures in benchmarks.items()
    }
    return {
        "format_version": FORMAT_VERSION,
        "benchmarks": named,
        "average": _mean(benchmarks, "score", benchmarks),
        "average_blind": _mean(benchmarks, "blind", benchmarks),
        **_family_averages(benchmarks, published),
    }


def _family_averages(benchmarks: dict[str, dict[str, Any]], published: Mapping[str, Benchmark]) -> dict[str, Any]:
    members: dict[str, list[str]] = {}
    for name, benchmark in published.items():
        members.setdefault(benchmark.family, []).append(name)
    families = {
        family: {"score": _mean(benchmarks, "score", names), "blind": _mean(benchmarks, "blind", names)}
        for family, names in members.items()
        if benchmarks.keys() >= set(names)
    }
    if not families:
        return {}
    if families.keys() != members.keys():
        return {"families": families}
    whole = {"score": _mean(benchmarks, "score", published), "blind": _mean(benchmarks, "blind", published)}
    return {"families": families, "published": whole}


def _mean(benchmarks: Mapping[str, Mapping[str, Any]], figure: str, names: Collection[str]) -> float:
    return math.fsum(benchmarks[name][figure] for name in names) / len(names)


def bootstrap_interval(graded: Sequence[Graded], seed: int) -> list[float]:
    """95 % percentile interval of the mean score, whole groups redrawn: items about one scene are not independent."""
    sums: dict[str, tuple[float, int]] = {}
    for one in graded:
        total, count = sums.get(one.item.group_id, (0.0, 0))
        sums[one.item.group_id] = (total + one.score, count + 1)
    table = np.array([sums[group] for group in sorted(sums)])  # (g, 2)
    random = np.random.default_rng([seed, len(table)])
    weights = random.multinomial(len(table), np.full(len(table), 1 / len(table)), size=_DRAWS)  # (r, g)
    drawn = weights @ table
    return [round(float(edge), 4) for edge in np.percentile(drawn[:, 0] / drawn[:, 1], _INTERVAL)]


def _pair(seeing: Sequence[Graded], blind: Sequence[Graded]) -> dict[str, Any]:
    return {"score": mean_score(seeing), "blind": mean_score(blind), "n": len(seeing)}


def _subsets(rules: Rules, seeing: Sequence[Graded], blind: Sequence[Graded]) -> dict[str, Any]:
    """The same figures for each named subset of the items."""
    names = sorted({one.item.subset for one in seeing if one.item.subset})
    result = {}
    for name in names:
        members = [one for one in seeing if one.item.subset == name]
        members_blind = [one for one in blind if one.item.subset == name]
        result[name] = {**_pair(members, members_blind), **rules.extras(members)}
    return result
