"""The vector cache: found again by content and encoder, safe for several processes, whole blocks only."""

from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from gapbridge.embeddings.cache import VectorCache, content_keys
from gapbridge.errors import ArtifactError

WIDTH = 5


def _rows(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float16)


def _keys(start: int, stop: int) -> np.ndarray:
    return content_keys("text", [f"text {i}" for i in range(start, stop)])


def _fill(root: Path, number: int) -> None:
    cache = VectorCache(root, "encoder", WIDTH)
    for block in range(5):
        start = number * 50 + block * 10
        cache.append(_keys(start, start + 10), _rows(10, start))


def test_what_is_added_is_found_in_any_order(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    keys, rows = _keys(0, 40), _rows(40, 0)
    cache.append(keys[:25], rows[:25])
    cache.append(keys[25:], rows[25:])
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(cache.read(keys[order]), rows[order])
    np.testing.assert_array_equal(VectorCache(tmp_path, "encoder", WIDTH).read(keys[order]), rows[order])


def test_what_is_missing_is_known(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    assert cache.missing(_keys(0, 3)).all()
    cache.append(_keys(1, 3), _rows(2, 0))
    assert cache.missing(_keys(0, 4)).tolist() == [True, False, False, True]
    with pytest.raises(ArtifactError, match="2 vectors are missing"):
        cache.read(_keys(0, 4))


def test_encoders_and_kinds_are_kept_apart(tmp_path: Path) -> None:
    VectorCache(tmp_path, "one", WIDTH).append(_keys(0, 2), _rows(2, 0))
    assert VectorCache(tmp_path, "two", WIDTH).missing(_keys(0, 2)).all()
    assert not set(content_keys("text", ["a"]).tolist()) & set(content_keys("image", ["a"]).tolist())


def test_one_file_a_block(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    cache.append(_keys(0, 1000), _rows(1000, 0))
    cache.append(_keys(0, 1000), _rows(1000, 0))
    assert len(list(cache.folder.iterdir())) == 1


def test_what_another_process_adds_is_seen_after_refresh(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    VectorCache(tmp_path, "encoder", WIDTH).append(_keys(0, 4), _rows(4, 0))
    assert cache.missing(_keys(0, 4)).all()
    cache.refresh()
    np.testing.assert_array_equal(cache.read(_keys(0, 4)), _rows(4, 0))


def test_several_processes_at_once(tmp_path: Path) -> None:
    context = get_context("spawn")
    processes = [context.Process(target=_fill, args=(tmp_path, number)) for number in (0, 1, 0)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    for start in range(0, 100, 10):
        np.testing.assert_array_equal(cache.read(_keys(start, start + 10)), _rows(10, start))


def test_a_half_written_block_is_no_block(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    cache.append(_keys(0, 4), _rows(4, 0))
    (cache.folder / ".block-00.safetensors.1.partial").write_bytes(b"\x08")
    assert not VectorCache(tmp_path, "encoder", WIDTH).missing(_keys(0, 4)).any()


def test_keys_that_end_in_zero_bytes(tmp_path: Path) -> None:
    keys = np.array([b"k" * 31 + b"\x00", b"k" * 30 + b"\x00\x00", b"k" * 32], dtype="S32")
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    cache.append(keys, _rows(3, 0))
    np.testing.assert_array_equal(VectorCache(tmp_path, "encoder", WIDTH).read(keys), _rows(3, 0))


def test_bad_vectors_are_refused(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    with pytest.raises(ArtifactError, match=r"shape \(4, 3\), expected \(4, 5\)"):
        cache.append(_keys(0, 4), np.zeros((4, 3)))
    with pytest.raises(ArtifactError, match="NaN"):
        cache.append(_keys(0, 1), np.full((1, WIDTH), np.nan))
    assert cache.missing(_keys(0, 4)).all()


def test_damaged_blocks_are_named(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "encoder", WIDTH)
    cache.append(_keys(0, 4), _rows(4, 0))
    with pytest.raises(ArtifactError, match="vectors of width 5, expected 7"):
        VectorCache(tmp_path, "encoder", 7).read(_keys(0, 4))
    (block,) = cache.folder.iterdir()
    block.write_bytes(block.read_bytes()[:50])
    with pytest.raises(ArtifactError, match=f"{block.name}: a damaged block"):
        VectorCache(tmp_path, "encoder", WIDTH)
