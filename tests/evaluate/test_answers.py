"""Raw generations to answers."""

import time

import pytest

from gapbridge.evaluate.answers import (
    boxed_letter,
    choices,
    find_choice,
    listed_letters,
    no_before_yes,
    opening_yes_or_no,
    option_letter,
    short_answers,
    words,
    yes_or_no,
)

COLORS = choices(["red", "light blue", "blue", "Green"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("The Red.", ("red",)), ("  two  objects!", ("2", "objects")), ("a", ()), ("Ｒｅｄ", ("red",))],
)
def test_words(text: str, expected: tuple[str, ...]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("red", "red"),
        ("It is Green.", "green"),
        ("a light blue one", "light blue"),
        ("red or blue", None),
        ("red , red", "red"),
        ("light blue and blue", None),
        ("reddish", None),
        ("", None),
    ],
)
def test_the_one_known_answer_is_found(raw: str, expected: str | None) -> None:
    assert find_choice(raw, COLORS) == expected


def test_numbers_in_words_and_digits_are_the_same() -> None:
    assert find_choice("there are two", choices(["1", "2"])) == find_choice("2", choices(["one", "two"])) == "2"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("yes", "yes"),
        ("No.", "no"),
        ("Yes, there is no doubt", "yes"),
        ("there is not", "no"),
        ("maybe. yes", None),
        ("a yellow nose", None),
        ("", None),
    ],
)
def test_yes_or_no(raw: str, expected: str | None) -> None:
    assert yes_or_no(raw) == expected


ANIMALS = ["a dog", "a cat", "a black cat", "neither"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("B", "B"),
        ("b", "B"),
        ("a", "A"),
        ("(B)", "B"),
        ("B.", "B"),
        (" b) ", "B"),
        ("**B**", "B"),
        ("Ｂ．", "B"),
        ("\\boxed{B}", "B"),
        ("$\\boxed{\\text{}}$ B", "B"),
        ("B. a cat", "B"),
        ("(b) a cat", "B"),
        ("B: a cat", "B"),
        ("B a cat", "B"),
        ("The answer is B", "B"),
        ("the answer is (b).", "B"),
        ("Answer: B", "B"),
        ("**Answer:** B", "B"),
        ("The correct answer is: **B**", "B"),
        ("The answer is option B.", "B"),
        ("option b", "B"),
        ("I would choose option (B)", "B"),
        ("It must be B, as it has a tail.", "B"),
        ("A is right.", "A"),
        ("It is A.", "A"),
        ("A is wrong, so the answer is C.", "C"),
        ("Option A has ears and option B a tail. Answer: B", "B"),
        ("The answer is A. No, the answer is B.", "B"),
        ("答案是B。", "B"),
        ("正解は（Ｃ）です", "C"),
        ("La respuesta es B.", "B"),
        ("Die Antwort ist „B“.", "B"),
        ("A dog", "A"),
        ("A cat is shown", "B"),
        ("a cat", "B"),
        ("It is the Cat!", "B"),
        ("a black cat", "C"),
        ("A black cat sits there", "C"),
        ("A horse", None),
        ("the answer is a horse", None),
        ("the answer is a cat", "B"),
        ("A and B", None),
        ("A or B", None),
        ("A, B", None),
        ("A/B", None),
        ("The answer is A or B", None),
        ("The answer is A, B and C", None),
        ("A. a dog\nB. a cat", None),
        ("(A) or (B)", None),
        ("a dog and a cat", None),
        ("It is not B", None),
        ("The answer is not B", None),
        ("It isn't B.", None),
        ("E", None),
        ("The answer is F", None),
        ("Bravo", None),
        ("ABC", None),
        ("I don't know.", None),
        ("", None),
        ("  \n", None),
        ("?", None),
    ],
)
def test_the_letter_of_one_option(raw: str, expected: str | None) -> None:
    assert option_letter(raw, ANIMALS) == expected


@pytest.mark.parametrize(
    ("raw", "choices_", "expected"),
    [
        ("2", ["1", "2", "3"], "B"),
        ("two", ["1", "2", "3"], "B"),
        ("There are 2.", ["1", "2", "3"], "B"),
        ("2 or 3", ["1", "2", "3"], None),
        ("-3", ["3", "-3"], "B"),
        ("it is 3", ["3", "-3"], None),
        ("1.5", ["1.5", "15"], "A"),
        ("→", ["←", "→"], "B"),
        ("vitamin C", ["vitamin C", "vitamin A", "vitamin B"], "A"),
        ("It has vitamin C", ["vitamin C", "vitamin A", "vitamin B"], "A"),
        ("B vitamin C", ["vitamin D", "vitamin C"], "B"),
        ("Yes", ["Yes", "No"], "A"),
        ("No, it is not", ["Yes", "No"], "B"),
        ("same", ["same", "same"], None),
        ("I", list("123456789"), "I"),
        ("I think so", list("123456789"), None),
        ("B", [], None),
    ],
)
def test_options_of_every_sort(raw: str, choices_: list[str], expected: str | None) -> None:
    assert option_letter(raw, choices_) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "A and " * 2000, "A " * 4000, "answer A, and " * 2000, "answer A" + " " * 8000 + "x", "not B " * 2000,
        "\\boxed{" * 2000, "(" * 8000, "1," * 4000, " \n" * 4000, "*" * 8000,
    ],
)  # fmt: skip
def test_a_generation_that_turns_in_circles_is_read_in_no_time(raw: str) -> None:
    begin = time.process_time()
    for find in (yes_or_no, no_before_yes, opening_yes_or_no, short_answers):
        find(raw)
    option_letter(raw, ANIMALS)
    boxed_letter(raw, 4)
    listed_letters(raw, 4)
    assert time.process_time() - begin < 2
