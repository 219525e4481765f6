"""ScienceQA-IMG on a small copy."""

import logging
from pathlib import Path

import pytest

from .released import figures, picture, read, write_table

FILE = "ScienceQA/ScienceQA-IMG/test-00000-of-00001.parquet"


def _row(number: int, answer: int, hint: str = "", **other: object) -> dict[str, object]:
    row = {"image": picture(number), "question": "Which one?", "choices": ["iron", "wood", "ice"], "answer": answer}
    return {**row, "hint": hint, "subject": "natural science", **other}


def test_prompt_and_accuracy(tmp_path: Path) -> None:
    rows = [_row(0, 0, "It is hard."), _row(1, 1), _row(2, 2), _row(3, 1, subject="social science")]
    write_table(tmp_path / FILE, rows)
    found = read("scienceqa", tmp_path, "ScienceQA/ScienceQA-IMG")
    assert found.bad == []
    asked = "Which one?\nA. iron\nB. wood\nC. ice\nAnswer with the option's letter from the given choices directly."
    assert [item.question for item in found.items[:2]] == [f"Context: It is hard.\n{asked}", asked]
    assert [item.answer for item in found.items] == ["A", "B", "C", "B"]
    scores = figures("scienceqa", found.items, ["A. iron", "wood", "D", "A"])
    # A and the text of B are right; D is no option and so unparsed; A is wrong
    assert (scores["score"], scores["unparsed"], scores["majority"]) == (0.5, 1, 0.5)
    assert scores["subsets"]["natural science"]["score"] == pytest.approx(2 / 3)
    assert scores["subsets"]["social science"]["score"] == 0


def test_rows_without_a_picture_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = "ScienceQA/ScienceQA-FULL/test-00000-of-00001.parquet"
    write_table(tmp_path / FILE, [_row(0, 0)])
    write_table(tmp_path / full, [_row(0, 0), _row(1, 1, image=None)])
    with caplog.at_level(logging.INFO):
        assert len(read("scienceqa", tmp_path, full).items) == 1
    assert "1 questions left out" in caplog.text
    assert len(read("scienceqa", tmp_path, "ScienceQA").items) == 1  # not once in each configuration


def test_bad_rows(tmp_path: Path) -> None:
    rows = [_row(0, 3), _row(1, 0, choices=["one"]), _row(2, 0, subject="alchemy"), _row(3, 2)]
    write_table(tmp_path / FILE, rows)
    found = read("scienceqa", tmp_path, FILE)
    assert len(found.items) == 1
    assert found.bad == [
        '"answer" is 3, none of the 3 options',
        '"choices" is no list of options',
        "\"subject\" is 'alchemy', which this benchmark does not know",
    ]
