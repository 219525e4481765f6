"""MMMU-Pro: MMMU's questions with up to ten options (standard), and as screenshots that hold the question (vision).

Layout: the maintainers' parquet, MMMU/MMMU_Pro, folders `standard (10 options)` and `vision`, split test: id, options
(a Python list as text), answer, and question with image_1 … image_7, or image alone. Questions with several pictures
are left out, and so is the folder of four options. Protocol: MMMU-Benchmark/MMMU, mmmu-pro/evaluate.py, with the direct
prompts of mmmu-pro/prompts.yaml. The official figure is the mean of the two settings.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from gapbridge.corpus import parquet
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Draft, Origin, identified, words
from gapbridge.corpus.questions import question, questions
from gapbridge.evaluate.layouts import embedded, letter, listed, texts
from gapbridge.evaluate.mmmu import PICTURES, literal, single_picture
from gapbridge.evaluate.protocol import Benchmark, Graded
from gapbridge.evaluate.right_or_wrong import RightOrWrong, accuracy, chosen_letter, split

_STANDARD = "Answer with the option letter from the given choices directly."
_VISION = (
    f"{_STANDARD} The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes)"
    " where LETTER is one of options."
)
_SETTINGS = ("standard", "vision")
_NOT_ASKED = "standard (4 options)"
_MARK = re.compile(r"<image \d>")


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """Questions of both settings; ids begin with the setting."""
    del kind

    def make(row: parquet.TableRow) -> Draft | None:
        if _NOT_ASKED in row.place:
            return None
        name = identified(row.fields, "id")
        is_standard = row.fields.get("question") is not None
        picture = single_picture(row) if is_standard else embedded(row, "image")
        if picture is None:
            return None
        choices = texts(literal(row.fields, "options"), "options")
        setting = _SETTINGS[0 if is_standard else 1]
        return question(
            origin,
            row.place,
            f"{setting}/{name}",
            benchmark="mmmu_pro",
            text=_asked(words(row.fields, "question"), choices) if is_standard else _VISION,
            answer=letter(row.fields, "answer", len(choices)),
            picture=picture,
            subset=setting,
            detail={"choices": choices},
        )

    return questions(origin, parquet.rows(origin, ["image", *PICTURES], "test-"), make)


def _asked(asked: str, choices: Sequence[str]) -> str:
    return _MARK.sub("[image]", f"{asked}\n{listed(choices)}\n{_STANDARD}")


def _mean_of_settings(graded: Sequence[Graded]) -> dict[str, Any]:
    """`official`: the mean of the accuracies of both settings, where both are there."""
    parts = split(graded, lambda item: item.subset)
    if set(parts) != set(_SETTINGS):
        return {}
    return {"official": sum(accuracy(part) for part in parts.values()) / len(parts)}


BENCHMARK = Benchmark(
    name="mmmu_pro",
    title="MMMU-Pro",
    family="reasoning",
    layout="MMMU/MMMU_Pro, standard (10 options) and vision, test split (parquet)",
    source="MMMU-Benchmark/MMMU mmmu-pro/evaluate.py",
    protocols=("mmmu-pro/1",),
    read=read,
    rules=lambda items: RightOrWrong("mmmu-pro/1", chosen_letter, _mean_of_settings),
    max_new_tokens=128,
)
