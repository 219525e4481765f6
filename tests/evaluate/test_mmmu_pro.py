"""MMMU-Pro on a small copy: ten options, and the question inside the picture."""

import logging
from pathlib import Path

import pytest

from gapbridge.evaluate.mmmu import PICTURES

from .released import figures, picture, read, write_table

TEN = [f"option {number}" for number in range(10)]
STANDARD, VISION = "MMMU_Pro/standard (10 options)", "MMMU_Pro/vision"
PART = "test-00000-of-00001.parquet"


def _standard(
    name: str, answer: str, options: object = TEN, question: str = "Which is <image 1>?"
) -> dict[str, object]:
    row = {"id": name, "question": question, "options": str(options), "answer": answer, "subject": "Art"}
    return {**row, **dict.fromkeys(PICTURES), "image_1": picture(1)}


def _vision(name: str, answer: str) -> dict[str, object]:
    return {"id": name, "image": picture(2), "options": str(TEN), "answer": answer, "subject": "Art"}


def test_both_settings_and_their_mean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [_standard(f"test_Art_{n}", answer) for n, answer in enumerate("JAB")]
    several = _standard("test_Art_9", "A", [f"<image {n % 2 + 1}>" for n in range(10)]) | {"image_2": picture(3)}
    write_table(tmp_path / STANDARD / PART, [*rows, several], PICTURES)
    write_table(tmp_path / "MMMU_Pro/standard (4 options)" / PART, rows, PICTURES)
    write_table(tmp_path / VISION / PART, [_vision("test_Art_0", "J")])
    with caplog.at_level(logging.INFO):
        found = read("mmmu_pro", tmp_path, "MMMU_Pro")
    assert "4 questions left out" in caplog.text  # one of several pictures, three of four options
    assert found.bad == []
    standard, vision = found.items[0], found.items[3]
    lines = standard.question.split("\n")
    assert (lines[0], lines[1], lines[10]) == ("Which is [image]?", "A. option 0", "J. option 9")
    assert lines[11:] == ["Answer with the option letter from the given choices directly."]
    assert vision.question.startswith(lines[11])
    assert vision.question.endswith("'Answer: $LETTER' (without quotes) where LETTER is one of options.")

    ids = [f"standard/test_Art_{n}" for n in range(3)] + ["vision/test_Art_0"]
    assert [item.item_id for item in found.items] == ids
    scores = figures("mmmu_pro", found.items, ["J", "The answer is (A).", "A or B", "Answer: C"])
    # standard: J and A are right, "A or B" is unparsed: 2 of 3; vision: 0 of 1
    assert (scores["score"], scores["unparsed"], scores["protocol"]) == (0.5, 1, "mmmu-pro/1")
    assert scores["official"] == pytest.approx((2 / 3 + 0) / 2)
    assert "official" not in scores["subsets"]["vision"]


def test_bad_rows(tmp_path: Path) -> None:
    rows = [
        _standard("a", "B", [["A", "B"]]),
        _standard("b", "K"),
        _standard("c", "A", "nothing"),
        _standard("d", "A") | {"image_1": None},
        _standard("e", "A"),
    ]
    write_table(tmp_path / STANDARD / PART, rows, PICTURES)
    found = read("mmmu_pro", tmp_path, STANDARD)
    assert len(found.items) == 1
    assert found.bad == [
        '"options" is no list of options',
        "\"answer\" is 'K', none of the 10 options",
        '"options" is no list',
        '"image_1" holds no picture',
    ]
