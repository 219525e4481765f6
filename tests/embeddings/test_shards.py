"""Shards: what is written comes back, in any batching, and damage or a wrong encoder is seen."""

import json
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbridge import artifacts
from gapbridge.embeddings.shards import Batch, Shards, write_shards
from gapbridge.errors import ArtifactError


def _rows(rows: int, width: int = 6, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(rows, width))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def _batches(rows: np.ndarray, size: int) -> list[Batch]:
    return [
        ([f"id{i}" for i in range(start, min(start + size, len(rows)))], rows[start : start + size])
        for start in range(0, len(rows), size)
    ]


def _write(folder: Path, rows: int = 25, shard_rows: int = 10) -> Shards:
    return write_shards(folder, _batches(_rows(rows), 7), "encoder-a", shard_rows)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    shards = _write(tmp_path)
    assert (shards.rows, shards.width, shards.fingerprint, shards.counts) == (25, 6, "encoder-a", (10, 10, 5))
    assert shards.ids == [f"id{i}" for i in range(25)]
    assert shards.groups == shards.ids
    stored = _rows(25).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(shards.read(range(25)), stored)
    np.testing.assert_array_equal(shards.read([24, 0, 11, 0]), stored[[24, 0, 11, 0]])


@pytest.mark.parametrize("batch_rows", [1, 4, 10, 100])
def test_batches_cover_everything_in_order(batch_rows: int, tmp_path: Path) -> None:
    shards = _write(tmp_path)
    batches = list(shards.batches(batch_rows))
    assert max(len(ids) for ids, _ in batches) <= batch_rows
    assert [row_id for ids, _ in batches for row_id in ids] == shards.ids
    rows = np.concatenate([rows for _, rows in batches])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, shards.read(range(25)))


@settings(deadline=None)  # a busy machine is no error
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 12))
def test_the_batching_leaves_no_trace(
    tmp_path_factory: pytest.TempPathFactory, rows: int, size: int, shard_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "a", _batches(_rows(rows), size), "encoder", shard_rows)
    write_shards(folder / "b", _batches(_rows(rows), rows), "encoder", shard_rows)
    assert artifacts.dvc_digest(folder / "a") == artifacts.dvc_digest(folder / "b")


def test_layout(tmp_path: Path) -> None:
    shards = _write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"emb_0000{i}.npy" for i in range(3)),
        *(f"ids_0000{i}.parquet" for i in range(3)),
        "index.json",
    ]
    first = np.load(tmp_path / "emb_00000.npy", allow_pickle=False)
    assert (first.dtype, first.shape) == (np.float16, (10, 6))
    assert polars.read_parquet(tmp_path / "ids_00002.parquet")["id"].to_list() == shards.ids[20:]
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["format_version"] == 1
    assert index["shards"][1]["emb_sha256"] == artifacts.file_digest(tmp_path / "emb_00001.npy")


def test_groups_are_kept(tmp_path: Path) -> None:
    groups = [f"scene {i // 3}" for i in range(25)]
    shards = write_shards(tmp_path, _batches(_rows(25), 4), "encoder", 10, groups)
    assert shards.groups == groups


def test_places_of_ids(tmp_path: Path) -> None:
    shards = _write(tmp_path)
    assert shards.places(["id7", "id0", "id24"]).tolist() == [7, 0, 24]
    with pytest.raises(ArtifactError, match="no vector of record 'id99'"):
        shards.places(["id7", "id99"])


@pytest.mark.parametrize("place", [-1, 25])
def test_no_row_outside(place: int, tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="rows 0 to 24"):
        _write(tmp_path).read([0, place])


def test_another_encoder_or_width_is_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    with pytest.raises(ArtifactError, match="of encoder encoder-a, expected encoder-b"):
        Shards.open(tmp_path, fingerprint="encoder-b")
    with pytest.raises(ArtifactError, match="width 6, expected 8"):
        Shards.open(tmp_path, width=8)


@pytest.mark.parametrize("damage", ["unsealed", "cut", "header", "zip", "swapped", "version", "not_an_index", "no_ids"])
def test_damage_is_seen(damage: str, tmp_path: Path) -> None:
    _write(tmp_path)
    index, first = tmp_path / "index.json", tmp_path / "emb_00000.npy"
    if damage == "unsealed":
        index.unlink()
    elif damage == "cut":
        first.write_bytes(first.read_bytes()[:-10])
    elif damage == "header":
        first.write_bytes(first.read_bytes().replace(b"{'descr'", b"(((((((("))
    elif damage == "zip":
        first.write_bytes(b"PK\x03\x04" + first.read_bytes())
    elif damage == "swapped":
        first.write_bytes((tmp_path / "emb_00002.npy").read_bytes())
    elif damage == "version":
        index.write_text(index.read_text().replace('"format_version": 1', '"format_version": 2'))
    elif damage == "not_an_index":
        index.write_text("[]")
    else:
        (tmp_path / "ids_00001.parquet").write_bytes(b"no table")
    with pytest.raises(ArtifactError) as caught:
        _ = Shards.open(tmp_path).ids
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named_where_it_is_read(value: float, tmp_path: Path) -> None:
    shards = _write(tmp_path / "probe" / "images")
    path = shards.folder / "emb_00001.npy"
    matrix = np.load(path)
    matrix[4, 2] = value
    np.save(path, matrix)
    said = r"emb_00001\.npy: the vector of 'id14' holds NaN or infinity; run `gapbridge embed probe` again"
    with pytest.raises(ArtifactError, match=said):
        shards.read([0, 20, 14])
    with pytest.raises(ArtifactError, match=said):
        list(shards.batches(4))
    assert len(shards.read([13, 15])) == 2


def test_what_is_not_written(tmp_path: Path) -> None:
    rows = _rows(4)
    rows[2, 1] = np.nan
    cases = [
        ([(["a", "b", "c", "d"], rows)], "vector of 'c' holds NaN"),
        ([(["a", "b"], _rows(2)), (["b"], _rows(1))], "an id repeats"),
        ([(["a"], _rows(1)), (["b"], _rows(1, width=5))], "width 5 among those of width 6"),
        ([], "0 vectors"),
    ]
    for number, (batches, message) in enumerate(cases):
        with pytest.raises(ArtifactError, match=message):
            write_shards(tmp_path / str(number), batches, "encoder", 1)
        assert not (tmp_path / str(number) / "index.json").exists()
    with pytest.raises(ArtifactError, match="2 vectors for 3 records"):
        write_shards(tmp_path / "g", [(["a", "b"], _rows(2))], "encoder", 9, ["g", "g", "g"])
