"""POPE's JSON Lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapbridge.corpus.manifest import BadRow
from gapbridge.errors import InputError


def question(**fields: Any) -> dict[str, Any]:
    return {"question_id": 1, "image": "1.png", "text": "Is there a cat?", "label": "Yes", **fields}


def test_rows_become_questions(
    save_picture: Callable[..., Path],
    save_lines: Callable[..., None],
    read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]],
) -> None:
    save_picture("img/1.png")
    other = question(question_id=2, label="Seven", benchmark="digit", subset="easy", group_id="g")
    save_lines("p.jsonl", [question(), other])
    (first, second), bad = read("pope", "question", "p.jsonl", "img")
    assert bad == []
    assert (first["id"], first["benchmark"], first["answer"], first["subset"]) == ("1", "pope", "yes", None)
    assert (first["group_id"], first["novel"]) == ("img/1.png", False)
    assert (second["benchmark"], second["answer"], second["subset"], second["group_id"]) == (
        "digit", "Seven", "easy", "g",
    )  # fmt: skip
    assert first["sha256"] == second["sha256"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"label": "maybe"}, "neither yes nor no"),
        ({"label": ""}, '"label" is empty'),
        ({"text": None}, '"text" is not a text'),
        ({"question_id": True}, '"question_id" is not a text'),
        ({"image": "no.png"}, "the picture's file is missing"),
    ],
)
def test_a_bad_row_is_told(
    save_picture: Callable[..., Path],
    save_lines: Callable[..., None],
    read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]],
    fields: dict[str, Any],
    reason: str,
) -> None:
    save_picture("img/1.png")
    save_lines("p.jsonl", [question(**fields)])
    records, (bad,) = read("pope", "question", "p.jsonl", "img")
    assert records == []
    assert bad.place == "p.jsonl line 1"
    assert reason in bad.reason


@pytest.mark.parametrize("content", [b'[{"id": 1}]', b"[\n  {}\n]"])
def test_one_array_of_objects_is_told_from_an_object_a_line(
    tmp_path: Path, read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], content: bytes
) -> None:
    (tmp_path / "list.json").write_bytes(content)
    with pytest.raises(InputError, match="one JSON array, not an object a line; set format to llava"):
        read("pope", "question", "list.json")
