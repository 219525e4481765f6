"""VisuLogic on a small copy."""

from pathlib import Path

import pytest

from gapbridge.errors import InputError

from .released import figures, read, write_lines, write_picture

CATEGORIES = ["Quantitative Reasoning", "Other", "Other", "Spatial Reasoning"]


def _row(number: int, label: str, tag: str) -> dict[str, str]:
    image = f"images/{number:05d}.png"
    return {"id": f"{number:05d}", "image_path": image, "question": "Which comes next?", "label": label, "tag": tag}


def test_boxed_and_told_letters(tmp_path: Path) -> None:
    rows = [_row(number, label, tag) for number, (label, tag) in enumerate(zip("ABCD", CATEGORIES, strict=True))]
    write_lines(tmp_path / "VisuLogic/data.jsonl", rows)
    for number in range(4):
        write_picture(tmp_path / f"VisuLogic/images/{number:05d}.png", number)
    found = read("visulogic", tmp_path, "VisuLogic")
    assert found.bad == []
    assert found.items[0].question.endswith("answer the question following this format: Answer: \\boxed{$LETTER}.")
    assert found.items[0].group_id == "VisuLogic/images/00000.png"
    said = [
        "(B) turns left, (C) turns right. Answer: \\boxed{A}",  # right: the box counts
        "The correct answer is (B).",  # right
        "\\boxed{\\text{D}}",  # wrong
        "The figures turn by a quarter.",  # unparsed, where the official scorer asks a language model
    ]
    scores = figures("visulogic", found.items, said)
    assert (scores["score"], scores["unparsed"], scores["protocol"]) == (0.5, 1, "visulogic-rule/1")
    assert scores["subsets"]["Other"]["score"] == 0.5


def test_bad_rows_and_missing_pictures(tmp_path: Path) -> None:
    rows = [_row(0, "A", "Other"), _row(1, "E", "Other"), _row(2, "A", "Taste"), _row(3, "A", "Other")]
    rows.append(_row(4, "A", "Other") | {"image_path": "../secret.png"})
    write_lines(tmp_path / "data.jsonl", rows)
    write_picture(tmp_path / "shown/images/00000.png", 0)
    found = read("visulogic", tmp_path, "data.jsonl", "shown")
    assert [item.item_id for item in found.items] == ["00000"]
    assert set(found.bad) == {
        "\"label\" is 'E', none of the 4 options",
        "\"tag\" is 'Taste', which this benchmark does not know",
        "the picture's file is missing",
        "the path leaves its root",
    }


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.jsonl", r"sources\.benchmark\.path: gone\.jsonl does not exist"),
        ("empty", r"sources\.benchmark\.path: empty holds no data\.jsonl"),
        ("data.jsonl", r"sources\.benchmark\.images: name the folder"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    write_lines(tmp_path / "data.jsonl", [_row(0, "A", "Other")])
    with pytest.raises(InputError, match=message):
        read("visulogic", tmp_path, path)
