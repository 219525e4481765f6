"""POPE's three published files, and the parquet copy."""

from pathlib import Path

import pytest

from gapbridge.errors import InputError

from .released import figures, picture, read, write_lines, write_picture, write_table

LABELS = ["yes", "no", "yes", "no"]
IMAGE = "COCO_val2014_000000000001.jpg"


def _rows(labels: list[str]) -> list[dict[str, object]]:
    text = "Is there a cup in the image?"
    return [{"question_id": n, "image": IMAGE, "text": text, "label": label} for n, label in enumerate(labels, 1)]


def _write(root: Path) -> None:
    write_lines(root / "pope/coco_pope_random.json", _rows(LABELS))
    write_lines(root / "pope/coco_pope_adversarial.json", _rows(LABELS[:2]))
    write_picture(root / "val2014" / IMAGE, 0)


def test_accuracy_precision_recall_f1_and_yes_rate(tmp_path: Path) -> None:
    _write(tmp_path)
    found = read("pope_official", tmp_path, "pope", "val2014")
    assert found.bad == []
    assert [item.item_id for item in found.items] == [
        "adversarial/1",
        "adversarial/2",
        *(f"random/{n}" for n in range(1, 5)),
    ]
    assert found.items[0].question == "Is there a cup in the image?"
    said = {
        "random/1": "Yes, there is a cup. It is not red.",  # the first sentence counts: yes, right
        "random/2": "Yes",  # wrong
        "random/3": "No, there is not.",  # wrong
        "random/4": "There is not a cup in the image",  # no, right
        "adversarial/1": "yes",  # right
        "adversarial/2": "I see a table.",  # neither: not right, where the official scorer takes it for yes
    }
    scores = figures("pope_official", found.items, said)
    assert (scores["score"], scores["unparsed"], scores["protocol"]) == (0.5, 1, "pope/1")
    # random: yes is said twice, once rightly, of two that are there
    random = scores["subsets"]["random"]
    assert (random["score"], random["precision"], random["recall"], random["f1"]) == (0.5, 0.5, 0.5, 0.5)
    assert random["yes_rate"] == 0.5
    # all: yes is said three times, twice rightly, of three that are there
    assert scores["precision"] == scores["recall"] == scores["f1"] == pytest.approx(2 / 3)
    assert (scores["yes_rate"], scores["majority"]) == (0.5, 0.5)


def test_never_yes_has_no_precision(tmp_path: Path) -> None:
    _write(tmp_path)
    found = read("pope_official", tmp_path, "pope/coco_pope_adversarial.json", "val2014")
    scores = figures("pope_official", found.items, ["no", "no"])
    assert (scores["precision"], scores["recall"], scores["f1"], scores["yes_rate"]) == (None, 0, 0, 0)


def test_the_parquet_copy(tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "question_id": "1", "question": "Is there a cup?", "answer": "yes", "image_source": IMAGE}
        | {"image": picture(0), "category": category}
        for n, category in enumerate(("adversarial", "popular", "random", "random", "taste"))
    ]
    write_table(tmp_path / "POPE/data/test-00000-of-00001.parquet", rows)
    found = read("pope_official", tmp_path, "POPE/data")
    assert [item.item_id for item in found.items] == ["adversarial/1", "popular/1", "random/1"]
    assert {item.group_id for item in found.items} == {IMAGE}
    assert found.bad == ["the id was used before", "\"category\" is 'taste', which this benchmark does not know"]
    assert figures("pope_official", found.items, ["yes", "yes", "no"])["score"] == pytest.approx(2 / 3)


def test_bad_rows(tmp_path: Path) -> None:
    _write(tmp_path)
    rows = [*_rows(["yes", "maybe"]), _rows(["no"])[0] | {"question_id": 3, "image": "gone.jpg"}]
    write_lines(tmp_path / "pope/coco_pope_random.json", rows)
    found = read("pope_official", tmp_path, "pope/coco_pope_random.json", "val2014")
    assert (len(found.items), found.bad) == (1, ['"label" is neither yes nor no', "the picture's file is missing"])


@pytest.mark.parametrize(
    ("name", "images", "message"),
    [
        ("questions.json", "val2014", "does not say which of POPE's subsets it holds"),
        ("coco_pope_random.json", None, r"sources\.benchmark\.images: name the folder"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path: Path, name: str, images: str | None, message: str) -> None:
    write_lines(tmp_path / name, _rows(LABELS))
    write_picture(tmp_path / "val2014" / IMAGE, 0)
    with pytest.raises(InputError, match=message):
        read("pope_official", tmp_path, name, images)
