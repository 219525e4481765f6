"""LLaVA's JSON list."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapbridge.corpus.manifest import BadRow
from gapbridge.errors import InputError


def row(name: str = "a", image: str = "1.png", **fields: Any) -> dict[str, Any]:
    spoken = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "a cat"},
        {"from": "human", "value": "Is it big?"},
        {"from": "gpt", "value": "no"},
    ]
    return {"id": name, "image": image, "conversations": spoken, **fields}


@pytest.fixture
def save(tmp_path: Path, save_picture: Callable[..., Path]) -> Callable[[Any], None]:
    """Saves the rows beside one good picture, img/1.png."""
    save_picture("img/1.png")

    def write(rows: Any) -> None:
        (tmp_path / "l.json").write_text(json.dumps(rows))

    return write


def test_a_dialogue_keeps_every_turn_and_drops_the_mark(
    save: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    save([row(context="a cat on a mat")])
    (record,), bad = read("llava", "dialogue", "l.json", "img")
    assert bad == []
    assert record["turns"] == [
        {"question": "What is it?", "answer": "a cat"},
        {"question": "Is it big?", "answer": "no"},
    ]
    assert (record["image"], record["group_id"]) == ("root:img/1.png", "img/1.png")
    assert record["context"] == "a cat on a mat"


def test_the_first_answer_is_the_text_of_a_pair_and_the_caption_of_an_image(
    save: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    save([row(group_id="g")])
    (pair,), _ = read("llava", "pair", "l.json", "img")
    (plain,), _ = read("llava", "image", "l.json", "img")
    (captioned,), _ = read("llava", "image", "l.json", "img", captions=True)
    assert (pair["text"], pair["group_id"]) == ("a cat", "g")
    assert (plain["caption"], captioned["caption"]) == (None, "a cat")


def test_a_picture_whose_file_no_table_can_name_is_a_bad_row(
    save: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], tmp_path: Path
) -> None:
    (tmp_path / "img" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    (tmp_path / "img" / "link.png").symlink_to(tmp_path / "img" / os.fsdecode(b"\xff.png"))
    save([row("a"), row("b", image="link.png"), row("c", image="2\n.png")])
    records, bad = read("llava", "dialogue", "l.json", "img")
    assert [record["id"] for record in records] == ["a"]
    assert [(one.id, one.reason) for one in bad] == [
        ("b", "the name is not UTF-8"),
        ("c", "the name holds a line break"),
    ]


def test_words_alone_for_the_language_model(
    save: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    words = row(context="a cat")
    del words["image"]
    save([words, row("b")])
    (record,), (bad,) = read("llava", "language", "l.json")
    assert (record["context"], record["group_id"], len(record["turns"])) == ("a cat", "l.json#a", 2)
    assert (bad.place, bad.reason) == ("l.json row 2", '"image" stands where only words are expected')


@pytest.mark.parametrize(
    ("bad_row", "reason"),
    [
        ("text", "the row is not a JSON object"),
        ({"image": "1.png"}, '"id" is missing'),
        ({"id": "x", "image": "1.png"}, '"conversations" is missing'),
        (row("x", conversations=[]), '"conversations" is not a list of objects'),
        (row("x", conversations=[{"from": "human", "value": "a"}]), "does not alternate"),
        (row("x", conversations=[{"from": "gpt", "value": "a"}] * 2), "does not alternate"),
        (row("x", conversations=[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a"}]), "is empty"),
        (row("x", conversations=[{"from": "human", "value": "a"}, {"from": "gpt"}]), '"value" is missing'),
        (row("x", image=["1.png"]), '"image" is not a text'),
        (row("x", image="missing.png"), "the picture's file is missing"),
        (row("x", image="../l.json"), "the path leaves its root"),
        (row("x", image="/etc/hostname"), "the path leaves its root"),
        (row("x", image="a\0b.png"), "the path leaves its root"),
        (row("good"), "the id was used before"),
        (row("x", image=["1.png", "2.png"]), "names several pictures"),
        (
            row("x", conversations=[{"from": "human", "value": "<image>\n<image> a"}, {"from": "gpt", "value": "b"}]),
            "speaks of several pictures",
        ),
    ],
)
def test_a_bad_row_is_told_by_number_and_reason(
    save: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], bad_row: Any, reason: str
) -> None:
    save([row("good"), bad_row])
    records, (bad,) = read("llava", "dialogue", "l.json", "img")
    assert [record["id"] for record in records] == ["good"]
    assert bad.place == "l.json row 2"
    assert reason in bad.reason


def test_a_picture_with_no_text_in_the_question_is_a_pair_all_the_same(
    save: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    save([row(conversations=[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a cat"}])])
    (pair,), bad = read("llava", "pair", "l.json", "img")
    assert (pair["text"], bad) == ("a cat", [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"id": 1,}]', "l.json after row 0: not JSON"),
        ('"a"', "neither a JSON list nor JSON Lines"),
        ("\xff", "neither a JSON list nor JSON Lines"),
        ('["\xff"]', "l.json after row 0: not"),
        ('[{"id": 1}, {"id": 2', "l.json after row 1: not JSON"),
    ],
)
def test_a_file_that_is_no_list_is_refused_whole(
    tmp_path: Path, read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], content: str, message: str
) -> None:
    (tmp_path / "l.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read("llava", "dialogue", "l.json", "img")


def test_the_folder_of_the_pictures_must_be_named_and_exist(
    save: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    save([row()])
    with pytest.raises(InputError, match=r"sources\.texts\.images: name the folder"):
        read("llava", "dialogue", "l.json")
    with pytest.raises(InputError, match="photos does not exist"):
        read("llava", "dialogue", "l.json", "photos")


def test_json_lines_are_the_same_rows(
    save_lines: Callable[..., None],
    save_picture: Callable[..., Path],
    read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]],
) -> None:
    """As InternVL's annotations and some of Bunny's are."""
    save_picture("img/1.png")
    save_lines("l.jsonl", [row("a"), b"{", row("b")])
    records, (bad,) = read("llava", "dialogue", "l.jsonl", "img")
    assert [record["id"] for record in records] == ["a", "b"]
    assert (bad.place, bad.reason) == ("l.jsonl line 2", "the line does not parse as JSON")


def test_words_that_speak_of_a_picture_need_a_context(
    save: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    words, lost = row("a", context="a cat"), row("b")
    del words["image"], lost["image"]
    save([words, lost])
    (record,), (bad,) = read("llava", "language", "l.json")
    assert (record["id"], record["context"]) == ("a", "a cat")
    assert (bad.id, bad.reason) == ("b", '"conversations" speaks of a picture, and no "context" stands in its place')
