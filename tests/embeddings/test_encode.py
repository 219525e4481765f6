"""Records to shards: each content once, in whole batches, and a broken run goes on where it stopped."""

import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from gapbridge import artifacts
from gapbridge.embeddings.encode import BLOCK_ROWS, Encoding, Records, embed_images, embed_texts
from gapbridge.embeddings.ranks import Ranks
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
    assert sorted(opened) == [0, 1, 2]
    embed_images(encoder, records, load, tmp_path / "b", encoding)
    assert len(opened) == 3
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


def test_the_texts_of_a_block_go_by_length_and_the_shards_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gapbridge.embeddings.encode.BLOCK_ROWS", 8)
    seen: list[list[int]] = []

    class Noting(FakeEncoder):
        def encode_texts(self, texts: list[str]) -> np.ndarray:
            seen.append(self.token_counts(texts))
            return super().encode_texts(texts)

    texts = ["x" * (1 + 7 * number % 20) for number in range(20)]
    records = Records([f"r{number}" for number in range(20)], ["g"] * 20, texts)
    encoder = Noting()
    embed_texts(encoder, records, tmp_path / "texts", Encoding(tmp_path / "cache", 4, 10))
    assert [len(batch) for batch in seen] == [4] * 5
    for block in (seen[:2], seen[2:4], seen[4:]):
        counts = [count for batch in block for count in batch]
        assert counts == sorted(counts)
    expected = np.stack([encoder.vector(text.encode()) for text in texts]).astype(np.float16)
    np.testing.assert_array_equal(Shards.open(tmp_path / "texts").read(range(20)), expected)


class Waiting(Ranks):
    """A rank whose others are not there: it never waits."""

    def wait(self) -> None:
        """Return at once."""


def test_ranks_share_the_blocks_and_the_first_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapbridge.embeddings.encode.BLOCK_ROWS", 8)
    records, encoders = _texts(50, distinct=43), [FakeEncoder() for _ in range(3)]
    embed_texts(FakeEncoder(), records, tmp_path / "alone", Encoding(tmp_path / "one cache", 4, 10))
    for rank in (2, 1, 0):
        folder, ranks = tmp_path / f"rank {rank}", Waiting(rank, 3)
        figures = embed_texts(encoders[rank], records, folder, Encoding(tmp_path / "cache", 4, 10, ranks))
        assert figures == {"rows": 50, "distinct": 43, "truncated": 0}
    assert [sum(encoder.batches) for encoder in encoders] == [16, 16, 11]
    assert not (tmp_path / "rank 1").exists() and not (tmp_path / "rank 2").exists()
    assert artifacts.dvc_digest(tmp_path / "rank 0") == artifacts.dvc_digest(tmp_path / "alone")


def test_a_rank_that_never_came_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapbridge.embeddings.encode.BLOCK_ROWS", 8)
    with pytest.raises(ArtifactError, match="vectors are missing; run the stage again"):
        embed_texts(FakeEncoder(), _texts(20), tmp_path / "out", Encoding(tmp_path / "cache", 4, 10, Waiting(0, 2)))


def test_pictures_are_decoded_while_the_encoder_works(encoding: Encoding, tmp_path: Path) -> None:
    decoded: list[int] = []

    class Slow(FakeEncoder):
        ahead_of: ClassVar[list[int]] = []

        def encode_pixels(self, pixels: list[bytes]) -> np.ndarray:
            begun = time.monotonic()
            enough = min(30, sum(self.batches) + 3 * len(pixels))
            while len(decoded) < enough and time.monotonic() < begun + 5:
                time.sleep(0.001)
            self.ahead_of.append(len(decoded) - sum(self.batches) - len(pixels))
            return super().encode_pixels(pixels)

    def load(record: int) -> Image.Image:
        decoded.append(record)
        return Image.new("RGB", (2, 2), (record, 0, 0))

    names = [f"r{number}" for number in range(30)]
    encoder = Slow()
    embed_images(encoder, Records(names, names, names), load, tmp_path / "images", encoding)
    assert max(encoder.ahead_of) == 2 * encoding.batch_size, "two batches ahead, no more"
    assert sorted(decoded) == list(range(30))


def test_an_unreadable_picture_stops_with_its_error(encoding: Encoding, tmp_path: Path) -> None:
    def load(record: int) -> Image.Image:
        if record == 9:
            raise ArtifactError("r9: cannot be read")
        return Image.new("RGB", (2, 2), (record, 0, 0))

    names = [f"r{number}" for number in range(30)]
    with pytest.raises(ArtifactError, match="r9: cannot be read"):
        embed_images(FakeEncoder(), Records(names, names, names), load, tmp_path / "images", encoding)
    assert not (tmp_path / "images").exists()


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


def test_no_records_are_no_shards(encoding: Encoding, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="0 vectors for 0 records"):
        embed_texts(FakeEncoder(), Records([], [], []), tmp_path / "out", encoding)


def test_progress_is_shown_on_stderr(encoding: Encoding, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embed_texts(FakeEncoder(), _texts(9), tmp_path / "out", encoding)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "embed texts: 100%" in shown.err
