"""Tars whose members are named as webdataset and img2dataset name them."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.pictures import Pictures
from gapbridge.errors import ArtifactError, InputError
from tests.corpus.test_tables import picture, png

Read = Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]


@pytest.fixture
def save_tar(tmp_path: Path) -> Callable[..., Path]:
    """Saves a tar of (name, content) in their order; a TarInfo is added as it is."""

    def save(name: str, members: list[tuple[str, bytes] | tarfile.TarInfo], mode: str = "w") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, mode) as archive:
            for member in members:
                if isinstance(member, tarfile.TarInfo):
                    archive.addfile(member)
                    continue
                header = tarfile.TarInfo(member[0])
                header.size = len(member[1])
                archive.addfile(header, io.BytesIO(member[1]))
        return path

    return save


def _img2dataset(number: int) -> list[tuple[str, bytes]]:
    key = f"{number:09d}"
    facts = {"key": key, "caption": f"picture {number}", "url": "example", "status": "success", "width": 12}
    return [
        (f"{key}.jpg", png(number)),
        (f"{key}.txt", f"picture {number}".encode()),
        (f"{key}.json", json.dumps(facts).encode()),
    ]


def test_the_tars_of_img2dataset(save_tar: Callable[..., Path], read: Read, tmp_path: Path) -> None:
    for shard in (0, 1):
        save_tar(f"data/{shard:05d}.tar", [one for row in (0, 1) for one in _img2dataset(10 * shard + row)])
    records, bad = read("webdataset", "pair", "data")
    assert bad == []
    assert [one["id"] for one in records] == ["000000000", "000000001", "000000010", "000000011"]
    assert records[3]["text"] == "picture 11"
    assert records[3]["image"] == "tar:data/00001.tar#000000011.jpg"
    shown = Pictures(tmp_path, tmp_path).load(records[3]["image"], records[3]["sha256"])
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(picture(11)))
    assert [one["text"] for one in read("webdataset", "text", "data/00000.tar")[0]] == ["picture 0", "picture 1"]
    (first, *_), _ = read("webdataset", "image", "data/00000.tar", captions=True)
    assert first["caption"] == "picture 0"


def test_webdataset_names_samples_by_folder_and_first_dot(save_tar: Callable[..., Path], read: Read) -> None:
    save_tar("a.tar", [("x/1.seg.png", png(1)), ("x/1.txt", b"one"), ("y/1.png", png(2)), ("y/1.txt", b"two")])
    save_tar("b.tar", [("x/1.png", png(3)), ("x/1.txt", b"three")])
    records, bad = read("webdataset", "pair", ".")
    assert bad == []
    assert [(one["id"], one["text"]) for one in records] == [("a/x/1", "one"), ("a/y/1", "two"), ("b/x/1", "three")]


def _link(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
    return member


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../1.png", png(1)), ("../1.txt", b"a")], "the path leaves its root"),
        ([("/1.png", png(1)), ("/1.txt", b"a")], "the path leaves its root"),
        ([_link("1.png"), ("1.txt", b"a")], "not a regular file"),
        ([("1.png", png(1)[:60]), ("1.txt", b"a")], "the picture is truncated or damaged"),
        ([("1.png", png(1))], '"text" is missing'),
        ([("1.txt", b"a")], '"image" is missing'),
        ([("1.png", png(1)), ("1.txt", b"\xff")], "the sample's text is not UTF-8"),
        ([("1.png", png(1)), ("1.json", b"{")], "the sample's JSON does not parse"),
        ([("1.png", png(1)), ("1.json", b"[]")], "the sample's JSON is no object"),
        ([("1\n2.png", png(1)), ("1\n2.txt", b"a")], "the name holds a line break"),
        ([("1.x\n.png", png(1)), ("1.txt", b"a")], "the name holds a line break"),
        ([("1.x\udcff.png", png(1)), ("1.txt", b"a")], "the name is not UTF-8"),
    ],
)
def test_bad_samples(members: list[Any], reason: str, save_tar: Callable[..., Path], read: Read) -> None:
    save_tar("a.tar", [("0.png", png(0)), ("0.txt", b"good"), *members, ("9.png", png(9)), ("9.txt", b"good")])
    records, (bad,) = read("webdataset", "pair", "a.tar")
    assert [one["id"] for one in records] == ["a/0", "a/9"]
    assert bad.reason == reason


def test_a_tar_that_is_cut_short_gives_what_is_whole(save_tar: Callable[..., Path], read: Read) -> None:
    path = save_tar("data/0.tar", [one for row in range(9) for one in _img2dataset(row)])
    save_tar("data/1.tar", _img2dataset(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    records, bad = read("webdataset", "pair", "data")
    assert records[-1]["id"] == "000000020" and 3 < len(records) < 9
    assert [one.place for one in bad if "cut short" in one.reason] == ["data/0.tar"]


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w:gz"), ("b.tar", None)])
def test_what_is_no_plain_tar(name: str, mode: str | None, save_tar: Callable[..., Path], read: Read) -> None:
    path = save_tar(name, _img2dataset(0), mode or "w")
    if mode is None:
        path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(InputError, match="no plain tar"):
        read("webdataset", "pair", name)


@pytest.mark.parametrize("damage", ["header", "zeros", "joined"])
def test_samples_behind_a_damage_are_told_of(damage: str, save_tar: Callable[..., Path], read: Read) -> None:
    path = save_tar("a.tar", [one for row in range(5) for one in _img2dataset(row)])
    with tarfile.open(path) as archive:
        second = archive.getmembers()[3].offset
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[second] ^= 255
    elif damage == "zeros":
        content[second : second + 512] = bytes(512)
    else:
        content = content * 2
    path.write_bytes(content)
    records, bad = read("webdataset", "pair", "a.tar")
    assert len(records) == (5 if damage == "joined" else 1)
    assert [one.reason for one in bad if "cannot be read from byte" in one.reason] != []


def test_a_name_that_is_used_twice_is_a_bad_row(save_tar: Callable[..., Path], read: Read) -> None:
    """Its locator would lead to the last one."""
    first, second = _img2dataset(0), _img2dataset(1)
    save_tar("a.tar", [*first, *second, (first[0][0], png(7)), (first[1][0], b"again")])
    records, (bad,) = read("webdataset", "pair", "a.tar")
    assert len(records) == 2 and bad.reason == "the archive holds a file of this name twice"


def test_one_of_several_pictures_and_texts_is_named_or_none_is_taken(
    save_tar: Callable[..., Path], read: Read, tmp_path: Path
) -> None:
    save_tar("a.tar", [("0.jpg", png(1)), ("0.mask.png", png(2)), ("0.txt", b"a"), ("0.caption", b"b")])
    _, (bad,) = read("webdataset", "image", "a.tar")
    assert bad.reason == "the sample holds several texts (txt, caption); name one in text_field"
    _, (bad,) = read("webdataset", "image", "a.tar", text_field="txt")
    assert bad.reason == "the sample holds several pictures (jpg, mask.png); name one in image_field"
    (record,), _ = read("webdataset", "pair", "a.tar", text_field="caption", image_field="mask.png")
    assert (record["text"], record["image"]) == ("b", "tar:a.tar#0.mask.png")
    np.testing.assert_array_equal(
        np.asarray(Pictures(tmp_path, tmp_path).load(record["image"])), np.asarray(picture(2))
    )


def test_the_text_may_stand_in_a_field_of_the_json(save_tar: Callable[..., Path], read: Read) -> None:
    save_tar("a.tar", [("0.jpg", png(1)), ("0.json", b'{"title": "from title", "txt": "from txt"}')])
    assert read("webdataset", "pair", "a.tar", text_field="title")[0][0]["text"] == "from title"
    assert read("webdataset", "pair", "a.tar")[0][0]["text"] == "from txt"


def test_tars_of_one_name_in_two_folders(save_tar: Callable[..., Path], read: Read) -> None:
    for folder in ("train", "val"):
        save_tar(f"d/{folder}/0.tar", [("0.jpg", png(1)), ("0.txt", folder.encode())])
    records, bad = read("webdataset", "pair", "d")
    assert bad == [] and [one["id"] for one in records] == ["train/0/0", "val/0/0"]


def test_a_compressed_tar_among_others_stops(save_tar: Callable[..., Path], read: Read) -> None:
    save_tar("d/0.tar", _img2dataset(0))
    save_tar("d/1.tar.gz", _img2dataset(1), "w:gz")
    with pytest.raises(InputError, match=r"d/1\.tar\.gz: is compressed; unpack it first"):
        read("webdataset", "pair", "d")


def test_a_name_used_twice_leaves_the_first_picture_readable(save_tar: Callable[..., Path], read: Read) -> None:
    path = save_tar("a.tar", [("7.png", png(1)), ("8.png", png(2)), ("7.png", png(3))])
    good, bad = read("webdataset", "image", "a.tar")
    assert [row["id"] for row in good] == ["a/7", "a/8"] and "twice" in bad[0].reason
    shown = Pictures(path.parent, path.parent)
    for row in good:
        assert shown.load(row["image"], row["sha256"]).mode == "RGB"


def test_what_is_whole_in_a_cut_archive_can_be_read_later(save_tar: Callable[..., Path], read: Read) -> None:
    path = save_tar("a.tar", [("7.png", png(1)), ("8.png", png(2))])
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1]
    path.write_bytes(path.read_bytes()[: second.offset_data + 40])
    good, bad = read("webdataset", "image", "a.tar")
    assert [row["id"] for row in good] == ["a/7"] and "cut short" in bad[0].reason
    assert Pictures(path.parent, path.parent).load(good[0]["image"], good[0]["sha256"]).mode == "RGB"


@pytest.mark.parametrize("size", ["-512", "-1024"])
def test_an_archive_that_leads_back_ends(save_tar: Callable[..., Path], read: Read, size: str) -> None:
    """A member of negative size ends where it, or one before it, begins."""
    header = tarfile.TarInfo("c.txt")
    header.pax_headers = {"size": size}
    path = save_tar("a.tar", [("a.txt", b"a red ring"), ("b.txt", b"a blue one"), header])
    good, bad = read("webdataset", "text", "a.tar")
    assert [row["text"] for row in good] == ["a red ring"]
    assert [row.reason for row in bad] == ["the archive is damaged; the sample before that, and what follows, are lost"]
    with pytest.raises(ArtifactError):
        Pictures(path.parent, path.parent).read("tar:a.tar#c.txt")


def test_headers_upon_headers_are_damage(tmp_path: Path, read: Read) -> None:
    header, name = tarfile.TarInfo("././@LongLink"), b"a.txt\0"
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, len(name)
    one = header.tobuf(tarfile.GNU_FORMAT) + name.ljust(tarfile.BLOCKSIZE, b"\0")
    (tmp_path / "a.tar").write_bytes(one * 3000 + bytes(2 * tarfile.BLOCKSIZE))
    assert [row.reason for row in read("webdataset", "text", "a.tar")[1]] == [
        "the archive is damaged; the sample before that, and what follows, are lost"
    ]
