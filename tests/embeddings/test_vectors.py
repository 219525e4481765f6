"""People's own vectors in every layout: the same rows, the right ids, and each kind of damage named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest
import safetensors.numpy

from gapbridge.artifacts import file_digest
from gapbridge.embeddings import part_writer
from gapbridge.embeddings.part_writer import PartWriter
from gapbridge.embeddings.shards import write_shards
from gapbridge.embeddings.vectors import open_vectors
from gapbridge.errors import ArtifactError, GapbridgeError, InputError

ROWS = np.random.default_rng(0).normal(size=(23, 6)).astype(np.float32)


def _all(path: Path, side: str = "texts") -> np.ndarray:
    return np.concatenate(list(open_vectors(path, side)))  # type: ignore[arg-type]


def _retrieval(folder: Path, name: str = "text_emb", column: str = "key") -> Path:
    """Two parts, 2 before 10, as clip-retrieval writes them."""
    for number, cut in ((2, slice(0, 10)), (10, slice(10, 23))):
        for kind in (name, "metadata"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        np.save(folder / name / f"{name}_{number}.npy", ROWS[cut].astype(np.float16))
        keys = [f"{place:09d}" for place in range(23)[cut]]
        frame = polars.DataFrame({"caption": ["a text"] * len(keys), column: keys})
        frame.write_parquet(folder / "metadata" / f"metadata_{number}.parquet")
    return folder


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["npy", "safetensors", "folder"])
def test_the_same_rows_from_every_layout(kind: str, dtype: type, tmp_path: Path) -> None:
    rows = ROWS.astype(dtype)
    path = tmp_path / f"T.{kind}"
    if kind == "npy":
        np.save(path, rows)
    elif kind == "safetensors":
        safetensors.numpy.save_file({"embeddings": rows, "bias": rows[0].copy()}, path)
    else:
        path.mkdir()
        np.save(path / "part_10.npy", rows[9:])
        np.save(path / "part_9.npy", rows[:9])
    found = open_vectors(path, "texts")
    np.testing.assert_array_equal(np.concatenate(list(found)), rows)
    assert (found.rows, found.width, found.fingerprint, found.groups) == (23, 6, None, None)
    assert [one for number in range(len(found.parts)) for one in found.ids(number)] == [str(i) for i in range(23)]
    assert found.digests == [file_digest(part.path) for part in found.parts]
    np.testing.assert_array_equal(found.read(np.array([0, 9, 22])), rows[[0, 9, 22]].astype(np.float32))


def test_a_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    np.save(tmp_path / "T.npy", ROWS)
    with (tmp_path / "T.npy").open("ab") as handle:
        handle.write(b"behind the matrix")
    found = open_vectors(tmp_path / "T.npy", "texts")
    np.testing.assert_array_equal(np.concatenate(list(found)), ROWS)
    assert found.digests == [file_digest(tmp_path / "T.npy")]


@pytest.mark.parametrize("inner", ["", "text_emb"])
def test_what_clip_retrieval_writes(inner: str, tmp_path: Path) -> None:
    found = open_vectors(_retrieval(tmp_path) / inner, "texts")
    np.testing.assert_array_equal(np.concatenate(list(found)), ROWS.astype(np.float16))
    assert found.ids(1).to_list() == [f"{place:09d}" for place in range(10, 23)]


def test_each_side_finds_its_own_folder(tmp_path: Path) -> None:
    _retrieval(_retrieval(tmp_path), "img_emb")
    np.save(tmp_path / "img_emb" / "img_emb_2.npy", -ROWS[:10])
    np.save(tmp_path / "img_emb" / "img_emb_10.npy", -ROWS[10:])
    np.testing.assert_array_equal(_all(tmp_path, "images"), -ROWS)
    assert (_all(tmp_path, "texts")[0] == ROWS[0].astype(np.float16)).all()


def test_rows_without_a_known_name_are_called_by_their_place(tmp_path: Path) -> None:
    found = open_vectors(_retrieval(tmp_path, column="licence"), "texts")
    assert found.ids(1).to_list()[:2] == ["10", "11"]


def test_our_own_shards_bring_encoder_ids_and_groups(tmp_path: Path) -> None:
    ids = [f"id{place}" for place in range(23)]
    write_shards(tmp_path, [(ids, ROWS)], "encoder-a", 10, [f"g{place // 2}" for place in range(23)])
    found = open_vectors(tmp_path, "images")
    assert found.fingerprint == "encoder-a" and len(found.parts) == 3
    assert found.ids(2).to_list() == ids[20:] and found.groups is not None and found.groups[3] == "g1"
    np.testing.assert_allclose(np.concatenate(list(found)), ROWS, atol=2e-3)


def test_what_is_written_is_read_again_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two matrices in uneven blocks: parts end where they shall, a row left out is left out of the ids too."""
    monkeypatch.setattr(part_writer, "PART_ROWS", 6)
    writer = PartWriter(tmp_path, "texts", 6, np.dtype("<f2"), "encoder-a")
    ids = polars.Series([f"id{place}" for place in range(23)])
    places = np.delete(np.arange(9), 7)
    first = [(places[:5], ROWS[places[:5]]), (places[5:5], ROWS[:0]), (places[5:], ROWS[places[5:]])]
    writer.write(iter(first), 9, lambda some: ids.gather(some))
    writer.write(iter([(np.arange(14), ROWS[9:])]), 14, lambda some: ids[9:].gather(some))
    writer.close()
    found, kept = open_vectors(tmp_path, "texts"), np.delete(np.arange(23), 7)
    np.testing.assert_array_equal(np.concatenate(list(found)), ROWS[kept].astype(np.float16))
    assert [part.rows for part in found.parts] == [6, 2, 6, 6, 2] and found.fingerprint == "encoder-a"
    named = [one for number in range(5) for one in found.ids(number)]
    assert named == ids.gather(kept).to_list()
    np.testing.assert_array_equal(np.load(tmp_path / "text_emb" / "text_emb_1.npy"), ROWS[[6, 8]].astype(np.float16))
    path = tmp_path / "text_emb" / "text_emb_1.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"text_emb_1\.npy: not the file that its index describes"):
        list(open_vectors(tmp_path, "texts"))
    with pytest.raises(ArtifactError, match=r"text_emb_1\.npy: not the file that its index describes"):
        list(open_vectors(tmp_path, "texts").only(1))


def test_some_ids_of_a_long_table(tmp_path: Path) -> None:
    found = open_vectors(_retrieval(tmp_path), "texts")
    assert found.ids(1, np.array([3, 4, 9])).to_list() == ["000000013", "000000014", "000000019"]


def _truncated(folder: Path) -> Path:
    np.save(folder / "T.npy", ROWS)
    content = (folder / "T.npy").read_bytes()
    (folder / "T.npy").write_bytes(content[:-7])
    return folder / "T.npy"


def _saved(folder: Path, rows: np.ndarray) -> Path:
    np.save(folder / "T.npy", rows, allow_pickle=True)
    return folder / "T.npy"


def _widths(folder: Path) -> Path:
    np.save(folder / "a.npy", ROWS)
    np.save(folder / "b.npy", ROWS[:, :4])
    return folder


def _safetensors(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    safetensors.numpy.save_file(tensors, folder / "T.safetensors")
    return folder / "T.safetensors"


def _written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _short_metadata(folder: Path) -> Path:
    _retrieval(folder)
    polars.DataFrame({"key": ["a"]}).write_parquet(folder / "metadata" / "metadata_2.parquet")
    return folder


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "none.npy", "does not exist"),
    "empty folder": (lambda folder: folder, "holds no .npy file"),
    "truncated": (_truncated, "cut short"),
    "one row of numbers": (lambda folder: _saved(folder, ROWS[0]), "expected a matrix"),
    "objects": (lambda folder: _saved(folder, np.array([[{}, {}]], dtype=object)), "expected a matrix"),
    "integers": (lambda folder: _saved(folder, np.ones((3, 3), dtype=int)), "expected a matrix"),
    "no rows": (lambda folder: _saved(folder, ROWS[:0]), "holds no numbers"),
    "columns first": (lambda folder: _saved(folder, np.asfortranarray(ROWS)), "stored by columns"),
    "text": (lambda folder: _written(folder, "T.npy", b"hello"), "no .npy file"),
    "widths": (_widths, "files of widths 4, 6"),
    "two matrices": (lambda folder: _safetensors(folder, {"a": ROWS, "b": ROWS.copy()}), "found the tensors a, b"),
    "no safetensors": (lambda folder: _written(folder, "T.safetensors", b"\xff" * 99), "no .safetensors file"),
    "integer tensor": (lambda folder: _safetensors(folder, {"a": np.ones((3, 3), dtype=np.int32)}), "I32"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_read_is_named(bad: str, tmp_path: Path) -> None:
    make, message = BAD[bad]
    with pytest.raises(GapbridgeError, match=message) as caught:
        list(open_vectors(make(tmp_path), "texts"))
    assert isinstance(caught.value, InputError | ArtifactError) and "\n" not in str(caught.value)


def test_metadata_of_another_length(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="1 rows for 10 vectors"):
        open_vectors(_short_metadata(tmp_path), "texts").ids(0)


def test_an_index_of_another_folder(tmp_path: Path) -> None:
    _retrieval(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"fingerprint": None, "parts": [{"emb_sha256": "0"}]}))
    with pytest.raises(ArtifactError, match="describes 1 parts, found 2"):
        open_vectors(tmp_path, "texts")
