"""Pictures from a folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapbridge.corpus.quarantine import BadRow, write_quarantine
from gapbridge.errors import InputError


def test_pictures_are_found_in_depth_and_named_by_their_paths(
    save_picture: Callable[..., Path], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    save_picture("photos/b.png", 1)
    save_picture("photos/deep/a.JPG", 2, (10, 6))
    save_picture("photos/.hidden.png", 3)
    records, bad = read("folder", "image", "photos")
    assert bad == []
    assert [(r["id"], r["group_id"], r["image"]) for r in records] == [
        ("b.png", "photos/b.png", "root:photos/b.png"),
        ("deep/a.JPG", "photos/deep/a.JPG", "root:photos/deep/a.JPG"),
    ]
    assert (records[1]["width"], records[1]["height"], records[1]["caption"]) == (10, 6, None)


def test_what_is_no_picture_is_told_by_name_and_reason(
    save_picture: Callable[..., Path], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], tmp_path: Path
) -> None:
    whole = save_picture("photos/good.png").read_bytes()
    (tmp_path / "photos/cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos/words.png").write_text("no picture")
    (tmp_path / "photos/notes.txt").write_text("no picture either")
    save_picture("photos/large.png", size=(200, 60))
    _, bad = read("folder", "image", "photos")
    assert {one.place: one.reason for one in bad} == {
        "photos/cut.png": "the picture is truncated or damaged",
        "photos/large.png": "more than 10000 pixels (ingest.max_image_pixels)",
        "photos/notes.txt": "not named like a picture",
        "photos/words.png": "not a picture in a known format",
    }


def test_links_may_not_leave_the_folder(
    save_picture: Callable[..., Path], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], tmp_path: Path
) -> None:
    save_picture("photos/good.png", 1)
    save_picture("elsewhere/secret.png", 2)
    (tmp_path / "photos/out.png").symlink_to(tmp_path / "elsewhere/secret.png")
    (tmp_path / "photos/circle.png").symlink_to(tmp_path / "photos/circle.png")
    (tmp_path / "photos/deep").mkdir()
    (tmp_path / "photos/link").symlink_to(tmp_path / "photos/deep")
    records, bad = read("folder", "image", "photos")
    assert [record["id"] for record in records] == ["good.png"]
    assert {one.id: one.reason for one in bad} == {
        "circle.png": "the path leaves its root",
        "link": "a link to a folder; put the folder itself there",
        "out.png": "the path leaves its root",
    }


def test_names_that_no_table_can_hold_are_told_escaped(
    save_picture: Callable[..., Path], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], tmp_path: Path
) -> None:
    picture = save_picture("photos/grün.png").read_bytes()
    odd = tmp_path / "photos" / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    for path in (odd / "a.png", odd.with_suffix(".png"), tmp_path / "photos/two\nlines.png"):
        path.write_bytes(picture)
    (tmp_path / "photos/link.png").symlink_to(odd.with_suffix(".png"))
    records, bad = read("folder", "image", "photos")
    assert [record["id"] for record in records] == ["grün.png"]
    assert {one.id: one.reason for one in bad} == {
        r"caf\udce9/a.png": "the name is not UTF-8",
        r"caf\udce9.png": "the name is not UTF-8",
        "link.png": "the name is not UTF-8",
        r"two\nlines.png": "the name holds a line break",
    }
    write_quarantine(tmp_path / "quarantine.parquet", bad)


def test_a_pipe_is_not_waited_for(
    save_picture: Callable[..., Path], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]], tmp_path: Path
) -> None:
    save_picture("photos/good.png")
    os.mkfifo(tmp_path / "photos/pipe.png")
    records, bad = read("folder", "image", "photos")
    assert [record["id"] for record in records] == ["good.png"]
    assert [(one.id, one.reason) for one in bad] == [("pipe.png", "not a regular file")]


def test_a_missing_folder_and_a_wish_for_captions_are_refused(
    save_picture: Callable[..., Path], read: Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]
) -> None:
    with pytest.raises(InputError, match="photos does not exist"):
        read("folder", "image", "photos")
    save_picture("photos/a.png")
    with pytest.raises(InputError, match="has no captions"):
        read("folder", "image", "photos", captions=True)
