"""Formats told by their content, in files that the usual tools write."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import polars
import pytest

from gapbridge.corpus.gather import READERS
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.sniff import sniff
from gapbridge.errors import InputError
from gapbridge.params import Source

CONVERSATION = {"id": "1", "image": "1.png", "conversations": [{"from": "human", "value": "a"}]}
FILES: dict[str, tuple[str, bytes]] = {
    "jsonl": ("a.jsonl", b'{"text": "a"}\n{"text": "b"}\n'),
    "densefusion": ("a.jsonl", b'{"image_id": "1", "image_path": "1.png", "caption": "b"}\n'),
    "csv": ("a.csv", b"id,text\n1,a\n"),
    "tsv": ("a.tsv", b"id\ttext\n1\ta\n"),
    "lines": ("a.txt", "\ufeffein Text\nnoch einer\n".encode()),
    "llava": ("a.json", json.dumps([CONVERSATION], indent=2).encode()),
    "llava lines": ("a.jsonl", json.dumps(CONVERSATION).encode() + b"\n"),
    "internvl": ("a.json", json.dumps({"a": {"root": "img", "annotation": "a.jsonl"}}).encode()),
    "internvl indented": ("a.json", json.dumps({"a": {"root": "img", "annotation": "a.jsonl"}}, indent=2).encode()),
    "unpaired": ("a.json", json.dumps({"images": [], "texts": []}).encode()),
    "unpaired indented": ("a.json", json.dumps({"images": [{"id": 1}], "texts": []}, indent=2).encode()),
    "pope": ("a.jsonl", b'{"question_id": 1, "image": "1.png", "text": "a", "label": "yes"}\n'),
}
FORMATS = {"densefusion": "jsonl", "tsv": "csv"}


@pytest.mark.parametrize("case", FILES)
def test_files(case: str, tmp_path: Path) -> None:
    name, content = FILES[case]
    (tmp_path / name).write_bytes(content)
    assert sniff(Origin("texts", tmp_path, name)) == FORMATS.get(case, case.split()[0])


@pytest.mark.parametrize("kind", ["folder", "imagefolder", "parquet", "webdataset", "datasets", "splits"])
def test_folders(kind: str, tmp_path: Path, save_picture: Callable[..., Path]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    datasets.disable_progress_bars()
    frame, saved = polars.DataFrame({"file_name": ["1.png"]}), datasets.Dataset.from_dict({"text": ["a"]})
    if kind == "parquet":
        (folder / "deep").mkdir()
        frame.write_parquet(folder / "deep/a.parquet")
    elif kind == "webdataset":
        tarfile.open(folder / "0.tar", "w").close()
    elif kind == "datasets":
        saved.save_to_disk(folder)
    elif kind == "splits":
        datasets.DatasetDict({"train": saved}).save_to_disk(folder)
    else:
        save_picture("data/1.png")
        if kind == "imagefolder":
            frame.write_csv(folder / "metadata.csv")
    assert sniff(Origin("images", tmp_path, "data")) == {"splits": "datasets"}.get(kind, kind)


def test_a_single_table_or_tar(tmp_path: Path) -> None:
    polars.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "a")
    with tarfile.open(tmp_path / "b", "w") as archive:
        archive.add(tmp_path / "a", "0.txt")
    assert [sniff(Origin("texts", tmp_path, name)) for name in ("a", "b")] == ["parquet", "webdataset"]


@pytest.mark.parametrize("content", [b"\0\1\2", b'{"a":\n1}'])
def test_what_tells_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=r"a is in no format that is known; name it in sources\.texts\.format"):
        sniff(Origin("texts", tmp_path, "a"))


def test_an_empty_folder_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in no format that is known"):
        sniff(Origin("texts", tmp_path, "."))


def test_every_format_of_the_params_has_a_reader() -> None:
    for name in READERS:
        assert Source(format=name, path="x").format == name  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="format"):
        Source(format="other", path="x")  # type: ignore[arg-type]


def test_an_empty_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b" \n")
    with pytest.raises(InputError, match="a is empty"):
        sniff(Origin("texts", tmp_path, "a"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"text": "a", "meta": {"src": "x"}}\n', "jsonl"),
        ("a.jsonl", b'{"text": "a", "meta": {"images": 3, "annotation": 4}}\n', "jsonl"),
        ("a.jsonl", b'{"text": \n{"text": "b"}\n', "jsonl"),
        ("a.jsonl", b'{"text": "' + b"a" * 100_000 + b'"}\n', "jsonl"),
        ("a.jsonl", b'{"a":' + b"[" * 60_000 + b'\n{"text": "b"}\n', "jsonl"),
        ("a.txt", b"[Intro] hello\nmore\n", "lines"),
    ],
)
def test_what_is_easily_mistaken(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert sniff(Origin("texts", tmp_path, name)) == expected


def test_a_few_pictures_beside_tables_are_no_folder_of_pictures(
    tmp_path: Path, save_picture: Callable[..., Path]
) -> None:
    save_picture("data/assets/logo.png")
    polars.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "data/train-0.parquet")
    assert sniff(Origin("texts", tmp_path, "data")) == "parquet"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        sniff(Origin("texts", tmp_path, "a"))
