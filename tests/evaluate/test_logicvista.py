"""LogicVista on a small copy: one right letter or several."""

import json
from pathlib import Path

import pytest

from gapbridge.errors import InputError

from .released import figures, read, write_picture


def _question(number: int, answer: str, skill: str, question: str = "Which (A-D)?") -> dict[str, object]:
    return {"imagename": f"v1_{number}.png", "question": question, "answer": answer, "reasoning": "", "skill": [skill]}


def _write(root: Path, entries: object) -> None:
    (root / "data").mkdir()
    (root / "data/dataset.json").write_text(json.dumps(entries), encoding="utf-8")


def test_all_right_letters_and_no_other(tmp_path: Path) -> None:
    options = "Is it later? Select from A, B and C. (A) True (B)False (C)Insufficient Information"
    _write(
        tmp_path,
        {
            "v1_0": _question(0, "C", "inductive"),
            "v1_1": _question(1, "A, C", "inductive"),
            "v1_2": _question(2, "B, D", "spatial"),
            "v1_3": _question(3, "B", "deductive", options),
            "v1_4": _question(4, "G", "numerical", "Who? Select from A-I."),
        },
    )
    for number in range(5):
        write_picture(tmp_path / f"data/images/v1_{number}.png", number)
    found = read("logicvista", tmp_path, "data")
    assert found.bad == []
    assert [item.answer for item in found.items] == ["C", "AC", "BD", "B", "G"]
    assert found.items[0].question == "Which (A-D)?\nAnswer with the option's letter from the given choices directly."
    scores = figures("logicvista", found.items, ["C", "C and A.", "B", "False", "The shape."])
    # C right, A and C right in any order, B alone of B and D wrong, the text of B right, the last unparsed: 3 of 5
    assert (scores["score"], scores["unparsed"], scores["protocol"]) == (0.6, 1, "logicvista-rule/1")
    assert scores["subsets"]["inductive"]["score"] == 1


def test_bad_rows(tmp_path: Path) -> None:
    entries = {"v1_0": _question(0, "3", "inductive"), "v1_1": _question(1, "A", "taste"), "v1_2": "A"}
    _write(tmp_path, {**entries, "v1_3": _question(3, "", "spatial", ""), "v1_4": _question(4, "A", "spatial")})
    write_picture(tmp_path / "data/images/v1_4.png", 4)
    found = read("logicvista", tmp_path, "data")
    assert [item.item_id for item in found.items] == ["v1_4"]
    assert found.bad == [
        "\"answer\" is '3', no letters of options",
        "\"skill\" is 'taste', which this benchmark does not know",
        "the question is not a JSON object",
        '"question" is empty',
    ]


@pytest.mark.parametrize(("text", "message"), [("[]", "no object of questions"), ("{", "not JSON")])
def test_another_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read("logicvista", tmp_path, "dataset.json")
    assert "\n" not in str(caught.value)
