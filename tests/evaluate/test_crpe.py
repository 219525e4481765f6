"""CRPE on a small copy: accuracy over questions, and over circles of four."""

from pathlib import Path

import pytest

from gapbridge.errors import InputError

from .released import figures, read, write_lines, write_picture

NAMES = ["cat", "dog", "cup", "hat"]


def _circle(first: int, category: str, image: str) -> list[dict[str, object]]:
    """One question asked four times: the right option, cat, stands at A, D, C, B."""
    rows = []
    for turn in range(4):
        options = "\n".join(f"{sign}. {NAMES[(place + turn) % 4]}" for place, sign in enumerate("ABCD"))
        text = f"What is it?\n{options}\nAnswer with the option's letter from the given choices directly."
        right = "ADCB"[turn]
        row = {"question_id": first + turn, "image": image, "text": text, "category": category, "correct_option": right}
        rows.append(row)
    return rows


def _write(root: Path) -> None:
    exist = _circle(0, "exist", "coco/val2017/1.jpg") + _circle(4, "exist", "coco/val2017/2.jpg")
    write_lines(root / "CRPE/crpe_exist.jsonl", exist)
    relation = _circle(0, "subject", "coco/val2017/1.jpg") + _circle(4, "object", "abnormal_images/3.jpg")
    write_lines(root / "CRPE/crpe_relation.jsonl", relation)
    for number, path in enumerate(("coco/val2017/1.jpg", "coco/val2017/2.jpg", "abnormal_images/3.jpg")):
        write_picture(root / "CRPE" / path, number)


def test_questions_and_circles(tmp_path: Path) -> None:
    _write(tmp_path)
    found = read("crpe", tmp_path, "CRPE")
    assert found.bad == []
    assert len(found.items) == 16
    said = {item.item_id: item.answer for item in found.items}
    said["exist/5"] = "A"  # D is right
    said["relation/3"] = "B. cat"  # right
    said["relation/6"] = "perhaps"  # unparsed
    scores = figures("crpe", found.items, said)
    assert (scores["score"], scores["unparsed"], scores["protocol"]) == (14 / 16, 1, "crpe/1")
    # circles: exist 1 of 2, subject 1 of 1, object 0 of 1
    assert scores["circular"] == 0.5
    assert scores["circular_relation"] == 0.5
    assert {name: part["circular"] for name, part in scores["subsets"].items()} == {
        "exist": 0.5,
        "subject": 1,
        "object": 0,
    }
    assert scores["majority"] == 0.25


def test_one_file_alone_and_pictures_elsewhere(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "CRPE/coco").rename(tmp_path / "coco")
    found = read("crpe", tmp_path, "CRPE/crpe_exist.jsonl", ".")
    assert len(found.items) == 8
    assert "circular_relation" not in figures("crpe", found.items, ["A"] * 8)


def test_a_circle_that_lost_a_question_is_none(tmp_path: Path) -> None:
    _write(tmp_path)
    rows = _circle(0, "exist", "coco/val2017/1.jpg") + _circle(4, "exist", "coco/val2017/2.jpg")
    rows[1]["correct_option"] = "AB"
    rows.append(rows[0] | {"question_id": 9, "category": "taste"})
    write_lines(tmp_path / "CRPE/crpe_exist.jsonl", rows)
    found = read("crpe", tmp_path, "CRPE/crpe_exist.jsonl", "CRPE")
    assert found.bad == [
        "\"correct_option\" is 'AB', none of the 4 options",
        "\"category\" is 'taste', which this benchmark does not know",
    ]
    said = {item.item_id: item.answer for item in found.items}
    said["exist/0"] = "C"  # in the circle that is none
    scores = figures("crpe", found.items, said)
    assert (scores["score"], scores["circular"]) == (6 / 7, 1)


def test_a_line_that_does_not_parse_makes_no_false_circle(tmp_path: Path) -> None:
    _write(tmp_path)
    path = tmp_path / "CRPE/crpe_exist.jsonl"
    path.write_text("{\n" + path.read_text().split("\n", 1)[1])
    found = read("crpe", tmp_path, "CRPE/crpe_exist.jsonl", "CRPE")
    assert found.bad == ["the line does not parse as JSON"]
    # the circles counted off are rows 2-5 and 6-8: of two pictures, and of three rows
    assert figures("crpe", found.items, {item.item_id: item.answer for item in found.items})["circular"] is None


def test_a_folder_without_the_files_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "CRPE").mkdir()
    with pytest.raises(InputError, match=r"CRPE holds no crpe_exist\.jsonl or crpe_relation\.jsonl"):
        read("crpe", tmp_path, "CRPE")
