"""What can be said about a handwritten digit: descriptions, questions and their right answers."""

from dataclasses import dataclass

import numpy as np

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STROKES = ("thin", "", "bold")
WIDTHS = ("narrow", "", "wide")
DESCRIBE = "describe the picture"
WHICH = "Which digit is this?"
EVEN = "Is it even?"
LARGE = "Is it greater than four?"

_TEMPLATES = (
    "a handwritten {name}",
    "a {style} handwritten {name}",
    "a scan of a {style} {name}",
    "the digit {numeral} , written by hand",
    "a {style} {numeral} , written by hand",
    "the {style} number {name}",
    "a picture of the {style} digit {name}",
    "{name} , {style} and {parity}",
    "a {parity} digit : a {style} {name}",
    "the {style} numeral {numeral} , that is {name}",
    "a {style} {name} , {compared} than four",
    "somebody wrote a {style} {name}",
    "a {style} {name} on white paper",
    "{style} ink that says {name}",
)


@dataclass(frozen=True)
class Digit:
    """What is known of one digit: its value (0–9), the stroke and the width of its writing."""

    value: int
    stroke: str
    width: str

    @property
    def name(self) -> str:
        """The digit in letters."""
        return NAMES[self.value]


def descriptions(digit: Digit) -> list[str]:
    """Every sentence of the grammar about `digit`, without repeats."""
    style = " ".join(word for word in (digit.stroke, digit.width) if word) or "plain"
    fields = {
        "name": digit.name,
        "numeral": digit.value,
        "style": style,
        "parity": "odd" if digit.value % 2 else "even",
        "compared": "greater" if digit.value > 4 else "no greater",
    }
    return list(dict.fromkeys(template.format(**fields) for template in _TEMPLATES))


def all_descriptions() -> list[str]:
    """Every sentence that the grammar knows, sorted."""
    digits = [Digit(value, stroke, width) for value in range(10) for stroke in STROKES for width in WIDTHS]
    return sorted({sentence for digit in digits for sentence in descriptions(digit)})


def describe(digit: Digit, random: np.random.Generator) -> str:
    """One sentence about `digit`."""
    sentences = descriptions(digit)
    return sentences[random.integers(len(sentences))]


def presence(digit: Digit, present: bool, random: np.random.Generator) -> tuple[str, str]:
    """Whether there is a certain digit: a question with its answer, yes if `present`."""
    asked = digit.value if present else (digit.value + random.integers(1, 10)) % 10
    return f"Is there a {NAMES[asked]}?", "yes" if present else "no"


def questions(digit: Digit, sentence: str, random: np.random.Generator) -> list[tuple[str, str]]:
    """Every kind of question about `digit` with its answer, in random order; `sentence` describes it."""
    asked = [
        (DESCRIBE, sentence),
        (WHICH, digit.name),
        (EVEN, "no" if digit.value % 2 else "yes"),
        (LARGE, "yes" if digit.value > 4 else "no"),
        presence(digit, random.random() < 0.5, random),
        presence(digit, random.random() < 0.5, random),
    ]
    return [asked[i] for i in random.permutation(len(asked))]
