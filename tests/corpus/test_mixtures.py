"""Files that hold more than one set: InternVL's meta file, and the two lists of the paper's own code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapbridge.corpus.manifest import BadRow
from gapbridge.errors import InputError

Read = Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]


def _turn(number: int) -> dict[str, Any]:
    said = [{"from": "human", "value": "<image>\nwhat is it"}, {"from": "gpt", "value": f"thing {number}"}]
    return {"id": number, "image": "1.png", "width": 12, "height": 8, "conversations": said}


@pytest.fixture
def save_meta(
    tmp_path: Path, save_picture: Callable[..., Path], save_lines: Callable[..., None]
) -> Callable[[dict[str, float]], None]:
    """Saves the meta file of sets of twenty rows each, with their repeat_time."""

    def save(times: dict[str, float]) -> None:
        save_picture("img/1.png")
        for name in times:
            save_lines(f"{name}.jsonl", [_turn(number) for number in range(20)])
        meta = {
            name: {
                "root": "img",
                "annotation": f"{name}.jsonl",
                "data_augment": False,
                "repeat_time": time,
                "length": 20,
            }
            for name, time in times.items()
        }
        (tmp_path / "meta.json").write_text(json.dumps(meta))

    return save


def test_the_sets_of_internvl(save_meta: Callable[[dict[str, float]], None], read: Read) -> None:
    save_meta({"a": 1, "b": 2, "c": 0.5})
    records, bad = read("internvl", "dialogue", "meta.json")
    names = [one["id"] for one in records]
    assert bad == [] and names[:20] == [f"a/{row}" for row in range(20)]
    assert names[20:24] == ["b/0", "b/0#2", "b/1", "b/1#2"]
    assert len([name for name in names if name.startswith("b/")]) == 40
    kept = [name for name in names if name.startswith("c/")]
    assert 3 <= len(kept) <= 17
    other = [one["id"] for one in read("internvl", "dialogue", "meta.json", seed=1)[0] if one["id"].startswith("c/")]
    assert other != kept
    assert records[0]["turns"] == [{"question": "what is it", "answer": "thing 0"}]
    assert {one["group_id"] for one in records} == {"img/1.png"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not JSON"),
        ("[]", "not an object of sets"),
        ('{"a": {"root": "img"}}', "the set 'a' has no root and annotation"),
        ('{"a": {"root": "img", "annotation": "a.jsonl", "repeat_time": 0}}', "repeat_time 0 of the set 'a'"),
        ('{"a": {"root": "img", "annotation": "missing.jsonl"}}', r"missing\.jsonl does not exist"),
        (
            '{"a\\ud800": {"root": "img", "annotation": "a.jsonl"}}',
            r"'a\\ud800' cannot be taken .the name is not UTF-8",
        ),
        ('{"a": {"root": "../img", "annotation": "a.jsonl"}}', "leaves its root"),
    ],
)
def test_a_meta_file_that_cannot_be_used(
    content: str, message: str, tmp_path: Path, save_meta: Callable[[dict[str, float]], None], read: Read
) -> None:
    save_meta({"a": 1})
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read("internvl", "dialogue", "meta.json")


def test_two_unpaired_lists(tmp_path: Path, save_picture: Callable[..., Path], read: Read) -> None:
    save_picture("img/deep/2.png")
    content = {
        "images": [{"id": "img_001", "image": "0001.jpg"}, {"id": "img_002", "image": "deep/2.png"}],
        "texts": [{"id": "txt_001", "text": "a text"}, "none", {"id": "txt_002", "text": "another"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    texts, (bad,) = read("unpaired", "text", "dataset.json")
    assert [(one["id"], one["text"]) for one in texts] == [("txt_001", "a text"), ("txt_002", "another")]
    assert (bad.place, bad.reason) == ("dataset.json texts 2", "the row is not a JSON object")
    (image,), (missing,) = read("unpaired", "image", "dataset.json", "img")
    assert (image["id"], image["image"]) == ("img_002", "root:img/deep/2.png")
    assert missing.reason == "the picture's file is missing"
