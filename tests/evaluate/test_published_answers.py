"""Hard cases of the published benchmarks' own ways to find an answer."""

import pytest

from gapbridge.evaluate.answers import (
    Short,
    boxed_letter,
    listed_letters,
    no_before_yes,
    opening_yes_or_no,
    option_letter,
    short_answers,
    short_forms,
)
from gapbridge.evaluate.layouts import listed_in


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        (" No, it is not", "no"),
        ("Not at all", "no"),
        ("'yes'", "yes"),
        ("The answer is yes", None),
        ("Maybe", None),
        ("", None),
    ],
)
def test_opening_yes_or_no(raw: str, expected: str | None) -> None:
    assert opening_yes_or_no(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Yes, there is a cup.", "yes"),
        ("There is no cup, yes", "no"),
        ("NO", "no"),
        ("Yes. It is not red.", "yes"),
        ("There is a cup.", None),
        ("a yellow nose", None),
        ("", None),
    ],
)
def test_no_before_yes(raw: str, expected: str | None) -> None:
    assert no_before_yes(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (r"\boxed{C}", "C"),
        (r"Answer: \boxed{\text{b}}.", "B"),
        (r"\boxed{A}, no: \boxed{$D$}", "D"),
        (r"\boxed{AB}", None),
        (r"\boxed{$LETTER}", None),
        (r"\boxed{E}", None),
        ("C", None),
    ],
)
def test_boxed_letter(raw: str, expected: str | None) -> None:
    assert boxed_letter(raw, 4) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("A, C", "AC"),
        ("C and A.", "AC"),
        ("The answers are (B) and (D).", "BD"),
        ("The correct options are A, B, and D", "ABD"),
        ("A, J", None),
        ("The dots, A and B, differ in size", None),
        ("", None),
    ],
)
def test_listed_letters(raw: str, expected: str | None) -> None:
    assert listed_letters(raw, 9) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (r"First (A), then (B). Answer: \( C \)", "C"),
        (r"Answer: $B$", "B"),
        (r"Answer: \( \text{D} \)", "D"),
        ("a) and b) fail. Thus, the correct option is D.", "D"),
        ("The correct choice is B, though C comes close", "B"),
    ],
)
def test_letters_shown_as_mathematics_or_called_correct(raw: str, expected: str) -> None:
    assert option_letter(raw, [""] * 4) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("The answer is 5.", [5.0]),
        ("x is 3\ny = 4", [3.0, 4.0]),
        ("It is $1,234.50", ["$1,234.50", 1234.5]),
        ("-120 V", ["-120 v", -120.0]),
        ("6.02e23", [6.02e23]),
        ("C", [" c", "c "]),
        ("So the capital is Tampa", ["tampa"]),
        ("1/64", ["1/64", 1.0, 64.0]),
        ("nan", ["nan"]),
        ("", []),
        ("...", []),
    ],
)
def test_short_answers(raw: str, expected: list[Short]) -> None:
    assert short_answers(raw) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("0.9965", [1.0]), ("2,000", [2000.0]), ("MgS", ["mgs"]), ("B", [" b", "b "]), ("", [])],
)
def test_short_forms(answer: str, expected: list[Short]) -> None:
    assert short_forms(answer) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which?\nA. a cat\nB. a dog\nAnswer.", ["a cat", "a dog", "", ""]),
        ("Which? (A) True (B)False (C) Unknown", ["True", "False", "Unknown", ""]),
        ("Which?\nA) one\nC) two", ["", "", "", ""]),
        ("Which of A, B, C?", ["", "", "", ""]),
    ],
)
def test_options_in_a_question(question: str, expected: list[str]) -> None:
    assert listed_in(question, 4) == expected
