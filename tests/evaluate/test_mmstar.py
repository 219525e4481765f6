"""MMStar on a small copy."""

from pathlib import Path

import pytest

from .released import figures, picture, read, write_table

OPTIONS = "Options: A: red, B: blue, C: green, D: grey"


def _row(index: int, answer: str, category: str) -> dict[str, object]:
    asked = f"Which colour is it?\n{OPTIONS}"
    return {"index": index, "question": asked, "image": picture(index), "answer": answer, "category": category}


def test_accuracy_over_all_questions(tmp_path: Path) -> None:
    rows = [_row(n, answer, "math") for n, answer in enumerate("ABC")] + [_row(3, "D", "logical reasoning")]
    write_table(tmp_path / "mmstar.parquet", rows)
    found = read("mmstar", tmp_path, "mmstar.parquet")
    assert found.bad == []
    assert found.items[0].question == (
        f"Which colour is it?\n{OPTIONS}\nAnswer with the option's letter from the given choices directly."
    )
    scores = figures("mmstar", found.items, ["A", "The answer is B.", "(D)", "D. grey"])
    # A, B, D are right, C is not: 3 of 4; math has 2 of 3
    assert scores["score"] == 0.75
    assert scores["subsets"]["math"]["score"] == pytest.approx(2 / 3)
    assert scores["subsets"]["logical reasoning"]["score"] == 1
    assert (scores["majority"], scores["unparsed"], scores["protocol"]) == (0.25, 0, "mmstar/1")


def test_what_names_no_letter_is_counted(tmp_path: Path) -> None:
    write_table(tmp_path / "mmstar.parquet", [_row(0, "A", "math"), _row(1, "B", "math")])
    found = read("mmstar", tmp_path, "mmstar.parquet")
    scores = figures("mmstar", found.items, ["A or B", "I cannot tell"])
    assert (scores["score"], scores["unparsed"]) == (0, 2)


def test_bad_rows(tmp_path: Path) -> None:
    rows = [_row(0, "A", "math"), _row(1, "E", "math"), _row(2, "A", "taste"), _row(3, "A", "math") | {"image": None}]
    write_table(tmp_path / "mmstar.parquet", rows)
    found = read("mmstar", tmp_path, "mmstar.parquet")
    assert [item.item_id for item in found.items] == ["0"]
    assert found.bad == [
        "\"answer\" is 'E', none of the 4 options",
        "\"category\" is 'taste', which this benchmark does not know",
        '"image" holds no picture',
    ]
