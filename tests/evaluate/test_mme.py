"""MME: official sums and accuracy plus on a small copy with every subtask."""

from pathlib import Path

import pytest

from gapbridge.evaluate.mme import AREAS

from .released import figures, picture, read, write_table

FILE = "MME/data/test-00000-of-00001.parquet"


def _row(pair: str, question: str, answer: str, number: int) -> dict[str, object]:
    text = f"{question} Please answer yes or no."
    return {
        "question_id": pair,
        "image": picture(number),
        "question": text,
        "answer": answer,
        "category": pair.split("/")[0],
    }


def _copy(root: Path) -> None:
    """A picture for each of the 14 subtasks, a second one for existence: 30 questions."""
    pairs = [f"{subtask}/1.png" for area in AREAS.values() for subtask in area] + ["existence/2.png"]
    rows = [
        _row(pair, f"Is this {word}?", answer, number)
        for number, pair in enumerate(pairs)
        for word, answer in (("so", "Yes"), ("not so", "No"))
    ]
    write_table(root / FILE, rows)


def test_official_sums(tmp_path: Path) -> None:
    _copy(tmp_path)
    found = read("mme", tmp_path, "MME")
    assert found.bad == []
    assert len(found.items) == 30
    one = next(item for item in found.items if item.item_id == "OCR/1.png#2")
    assert (one.question, one.answer, one.subset) == ("Is this not so? Please answer yes or no.", "no", "OCR")
    assert one.group_id == "OCR/1.png"

    said = {item.item_id: item.answer.capitalize() for item in found.items}
    said["existence/2.png#2"] = "Yes, it is."  # wrong
    said["count/1.png#1"], said["count/1.png#2"] = "no", "yes"  # both wrong
    said["color/1.png#1"] = "perhaps"  # neither
    said["text_translation/1.png#1"] = "The answer is yes"  # not among the first four characters
    scores = figures("mme", found.items, said)

    # 30 questions, of which 1 + 2 + 1 + 1 are not right
    assert scores["score"] == pytest.approx(25 / 30)
    # 15 pictures, of which existence/2, count, color, text_translation have not both right
    assert scores["accuracy_plus"] == pytest.approx(11 / 15)
    # existence 75 + 50 (3 of 4 questions, 1 of 2 pictures), count 0, color 50 + 0, seven others 200 each
    assert scores["perception"] == pytest.approx(125 + 0 + 50 + 7 * 200)
    # text_translation 50 + 0, three others 200 each
    assert scores["cognition"] == pytest.approx(50 + 3 * 200)
    assert (scores["unparsed"], scores["majority"], scores["protocol"]) == (2, 0.5, "mme/1")
    assert scores["subsets"]["existence"] == {"score": 0.75, "blind": 0, "n": 4, "accuracy_plus": 0.5}


def test_a_picture_that_lost_a_question_has_no_accuracy_plus(tmp_path: Path) -> None:
    rows = [_row("count/1.png", "One?", "Yes", 0), _row("count/1.png", "Two?", "maybe", 0)]
    write_table(tmp_path / FILE, rows)
    found = read("mme", tmp_path, "MME/data")
    assert found.bad == ['"answer" is neither yes nor no']
    scores = figures("mme", found.items, ["Yes"])
    assert (scores["score"], scores["accuracy_plus"]) == (1, None)
    assert "perception" not in scores  # nine of its subtasks are not there


def test_bad_rows(tmp_path: Path) -> None:
    rows = [_row("count/1.png", "One?", "Yes", 0), _row("taste/1.png", "Sweet?", "No", 1), {}]
    rows[2] = _row("count/2.png", "Two?", "Yes", 2) | {"image": None}
    write_table(tmp_path / FILE, rows)
    found = read("mme", tmp_path, FILE)
    assert [item.item_id for item in found.items] == ["count/1.png#1"]
    assert found.bad == ["\"category\" is 'taste', which this benchmark does not know", '"image" holds no picture']
