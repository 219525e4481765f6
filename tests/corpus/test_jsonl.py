"""Texts from JSON Lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gapbridge.corpus.manifest import BadRow
from gapbridge.errors import InputError

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "text", "group_id", "x"]), inner),
    max_leaves=8,
)


def test_rows_become_texts_with_default_ids_and_groups(
    save_lines: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    save_lines("t.jsonl", [{"text": " a cat "}, {"id": 7, "text": "a dog", "group_id": 3}])
    records, bad = read("jsonl", "text", "t.jsonl")
    assert bad == []
    assert records == [
        {"id": "line-000000001", "group_id": "t.jsonl#line-000000001", "source": "t.jsonl", "text": "a cat"},
        {"id": "7", "group_id": "3", "source": "t.jsonl", "text": "a dog"},
    ]


def test_a_text_for_the_language_model_has_no_turns(
    save_lines: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    save_lines("t.jsonl", [{"text": "a cat"}])
    (record,), _ = read("jsonl", "language", "t.jsonl")
    assert (record["text"], record["context"], record["turns"]) == ("a cat", None, [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"text": "a', "the line does not parse as JSON"),
        (b"[" * 100_000, "the line does not parse as JSON"),
        (b'{"text": "\xff"}', "the line is not UTF-8"),
        (b'["text"]', "the line is not a JSON object"),
        ({"id": "x"}, '"text" is missing'),
        ({"text": 3}, '"text" is not a text'),
        ({"text": " \n"}, '"text" is empty'),
        (b'{"text": "\\ud800"}', '"text" holds half a surrogate pair'),
        ({"id": 1.5, "text": "a"}, '"id" is not a text'),
        ({"id": "", "text": "a"}, '"id" is empty'),
        ({"text": "a", "group_id": []}, '"group_id" is not a text'),
        ({"id": "first", "text": "again"}, "the id was used before"),
    ],
)
def test_a_bad_row_is_told_by_line_and_reason(
    save_lines: Callable[..., None],
    read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]],
    row: Any,
    reason: str,
) -> None:
    save_lines("t.jsonl", [{"id": "first", "text": "good"}, b"", row, {"id": "last", "text": "good"}])
    records, bad = read("jsonl", "text", "t.jsonl")
    assert [record["id"] for record in records] == ["first", "last"]
    assert [(one.place, one.reason) for one in bad] == [("t.jsonl line 3", reason)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY_JSON, max_size=6))
def test_every_row_becomes_a_record_or_a_bad_row(
    save_lines: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], rows: Any
) -> None:
    assume(not (len(rows) == 1 and isinstance(rows[0], list)))  # such a file is an array, and refused as a whole
    save_lines("t.jsonl", rows)
    records, bad = read("jsonl", "text", "t.jsonl")
    assert len(records) + len(bad) == len(rows)
    assert all(record["text"].strip() for record in records)


@pytest.mark.parametrize("path", ["missing.jsonl", ".", "../outside.jsonl", "/etc/hostname"])
def test_a_source_that_is_no_file_inside_the_root_is_refused(
    read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], path: str
) -> None:
    with pytest.raises(InputError, match=r"sources\.texts\.path: .*(is no file|does not exist|leaves its root)"):
        read("jsonl", "text", path)


def test_a_format_that_cannot_give_the_records_names_those_that_can(
    save_lines: Callable[..., None], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    save_lines("t.jsonl", [])
    with pytest.raises(InputError, match="jsonl gives no dialogue records; use internvl or llava"):
        read("jsonl", "dialogue", "t.jsonl")


def test_densefusion_gives_pairs_pictures_or_texts(
    save_lines: Callable[..., None],
    save_picture: Callable[..., Path],
    read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]],
) -> None:
    """Fields of DenseFusion-1M: image_id, image_path, caption, url."""
    save_picture("img/00/7.png")
    row = {"image_id": "a7", "image_path": "00/7.png", "caption": "a cat", "url": "example"}
    save_lines("d.jsonl", [row, {**row, "image_id": "a8", "image_path": "00/8.png"}])
    (pair,), (bad,) = read("jsonl", "pair", "d.jsonl", "img")
    assert (pair["id"], pair["text"], pair["image"], pair["group_id"]) == (
        "a7",
        "a cat",
        "root:img/00/7.png",
        "img/00/7.png",
    )
    assert (bad.id, bad.reason) == ("a8", "the picture's file is missing")
    assert [one["text"] for one in read("jsonl", "text", "d.jsonl")[0]] == ["a cat", "a cat"]
    assert read("jsonl", "image", "d.jsonl", "img")[0][0]["caption"] is None
    assert read("jsonl", "image", "d.jsonl", "img", captions=True)[0][0]["caption"] == "a cat"
