"""Rules of each kind of benchmark, on answers made by hand."""

import pytest

from gapbridge.evaluate.accuracy import NormalisedMatch
from gapbridge.evaluate.benchmarks import rules_for
from gapbridge.evaluate.caption_f1 import BoundAttributesF1
from gapbridge.evaluate.protocol import Item, Rules, grade
from gapbridge.evaluate.yes_no import YesNo


def items(answers: list[str]) -> list[Item]:
    return [Item(str(n), "b", "g", "q", answer) for n, answer in enumerate(answers)]


def score(rules: Rules, said: str, answer: str) -> float:
    (item,) = items([answer])
    return rules.score(rules.parse(said, item), item)


def test_rules_follow_from_the_id_and_the_right_answers() -> None:
    assert isinstance(rules_for("pope", items(["yes", "no"])), YesNo)
    assert isinstance(rules_for("even", items(["Yes", "no"])), YesNo)
    assert isinstance(rules_for("digit", items(["7", "no"])), NormalisedMatch)
    assert isinstance(rules_for("negation", items(["not"])), NormalisedMatch)
    assert isinstance(rules_for("caption_f1", items(["a red circle"])), BoundAttributesF1)


def test_normalised_match() -> None:
    rules = NormalisedMatch(["red", "blue", "red"])
    assert score(rules, "The circle is red.", "Red") == 1
    assert score(rules, "blue", "red") == 0
    assert score(rules, "red blue", "red") == 0
    assert rules.majority(items(["red", "blue", "red"])) == pytest.approx(2 / 3)


def test_yes_no() -> None:
    rules = YesNo()
    graded = grade(rules, items(["yes", "no", "no", "no"]), ["q"] * 4, ["yes", "Yes.", "no", "perhaps"])
    assert [one.score for one in graded] == [1, 0, 1, 0]
    assert [one.parsed for one in graded] == ["yes", "yes", "no", None]
    assert rules.extras(graded) == {"yes_rate": 0.5}
    assert rules.majority(items(["yes", "no", "no", "no"])) == 0.75


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
    assert score(BoundAttributesF1(), said, RIGHT) == pytest.approx(f1)


def test_a_caption_without_attributes_is_unparsed() -> None:
    assert BoundAttributesF1().parse("nothing to see", items([RIGHT])[0]) is None


def test_the_best_constant_caption_is_the_floor() -> None:
    other = "a red circle on the left"
    assert BoundAttributesF1().majority(items([RIGHT, other])) == pytest.approx((1 + 2 / 3) / 2)
