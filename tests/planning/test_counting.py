"""Rows counted without reading them, by what each format allows, and estimated where a file is large."""

import json
from pathlib import Path

import datasets
import polars
import pytest

from gapbridge.corpus.origin import Origin
from gapbridge.params import Source
from gapbridge.planning import counting
from gapbridge.planning.counting import Count, count_rows

from ..inputs import ROWS, write_source


def count(root: Path, path: str, file_format: str, set_name: str = "texts") -> Count | None:
    return count_rows(Origin(set_name, root, path), file_format)


@pytest.mark.parametrize(
    ("file_format", "set_name", "exact"),
    [
        ("jsonl", "texts", True),
        ("llava", "texts", True),
        ("folder", "images", True),
        ("webdataset", "images", False),
        ("pope", "benchmark", True),
    ],
)
def test_whole_files(tmp_path: Path, file_format: str, set_name: str, exact: bool) -> None:
    source = Source(format=file_format, path="data", images="pictures" if file_format == "pope" else None)  # type: ignore[arg-type]
    write_source(tmp_path, set_name, source, 0)
    assert count(tmp_path, "data", file_format, set_name) == Count(ROWS, exact)


def test_repeated_sets_of_internvl(tmp_path: Path) -> None:
    write_source(tmp_path, "instruct", Source(format="internvl", path="meta.json"), 0)
    # 24 rows and one without a picture, and 24 taken one and a half times
    assert count(tmp_path, "meta.json", "internvl", "instruct") == Count(25 + 36, exact=True)


def test_tables(tmp_path: Path) -> None:
    frame = polars.DataFrame({"text": ["one", "two, three", "four\nfive"]})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    assert count(tmp_path, "a.parquet", "parquet") == Count(3, exact=True)
    assert count(tmp_path, "a.csv", "csv") == Count(4, exact=False), "a line break inside quotes counts as a line"
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": ["a"] * 7}).save_to_disk(tmp_path / "saved")
    assert count(tmp_path, "saved", "datasets") == Count(7, exact=True)


def test_two_unpaired_lists(tmp_path: Path) -> None:
    lists = {
        "images": [{"id": n, "image": f"{n}.jpg"} for n in range(3)],
        "texts": [{"id": n, "text": "a word"} for n in range(5)],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(lists))
    assert count(tmp_path, "dataset.json", "unpaired", "images") == Count(3, exact=True)
    assert count(tmp_path, "dataset.json", "unpaired", "texts") == Count(5, exact=True)


@pytest.mark.parametrize("chunk", [7, 50, 1000])
def test_a_sign_across_two_pieces_counts_once(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_CHUNK_BYTES", chunk)
    write_source(tmp_path, "texts", Source(format="llava", path="a.json"), 0)
    assert count(tmp_path, "a.json", "llava") == Count(ROWS, exact=True)


def test_a_large_file_is_estimated_from_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(counting, "_WHOLE_BYTES", 20_000)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"text {n:06d}"}) + "\n" for n in range(5000)))
    found = count(tmp_path, "a.jsonl", "jsonl")
    assert found is not None and not found.exact and abs(found.rows - 5000) < 50
