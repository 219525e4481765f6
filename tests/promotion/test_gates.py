from dataclasses import replace
from typing import Any

import pytest

from gapbridge.promotion.compare import Comparison, Difference
from gapbridge.promotion.gates import Gate, Thresholds, comparison_gates, evidence_gates, gap_gate, passed, score_gates

LIMITS = Thresholds("not_worse", {"pope": 0.8}, 0.05, 1.5, (0.3, 0.7))


def evaluate(score: float = 0.9, yes_rate: float = 0.5) -> dict[str, Any]:
    return {"benchmarks": {"pope": {"score": score, "yes_rate": yes_rate}, "count": {"score": 0.2}}}


def difference(low: float, high: float, value: float = -0.01, name: str = "pope") -> Difference:
    return Difference(name, 100, 0.8 + value, 0.8, value, (low, high))


def fallen(gates: list[Gate]) -> list[str]:
    return [gate.name for gate in gates if not gate.passed]


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        (evaluate(), []),
        (evaluate(score=0.8), []),
        (evaluate(score=0.79), ["minimum pope"]),
        (evaluate(yes_rate=0.71), ["yes-rate pope"]),
        (evaluate(yes_rate=0.29), ["yes-rate pope"]),
        ({"benchmarks": {}}, ["minimum pope"]),
    ],
)
def test_scores_and_yes_rates(metrics: dict[str, Any], names: list[str]) -> None:
    assert fallen(list(score_gates(metrics, LIMITS))) == names


@pytest.mark.parametrize(
    ("realign", "holds"),
    [
        ({"gap_heldout": 0.15, "sampling_floor": 0.1}, True),
        ({"gap_heldout": 0.16, "sampling_floor": 0.1}, False),
        ({"gap_heldout": None, "sampling_floor": None}, False),
        ({}, False),
    ],
)
def test_the_gap_is_measured_by_its_floor(realign: dict[str, Any], holds: bool) -> None:
    assert gap_gate(realign, LIMITS).passed is holds


def test_a_first_model_has_nothing_to_be_compared_with() -> None:
    (gate,) = comparison_gates(None, LIMITS)
    assert gate.passed and "no champion" in gate.figure


@pytest.mark.parametrize(
    ("require", "interval", "holds"),
    [
        ("not_worse", (-0.04, 0.02), True),
        ("not_worse", (-0.04, -0.01), False),
        ("better", (-0.01, 0.05), False),
        ("better", (0.01, 0.05), True),
    ],
)
def test_the_average_by_its_interval(require: Any, interval: tuple[float, float], holds: bool) -> None:
    comparison = Comparison((difference(-0.1, 0.1),), difference(*interval, name="average"), {})
    gates = list(comparison_gates(comparison, replace(LIMITS, require=require)))
    assert fallen(gates) == ([] if holds else ["average"])
    assert passed(gates) is holds


def test_a_large_loss_in_one_benchmark_and_other_items_are_refused() -> None:
    parts = (difference(-0.1, 0.1, value=-0.06), difference(-0.1, 0.1, value=-0.05, name="count"))
    comparison = Comparison(parts, difference(-0.1, 0.1, name="average"), {"shape": "3 of the items"})
    assert fallen(list(comparison_gates(comparison, LIMITS))) == ["same items shape", "drop pope"]
    assert fallen(list(comparison_gates(Comparison((), None, {}), LIMITS))) == ["average"]


def test_evidence_says_what_is_wrong() -> None:
    gates = list(evidence_gates({"lineage": None, "probe": "1 of 3 answers differs"}))
    assert fallen(gates) == ["probe"] and gates[1].figure == "1 of 3 answers differs"
