"""The gates of a promotion: each compares one figure of the candidate with a limit from params.yaml."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gapbridge.promotion.compare import Comparison, Difference

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Thresholds:
    """The limits; scores and rates are fractions of 1."""

    require: Literal["not_worse", "better"]
    """`better`: the interval of the average difference lies above zero; `not_worse`: it reaches up to zero at least."""
    minimum: Mapping[str, float]
    """Least score by benchmark."""
    max_drop: float
    """The most that any benchmark may lose against the champion."""
    max_gap_over_floor: float
    """The most that the held-out gap may be, over its sampling floor."""
    yes_rate: tuple[float, float]
    """The band for the share of yes in benchmarks of yes and no."""


@dataclass(frozen=True)
class Gate:
    """One condition: the figure found, its limit, and whether it holds."""

    name: str
    passed: bool
    figure: str
    limit: str


def score_gates(evaluate: Mapping[str, Any], thresholds: Thresholds) -> Iterator[Gate]:
    """Least scores, and the yes-rate of every benchmark that has one; `evaluate` is metrics/evaluate.json."""
    benchmarks = evaluate.get("benchmarks", {})
    for name, least in sorted(thresholds.minimum.items()):
        score = benchmarks.get(name, {}).get("score")
        passed = score is not None and score >= least
        yield Gate(f"minimum {name}", passed, _figure(score), f"at least {least:.4g}")
    low, high = thresholds.yes_rate
    for name, figures in sorted(benchmarks.items()):
        if (rate := figures.get("yes_rate")) is not None:
            yield Gate(f"yes-rate {name}", low <= rate <= high, _figure(rate), f"{low:.4g} to {high:.4g}")


def gap_gate(realign: Mapping[str, Any], thresholds: Thresholds) -> Gate:
    """The held-out gap over its sampling floor; `realign` is metrics/realign.json."""
    gap, floor = realign.get("gap_heldout"), realign.get("sampling_floor")
    limit = f"at most {thresholds.max_gap_over_floor:.4g} times its sampling floor"
    if gap is None or not floor:
        return Gate("held-out gap", False, f"{NOT_MEASURED} (realign.holdout is 0)", limit)
    ratio = gap / floor
    return Gate("held-out gap", ratio <= thresholds.max_gap_over_floor, f"{ratio:.3f} ({gap:.4g} / {floor:.4g})", limit)


def comparison_gates(comparison: Comparison | None, thresholds: Thresholds) -> Iterator[Gate]:
    """Against the champion (None: there is none): the same items, no large loss anywhere, the average not worse."""
    if comparison is None:
        yield Gate("against the champion", True, "there is no champion", "–")
        return
    for name, reason in sorted(comparison.unmatched.items()):
        yield Gate(f"same items {name}", False, reason, "the same items under the same protocol")
    for one in comparison.benchmarks:
        limit = f"at least {-thresholds.max_drop:+.4g}"
        yield Gate(f"drop {one.benchmark}", one.difference >= -thresholds.max_drop, _difference(one), limit)
    if comparison.average is None:
        yield Gate("average", False, NOT_MEASURED, "benchmarks that both answered")
        return
    low, high = comparison.average.interval
    better = thresholds.require == "better"
    limit = "interval above 0" if better else "interval reaches 0"
    yield Gate("average", low > 0 if better else high >= 0, _difference(comparison.average), limit)


def evidence_gates(problems: Mapping[str, str | None]) -> Iterator[Gate]:
    """One gate a question about the package itself; a value of None says that all is well."""
    for name, problem in problems.items():
        yield Gate(name, problem is None, problem or "in order", "complete")


def passed(gates: Sequence[Gate]) -> bool:
    """Whether every gate holds."""
    return all(gate.passed for gate in gates)


def _figure(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.4f}"


def _difference(one: Difference) -> str:
    low, high = one.interval
    return f"{one.difference:+.4f} ({low:+.4f} to {high:+.4f}, {one.items} items)"
