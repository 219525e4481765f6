"""Records to shards: each content once, in whole batches, and a broken run goes on where it stopped."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapbridge import artifacts
from gapbridge.embeddings.encode import BLOCK_ROWS, Encoding, Records, embed_images, embed_texts
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError
from tests.embeddings.fakes import FakeEncoder


@pytest.fixture
def encoding(tmp_path: Path) -> Encoding:
    return Encoding(tmp_path / "cache", batch_size=4, shard_rows=10)


def _texts(count: int, distinct: int | None = None) -> Records:
    contents = [f"text {i % (distinct or count)}" for i in range(count)]
    return Records([f"r{i}" for i in range(count)], [f"g{i // 2}" for i in range(count)], contents)


def test_every_record_gets_the_vector_of_its_text(encoding: Encoding, tmp_path: Path) -> None:
    encoder, records = FakeEncoder(), _texts(23, distinct=9)
    figures = embed_texts(encoder, records, tmp_path / "texts", encoding)
    assert figures == {"rows": 23, "distinct": 9, "truncated": 0}
    assert encoder.batches == [4, 4, 1]
    shards = Shards.open(tmp_path / "texts", "fake", 8)
    assert (shards.ids, shards.groups) == (records.ids, records.groups)
    expected = np.stack([encoder.vector(text.encode()) for text in records.contents]).astype(np.float16)
    np.testing.assert_array_equal(shards.read(range(23)), expected)


def test_truncated_texts_are_counted_whatever_the_cache_knows(encoding: Encoding, tmp_path: Path) -> None:
    records = Records(["a", "b", "c"], ["a", "b", "c"], ["short", "much longer than that", "much longer than that"])
    for folder in ("first", "second"):
        assert embed_texts(FakeEncoder(), records, tmp_path / folder, encoding)["truncated"] == 1


def test_what_is_known_costs_nothing(encoding: Encoding, tmp_path: Path) -> None:
    embed_texts(FakeEncoder(), _texts(10), tmp_path / "a", encoding)
    again = FakeEncoder()
    embed_texts(again, _texts(13), tmp_path / "b", encoding)
    assert again.batches == [3]


def test_another_encoder_starts_anew(encoding: Encoding, tmp_path: Path) -> None:
    embed_texts(FakeEncoder(), _texts(4), tmp_path / "a", encoding)
    other = FakeEncoder(fingerprint="other")
    embed_texts(other, _texts(4), tmp_path / "b", encoding)
    assert other.batches == [4]


def test_a_picture_is_opened_once_and_only_when_needed(encoding: Encoding, tmp_path: Path) -> None:
    opened: list[int] = []

    def load(record: int) -> Image.Image:
        opened.append(record)
        return Image.new("RGB", (2, 2), (record % 3, 0, 0))

    records = Records(list("abcdef"), list("abcdef"), [f"sha{i % 3}" for i in range(6)])
    encoder = FakeEncoder()
    assert embed_images(encoder, records, load, tmp_path / "a", encoding) == {"rows": 6, "distinct": 3}
    assert opened == [0, 1, 2]
    embed_images(encoder, records, load, tmp_path / "b", encoding)
    assert opened == [0, 1, 2]
    rows = Shards.open(tmp_path / "a").read(range(6))
    np.testing.assert_array_equal(rows[:3], rows[3:])
    picture = Image.new("RGB", (2, 2), (2, 0, 0)).tobytes()
    np.testing.assert_array_equal(rows[2], encoder.vector(picture).astype(np.float16))


@pytest.mark.parametrize("break_at", [0, 1, 3, 5])
def test_a_broken_run_goes_on_from_its_last_block(
    break_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gapbridge.embeddings.encode.BLOCK_ROWS", 8)
    records = _texts(30)
    whole = Encoding(tmp_path / "undisturbed", 4, 10)
    embed_texts(FakeEncoder(), records, tmp_path / "a", whole)
    broken = Encoding(tmp_path / "broken", 4, 10)
    with pytest.raises(KeyboardInterrupt):
        embed_texts(FakeEncoder(break_at=break_at), records, tmp_path / "b", broken)
    assert not (tmp_path / "b" / "index.json").exists()
    resumed = FakeEncoder()
    embed_texts(resumed, records, tmp_path / "b", broken)
    blocks_done = break_at // 2
    assert resumed.batches == [4, 4, 4, 4, 4, 4, 4, 2][2 * blocks_done :]
    assert artifacts.dvc_digest(tmp_path / "a") == artifacts.dvc_digest(tmp_path / "b")


def test_blocks_are_whole_batches_and_no_larger_than_a_shard(tmp_path: Path) -> None:
    assert Encoding(tmp_path, 100, 10**6).block_rows == BLOCK_ROWS // 100 * 100
    assert Encoding(tmp_path, 32, 70).block_rows == 64
    assert Encoding(tmp_path, 5000, 10).block_rows == 5000


@pytest.mark.parametrize("wrong", ["nan", "shape"])
def test_a_bad_vector_stops_before_anything_is_written(wrong: str, encoding: Encoding, tmp_path: Path) -> None:
    class Wrong(FakeEncoder):
        def vector(self, content: bytes) -> np.ndarray:
            return np.full(self.width, np.nan) if wrong == "nan" else np.ones(self.width + 1)

    with pytest.raises(ArtifactError, match="encoder: gave"):
        embed_texts(Wrong(), _texts(5), tmp_path / "out", encoding)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "cache").rglob("block-*"))


def test_progress_is_shown_on_stderr(encoding: Encoding, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embed_texts(FakeEncoder(), _texts(9), tmp_path / "out", encoding)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "embed texts: 100%" in shown.err
