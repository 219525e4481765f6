"""Rules of each kind of benchmark, on answers made by hand."""

import pytest

from gapbridge.evaluate.accuracy import NormalisedMatch
from gapbridge.evaluate.benchmarks import rules_for
from gapbridge.evaluate.caption_f1 import BoundAttributesF1
from gapbridge.evaluate.protocol import Item, grade
from gapbridge.evaluate.yes_no import YesNo


def test_rules_follow_from_the_id_and_the_right_answers() -> None:
    assert isinstance(rules_for("pope", ["yes", "no"]), YesNo)
    assert isinstance(rules_for("even", ["Yes", "no"]), YesNo)
    assert isinstance(rules_for("digit", ["7", "no"]), NormalisedMatch)
    assert isinstance(rules_for("negation", ["not"]), NormalisedMatch)
    assert isinstance(rules_for("caption_f1", ["a red circle"]), BoundAttributesF1)


def test_normalised_match() -> None:
    rules = NormalisedMatch(["red", "blue", "red"])
    assert rules.score(rules.parse("The circle is red."), "Red") == 1
    assert rules.score(rules.parse("blue"), "red") == 0
    assert rules.score(rules.parse("red blue"), "red") == 0
    assert rules.majority(["red", "blue", "red"]) == pytest.approx(2 / 3)


def test_yes_no() -> None:
    rules = YesNo()
    items = [Item(str(n), "pope", "g", "q", answer) for n, answer in enumerate(["yes", "no", "no", "no"])]
    graded = grade(rules, items, ["q"] * 4, ["yes", "Yes.", "no", "perhaps"])
    assert [one.score for one in graded] == [1, 0, 1, 0]
    assert [one.parsed for one in graded] == ["yes", "yes", "no", None]
    assert rules.extras(graded) == {"yes_rate": 0.5}
    assert rules.majority(["yes", "no", "no", "no"]) == 0.75


RIGHT = "a red circle on the left and a blue ring at the top"


@pytest.mark.parametrize(
    ("said", "f1"),
    [
        (RIGHT, 1.0),
        ("a blue ring at the top and a red circle on the left", 1.0),
        ("a red circle on the left", 2 * 2 / (2 + 4)),
        ("a blue circle on the left and a red ring at the top", 2 * 2 / (4 + 4)),
        ("a blue circle at the top and a red ring on the left", 0.0),
        ("something", 0.0),
        ("", 0.0),
    ],
)
def test_captions_are_scored_by_bound_attributes(said: str, f1: float) -> None:
    rules = BoundAttributesF1()
    assert rules.score(rules.parse(said), RIGHT) == pytest.approx(f1)


def test_a_caption_without_attributes_is_unparsed() -> None:
    assert BoundAttributesF1().parse("nothing to see") is None


def test_the_best_constant_caption_is_the_floor() -> None:
    other = "a red circle on the left"
    assert BoundAttributesF1().majority([RIGHT, other]) == pytest.approx((1 + 2 / 3) / 2)
