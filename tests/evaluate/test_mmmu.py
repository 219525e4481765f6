"""MMMU's validation split on a small copy: multiple choice, short answers, several pictures."""

import logging
from pathlib import Path

import pytest

from gapbridge.evaluate.mmmu import PICTURES

from .released import figures, picture, read, write_table

FILE = "MMMU/data/validation-00000-of-00001.parquet"


def _row(
    name: str, answer: str, options: list[str] | None, question: str = "What is in <image 1>?"
) -> dict[str, object]:
    row = {"id": f"validation_{name}", "question": question, "options": str(options or []), "answer": answer}
    kind = "multiple-choice" if options else "open"
    return {**row, "question_type": kind, **dict.fromkeys(PICTURES), "image_1": picture(len(name))}


def _write(root: Path, rows: list[dict[str, object]]) -> None:
    write_table(root / FILE, rows, PICTURES)


def test_prompts_and_scores(tmp_path: Path) -> None:
    _write(
        tmp_path,
        [
            _row("Art_1", "B", ["a vase", "a jug"]),
            _row("Art_Theory_12", "A", ["a vase", "a jug"]),
            _row("Math_15", "['24/7', '3.429']", None),
            _row("Math_16", "2,000.5", None),
            _row("Chemistry_7", "C", None),
        ],
    )
    found = read("mmmu", tmp_path, "MMMU")
    assert found.bad == []
    items = {item.item_id.removeprefix("validation_"): item for item in found.items}
    assert items["Art_1"].question == (
        "What is in <image 1>?\n(A) a vase\n(B) a jug\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert items["Math_15"].question == "What is in <image 1>?\nAnswer the question using a single word or phrase."
    assert items["Math_15"].answer == "24/7"

    said = {
        "validation_Art_1": "(B)",  # right
        "validation_Art_Theory_12": "It is hard to say.",  # unparsed, where the official scorer draws a letter
        "validation_Math_15": "The answer is 3.43.",  # 3.429 to two places: right
        "validation_Math_16": "So it is $2000.50",  # right
        "validation_Chemistry_7": "carbon",  # C alone is asked for, not a word that begins with it: wrong
    }
    scores = figures("mmmu", found.items, said)
    assert (scores["score"], scores["unparsed"], scores["protocol"]) == (0.6, 1, "mmmu/1")
    assert {name: part["score"] for name, part in scores["subsets"].items()} == {
        "Art and Design": 0.5,
        "Science": 2 / 3,
    }


def test_questions_with_several_pictures_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    several = _row("Art_2", "A", ["<image 1>", "<image 2>"], "Which one?") | {"image_2": picture(9)}
    named = _row("Art_3", "A", ["one", "two"], "Look at <image 2>, and again at <image 2>.") | {"image_2": picture(8)}
    _write(tmp_path, [_row("Art_1", "B", ["a vase", "a jug"]), several, named])
    with caplog.at_level(logging.INFO):
        found = read("mmmu", tmp_path, "MMMU")
    assert [item.item_id for item in found.items] == ["validation_Art_1", "validation_Art_3"]
    assert found.items[1].group_id.endswith("#image_2#2")
    assert "1 questions left out" in caplog.text


def test_bad_rows(tmp_path: Path) -> None:
    nowhere = _row("Art_5", "A", ["one", "two"]) | {"image_1": None}
    rows = [
        _row("Art_1", "C", ["one", "two"]),
        _row("Alchemy_1", "A", ["one", "two"]),
        _row("Art_3", "A", ["one", "two"]) | {"options": "['one',"},
        _row("Art_4", "['', 'x']", None),
        nowhere,
        _row("Art_6", "A", ["one", "two"]),
    ]
    _write(tmp_path, rows)
    found = read("mmmu", tmp_path, FILE)
    assert len(found.items) == 1
    assert found.bad == [
        "\"answer\" is 'C', none of the 2 options",
        '"id" names no subject of MMMU',
        '"options" is no list',
        '"answer" is no list of answers',
        '"image_1" holds no picture',
    ]
