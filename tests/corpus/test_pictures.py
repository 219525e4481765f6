"""Pictures, opened and refused."""

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from gapbridge.corpus.inspection import inspect
from gapbridge.corpus.pictures import BadPictureError, Pictures
from gapbridge.errors import ArtifactError, InputError


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side × side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


@pytest.mark.parametrize(("side", "reason"), [(7_000, "more than"), (12_000, "more than"), (60_000, "bomb")])
def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path, side: int, reason: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    with pytest.raises(BadPictureError, match=reason):
        inspect(path, 40_000_000)


@pytest.mark.parametrize("size", [(1, 51), (102, 2)])
def test_a_mere_line_of_pixels_is_refused(save_picture: Callable[..., Path], size: tuple[int, int]) -> None:
    with pytest.raises(BadPictureError, match="one side is more than 50 times the other"):
        inspect(save_picture("line.png", size=size), 5400)
    assert inspect(save_picture("strip.png", size=(100, 2)), 5400).width == 100


def test_a_file_that_changed_since_its_digest_was_taken_is_refused(
    save_picture: Callable[..., Path], tmp_path: Path
) -> None:
    path = save_picture("a.png", 1)
    sha256 = inspect(path, 5400).sha256
    pictures = Pictures(tmp_path, tmp_path)
    assert pictures.load("root:a.png", sha256).size == (12, 8)
    save_picture("a.png", 2)
    with pytest.raises(ArtifactError, match="changed since ingest; run `gapbridge ingest` again"):
        pictures.load("root:a.png", sha256)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_half_a_picture_is_refused(save_picture: Callable[..., Path], suffix: str) -> None:
    path = save_picture(f"a.{suffix}", size=(90, 60))
    assert inspect(path, 5400).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadPictureError, match=r"truncated or damaged|not a picture"):
        inspect(path, 5400)


def test_a_changed_byte_and_sixteen_bits_are_refused(save_picture: Callable[..., Path], tmp_path: Path) -> None:
    path = save_picture("a.png", size=(90, 60))
    content = bytearray(path.read_bytes())
    content[500] ^= 255
    path.write_bytes(content)
    with pytest.raises(BadPictureError, match="damaged"):
        inspect(path, 5400)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(BadPictureError, match="not of 8 bits"):
        inspect(tmp_path / "deep.png", 5400)


def test_exif_turns_and_transparency_is_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    pictures = Pictures(tmp_path, tmp_path)
    assert pictures.load("root:turned.jpg").size == (10, 20)
    assert inspect(tmp_path / "turned.jpg", 1000).width == 10
    assert pictures.load("root:clear.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_every_turn_is_undone_and_nothing_but_pixels_is_left(orientation: int, kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8))
    noise.save(tmp_path / f"a.{kind}", exif=exif)
    with Image.open(tmp_path / f"a.{kind}") as opened:
        expected = ImageOps.exif_transpose(opened)
    shown = Pictures(tmp_path, tmp_path).load(f"root:a.{kind}")
    assert shown.size == expected.size == ((10, 20) if orientation > 4 else (20, 10))
    assert shown.tobytes() == expected.tobytes()
    assert shown.info == {} and not dict(shown.getexif())


@pytest.mark.parametrize("turned", [True, False])
def test_exif_that_cannot_be_written_again_spoils_no_picture(turned: bool, tmp_path: Path) -> None:
    """A camera's name that is a number: Pillow reads it, and breaks when it writes it."""
    fields = struct.pack("<HHII", 0x010F, 5, 1, 64) + struct.pack("<HHII", 0x0112, 3, 1, 6 if turned else 1)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + fields + bytes(40) + struct.pack("<II", 1, 2)
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.jpg", exif=exif)
    assert inspect(tmp_path / "a.jpg", 1000).width == (10 if turned else 20)


def test_exif_that_is_none_does_not_follow_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
    shown = Pictures(tmp_path, tmp_path).load("root:a.jpg")
    assert ImageOps.exif_transpose(shown).size == (20, 10), "an image processor may look for it once more"


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path: Path) -> None:
    """Each walks over the whole picture, so that a small file could keep a decoder for minutes."""
    Image.new("L", (64, 64), 128).save(tmp_path / "few.jpg", progressive=True)
    content = (tmp_path / "few.jpg").read_bytes()
    last = content.rindex(b"\xff\xda")
    for name, scans in (("some.jpg", 50), ("many.jpg", 150)):
        (tmp_path / name).write_bytes(content[:last] + content[last:-2] * scans + content[-2:])
    assert inspect(tmp_path / "few.jpg", 5000).width == 64
    assert inspect(tmp_path / "some.jpg", 5000).width == 64
    with pytest.raises(BadPictureError, match="a JPEG of more than 100 scans"):
        inspect(tmp_path / "many.jpg", 5000)


def test_members_of_a_tar_are_read_by_many_threads_at_once(tmp_path: Path, save_picture: Callable[..., Path]) -> None:
    names = [f"{n:06d}.png" for n in range(40)]
    contents = {name: save_picture(name, n).read_bytes() for n, name in enumerate(names)}
    with tarfile.open(tmp_path / "pictures.tar", "w") as archive:
        for name in names:
            archive.add(tmp_path / name, name)
    pictures = Pictures(tmp_path, tmp_path / "nowhere")
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda name: pictures.read(f"own:pictures.tar#{name}"), names))
    assert read == [contents[name] for name in names]
    assert pictures.load("own:pictures.tar#000007.png").mode == "RGB"


def test_what_cannot_be_opened_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no picture")
    pictures = Pictures(tmp_path, tmp_path)
    for locator in ("root:no.png", "own:no.tar#a", "own:words.png#a", "root:words.png"):
        with pytest.raises(ArtifactError, match=f"{locator}: .*gapbridge ingest"):
            pictures.load(locator)
    with pytest.raises(InputError, match="leaves its root"):
        pictures.read("root:../secret.png")


def _odd(kind: str, path: Path) -> Path:
    """A picture 20 pixels wide and 10 high of that kind."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8))
    if kind == "animated":
        rgb.save(path / "a.gif", save_all=True, append_images=[Image.new("RGB", (20, 10), "red")] * 2)
        return path / "a.gif"
    if kind == "16 bits":
        Image.fromarray(np.arange(200, dtype=np.uint16).reshape(10, 20) * 300).save(path / "a.png")
        return path / "a.png"
    if kind == "float":
        Image.fromarray(np.zeros((10, 20), dtype=np.float32)).save(path / "a.tif")
        return path / "a.tif"
    if kind == "wrong suffix":
        rgb.save(path / "a.png")
        return (path / "a.png").rename(path / "a.jpg")
    if kind == "1×1":
        Image.new("RGB", (1, 1), "red").save(path / "a.png")
        return path / "a.png"
    rgb.convert({"CMYK": "CMYK", "palette": "P", "grey": "L"}[kind]).save(
        path / ("a.jpg" if kind == "CMYK" else "a.png")
    )
    return path / ("a.jpg" if kind == "CMYK" else "a.png")


@pytest.mark.parametrize("kind", ["animated", "CMYK", "palette", "grey", "wrong suffix", "1×1"])
def test_odd_pictures_that_are_shown(kind: str, tmp_path: Path) -> None:
    path = _odd(kind, tmp_path)
    facts = inspect(path, 1000)
    assert (facts.width, facts.height) == ((1, 1) if kind == "1×1" else (20, 10))
    assert Pictures(tmp_path, tmp_path).load(f"root:{path.name}", facts.sha256).mode == "RGB"


@pytest.mark.parametrize("kind", ["16 bits", "float"])
def test_odd_pictures_that_are_not(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BadPictureError, match="not of 8 bits a channel"):
        inspect(_odd(kind, tmp_path), 1000)
