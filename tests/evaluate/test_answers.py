"""Raw generations to answers."""

import pytest

from gapbridge.evaluate.answers import choices, find_choice, words, yes_or_no

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
