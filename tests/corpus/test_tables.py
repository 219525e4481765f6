"""Tables of every kind, written by the libraries that people write them with: csv, Parquet, saved `datasets`."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from gapbridge.corpus.gather import gather
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.pictures import Pictures
from gapbridge.corpus.quarantine import write_quarantine
from gapbridge.errors import ArtifactError, InputError

Read = Callable[..., tuple[list[dict[str, Any]], list[BadRow]]]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def picture(seed: int, size: tuple[int, int] = (12, 8)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv", ";")])
def test_a_delimited_table(name: str, delimiter: str, tmp_path: Path, read: Read) -> None:
    frame = polars.DataFrame({"id": ["a", "b"], "caption": ['a "cat",\nor; two\tof them', "ein Hünd"], "x": [1, 2]})
    frame.write_csv(tmp_path / name, separator=delimiter)
    records, bad = read("csv", "text", name)
    assert bad == []
    assert [(one["id"], one["text"]) for one in records] == [("a", 'a "cat",\nor; two\tof them'), ("b", "ein Hünd")]


def test_bad_rows_of_a_delimited_table(tmp_path: Path, read: Read) -> None:
    (tmp_path / "t.csv").write_bytes(b"id,text\n1,good\n2\n3,\xff\n4,\n5,a,b\n\n6,good\n")
    records, bad = read("csv", "text", "t.csv")
    assert [one["id"] for one in records] == ["1", "6"]
    assert [(one.place, one.reason) for one in bad] == [
        ("t.csv line 3", "1 fields in a table of 2 columns"),
        ("t.csv line 4", "the row is not UTF-8"),
        ("t.csv line 5", '"text" is missing'),
        ("t.csv line 6", "3 fields in a table of 2 columns"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "has no header"), ('text\n"never closed\n', r"t\.csv near line 1: unexpected end of data; mend the quotes")],
)
def test_a_delimited_table_that_cannot_be_read(content: str, message: str, tmp_path: Path, read: Read) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read("csv", "text", "t.csv")


def test_one_text_a_line(tmp_path: Path, read: Read) -> None:
    (tmp_path / "t.txt").write_bytes("\ufeffeine Katze\r\n\n  ein Hund \n".encode() + b"\xff\n")
    records, (bad,) = read("lines", "text", "t.txt")
    assert [(one["id"], one["text"]) for one in records] == [
        ("line-000000001", "eine Katze"),
        ("line-000000003", "ein Hund"),
    ]
    assert (bad.place, bad.reason) == ("t.txt line 4", "the line is not UTF-8")


def _saved(tmp_path: Path, rows: int = 600) -> datasets.Dataset:
    """More rows than one batch of the reader."""
    contents = [picture(seed) if seed < 3 else {"bytes": png(3), "path": None} for seed in range(rows)]
    features = {"image": datasets.Image(), "text": datasets.Value("string")}
    return datasets.Dataset.from_dict(
        {"image": contents, "text": [f"text {row}" for row in range(rows)]}, features=datasets.Features(features)
    )


@pytest.mark.parametrize("file_format", ["parquet", "datasets"])
def test_pictures_inside_a_table(file_format: str, tmp_path: Path, read: Read) -> None:
    """As `datasets` writes them; each is found again where its locator says."""
    saved = _saved(tmp_path)
    if file_format == "parquet":
        saved.to_parquet(tmp_path / "data.parquet", batch_size=250)
        name = "data.parquet"
    else:
        saved.save_to_disk(tmp_path / "data")
        name = "data"
    records, bad = read(file_format, "pair", name)
    assert bad == [] and len(records) == 600
    assert [one["text"] for one in records[:2]] == ["text 0", "text 1"]
    assert (records[0]["width"], records[0]["height"]) == (12, 8)
    assert len({one["id"] for one in records}) == len({one["group_id"] for one in records}) == 600
    pictures = Pictures(tmp_path, tmp_path)
    for row in (0, 2, 599, 1):
        shown = pictures.load(records[row]["image"], records[row]["sha256"])
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(picture(min(row, 3))))
    with pytest.raises(ArtifactError, match=r"#image#600: cannot be read"):
        pictures.read(records[599]["image"].replace("#599", "#600"))
    assert read(file_format, "text", name)[0][5]["text"] == "text 5"
    assert read(file_format, "image", name)[0][5]["caption"] is None


def test_a_folder_of_parquet_files_with_plain_bytes(tmp_path: Path, read: Read) -> None:
    (tmp_path / "data").mkdir()
    for number in (0, 1):
        content = [png(number), b"no picture"] if number == 0 else [None, png(5)]
        table = pyarrow.table({"jpg": pyarrow.array(content, pyarrow.binary()), "key": [f"{number}a", f"{number}b"]})
        pyarrow.parquet.write_table(table, tmp_path / f"data/{number}.parquet")
    records, bad = read("parquet", "image", "data")
    assert [one["id"] for one in records] == ["0a", "1b"]
    assert records[1]["image"] == "rows:data/1.parquet#jpg#1"
    assert [(one.place, one.id, one.reason) for one in bad] == [
        ("data/0.parquet row 2", "0b", "not a picture in a known format"),
        ("data/1.parquet row 1", "1a", '"image" is missing'),
    ]


def test_a_table_of_paths(tmp_path: Path, read: Read, save_picture: Callable[..., Path]) -> None:
    save_picture("img/1.png")
    polars.DataFrame({"image": ["1.png", "../t.parquet"], "text": ["a", "b"]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"'image' of t\.parquet holds paths, not pictures; name their folder in"):
        read("parquet", "pair", "t.parquet")
    (pair,), (bad,) = read("parquet", "pair", "t.parquet", "img")
    assert (pair["image"], pair["text"]) == ("root:img/1.png", "a")
    assert bad.reason == "the path leaves its root"


def test_columns_that_are_called_otherwise(tmp_path: Path, read: Read) -> None:
    polars.DataFrame({"id": [1], "alt": ["a cat"], "thumb": [png(1)]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(
        InputError, match=r"has no column of texts, but id, alt, thumb; name one in sources\.texts\.text_f"
    ):
        read("parquet", "text", "t.parquet")
    with pytest.raises(InputError, match="has no column of pictures"):
        read("parquet", "image", "t.parquet")
    with pytest.raises(InputError, match=r"text_field: t\.parquet has no column 'alt2', but id, alt, thumb"):
        read("parquet", "text", "t.parquet", text_field="alt2")
    (pair,), bad = read("parquet", "pair", "t.parquet", text_field="alt", image_field="thumb")
    assert (pair["id"], pair["text"], bad) == ("1", "a cat", [])


def test_splits_of_a_saved_dataset(tmp_path: Path, read: Read) -> None:
    one = _saved(tmp_path, 3)
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(tmp_path / "data")
    with pytest.raises(InputError, match="data holds the splits train, test; name one, data/SPLIT"):
        read("datasets", "text", "data")
    assert [record["text"] for record in read("datasets", "text", "data/test")[0]] == ["text 1"]


@pytest.mark.parametrize("file_format", ["parquet", "datasets"])
def test_a_damaged_table(file_format: str, tmp_path: Path, read: Read) -> None:
    if file_format == "parquet":
        _saved(tmp_path, 9).to_parquet(tmp_path / "data.parquet")
        path, name = tmp_path / "data.parquet", "data.parquet"
    else:
        _saved(tmp_path, 9).save_to_disk(tmp_path / "data")
        path, name = next((tmp_path / "data").glob("*.arrow")), "data"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="or a damaged one"):
        read(file_format, "text", name)


def test_what_is_no_saved_dataset(tmp_path: Path, read: Read) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="no dataset that save_to_disk wrote"):
        read("datasets", "text", "data")
    with pytest.raises(InputError, match=r"data holds no \.parquet file"):
        read("parquet", "text", "data")
    (tmp_path / "data/state.json").write_text('{"_data_files": [{"filename": "../../x.arrow"}]}')
    with pytest.raises(InputError, match="leaves its root"):
        read("datasets", "text", "data")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_imagefolder(kind: str, tmp_path: Path, read: Read, save_picture: Callable[..., Path]) -> None:
    save_picture("data/a/1.png")
    frame = polars.DataFrame({"file_name": ["a/1.png", "a/2.png"], "text": ["a cat", "a dog"]})
    name = tmp_path / f"data/metadata.{kind}"
    {"jsonl": frame.write_ndjson, "csv": frame.write_csv, "parquet": frame.write_parquet}[kind](name)
    (pair,), (bad,) = read("imagefolder", "pair", "data")
    assert (pair["text"], pair["image"]) == ("a cat", "root:data/a/1.png")
    assert bad.reason == "the picture's file is missing"
    name.unlink()
    with pytest.raises(InputError, match=r"data has no metadata\.jsonl or .*; use format folder"):
        read("imagefolder", "pair", "data")


def test_a_stray_quote_is_told_by_its_line(tmp_path: Path, read: Read) -> None:
    (tmp_path / "t.csv").write_text('id,text\n1,ok\n2,"a" b\n3,fine\n')
    with pytest.raises(InputError, match=r"t\.csv near line 2: .*; mend the quotes there"):
        read("csv", "text", "t.csv")


def test_values_that_are_no_text_are_bad_rows(tmp_path: Path, read: Read) -> None:
    """Bytes that are not UTF-8 in a column of strings, as other writers leave them."""
    buffers = [
        None,
        pyarrow.py_buffer(np.array([0, 4, 8, 12], np.int32).tobytes()),
        pyarrow.py_buffer(b"goodcaf\xe9fine"),
    ]
    texts = pyarrow.StringArray.from_buffers(3, *buffers[1:])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "t.parquet")
    records, (bad,) = read("parquet", "text", "t.parquet")
    assert [one["text"] for one in records] == ["good", "fine"]
    assert (bad.place, bad.reason) == ("t.parquet row 2", "the row holds what is no text or number")


def test_a_text_is_whichever_column_the_row_has(tmp_path: Path, read: Read) -> None:
    polars.DataFrame({"text": ["a", None], "caption": ["x", "b"]}).write_parquet(tmp_path / "t.parquet")
    assert [one["text"] for one in read("parquet", "text", "t.parquet")[0]] == ["a", "b"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path, read: Read) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], ["text", "text"])
    with pyarrow.OSFile(str(tmp_path / "d.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "data").mkdir()
    (tmp_path / "d.arrow").rename(tmp_path / "data/d.arrow")
    (tmp_path / "data/state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
    with pytest.raises(InputError, match="has several columns 'text'; rename all but one"):
        read("datasets", "text", "data")


def test_a_picture_that_is_only_named_is_a_bad_row(tmp_path: Path, read: Read) -> None:
    contents = [{"bytes": png(1), "path": None}, {"bytes": None, "path": "b.png"}, {"bytes": None, "path": None}]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})  # what datasets.Image() is stored as
    pyarrow.parquet.write_table(pyarrow.table({"image": pyarrow.array(contents, kind)}), tmp_path / "t.parquet")
    (record,), bad = read("parquet", "image", "t.parquet")
    assert record["image"] == "rows:t.parquet#image#0"
    assert bad[0].reason.startswith("the picture is not in the table, only its path; name its folder in")
    assert bad[1].reason == '"image" is missing'


@pytest.mark.parametrize("file_format", ["parquet", "webdataset"])
def test_a_shard_that_is_a_link_out_of_the_root_is_refused(file_format: str, tmp_path: Path, read: Read) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    suffix = {"parquet": "parquet", "webdataset": "tar"}[file_format]
    polars.DataFrame({"text": ["a"]}).write_parquet(tmp_path / f"x.{suffix}")
    (root / f"d/x.{suffix}").symlink_to(tmp_path / f"x.{suffix}")
    with pytest.raises(InputError, match="leaves its root"):
        list(gather(Origin("texts", root, "d"), file_format, "text", 1000))


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"splits": 3}'])
def test_a_damaged_list_of_splits(content: str, tmp_path: Path, read: Read) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_dict.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset_dict\.json is damaged"):
        read("datasets", "text", "data")


def test_a_large_group_of_rows_is_not_held_twice(tmp_path: Path, read: Read) -> None:
    """One group of 94 MB: neither reading it nor finding a picture again takes it twice, as pyarrow's own way does."""
    noise = np.random.default_rng(0).bytes(1 << 16)
    content = [png(1)] + [noise] * 1500 + [png(2)]
    pyarrow.parquet.write_table(pyarrow.table({"image": content}), tmp_path / "t.parquet", use_dictionary=False)
    del content
    before = pyarrow.total_allocated_bytes()
    rows = gather(Origin("images", tmp_path, "t.parquet"), "parquet", "image", 1000)
    assert next(rows)["image"] == "rows:t.parquet#image#0"
    assert pyarrow.total_allocated_bytes() - before < 100 << 20
    rows.close()
    pictures = Pictures(tmp_path, tmp_path)
    assert pictures.load("rows:t.parquet#image#1501").size == (12, 8)
    assert pyarrow.total_allocated_bytes() - before < 100 << 20


def test_a_picture_that_no_row_names_is_a_bad_row(
    tmp_path: Path, read: Read, save_picture: Callable[..., Path]
) -> None:
    for number, name in enumerate(("a.png", "sub/b.png", "sub/c.png", ".hidden.png")):
        save_picture(f"data/{name}", number)
    rows = [{"file_name": "a.png", "text": "one"}, {"file_name": "./sub/b.png", "text": ""}]
    (tmp_path / "data/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (pair,), (empty, unnamed) = read("imagefolder", "pair", "data")
    assert pair["text"] == "one" and empty.reason == '"text" is empty'
    assert (unnamed.place, unnamed.reason) == ("data/sub/c.png", "no row of metadata.jsonl names the picture")
    assert len(read("imagefolder", "text", "data")[1]) == 1


def test_a_stream_that_is_cut_between_two_batches_is_noticed(tmp_path: Path, read: Read) -> None:
    """What is left is a stream that pyarrow reads without a word."""
    saved = datasets.Dataset.from_dict({"text": [f"text {row}" for row in range(3000)]})
    saved.save_to_disk(tmp_path / "data")
    (path,) = (tmp_path / "data").glob("*.arrow")
    content = path.read_bytes()
    ends = []
    with pyarrow.ipc.open_stream(pyarrow.BufferReader(content)) as stream:
        assert len(list(stream)) > 1
    source = pyarrow.BufferReader(content)
    with pyarrow.ipc.open_stream(source) as stream:
        for _ in stream:
            ends.append(source.tell())
    path.write_bytes(content[: ends[0]])
    with pyarrow.ipc.open_stream(pyarrow.BufferReader(path.read_bytes())) as stream:
        assert 0 < sum(batch.num_rows for batch in stream) < 3000
    with pytest.raises(InputError, match=r"\.arrow: the Arrow stream is cut short; copy it again"):
        read("datasets", "text", "data")


def test_a_delimited_table_with_two_texts_is_refused(tmp_path: Path, read: Read) -> None:
    (tmp_path / "t.csv").write_text("id,text,text\n1,a red ring,a blue one\n")
    with pytest.raises(InputError, match="several columns 'text'; rename all but one"):
        read("csv", "text", "t.csv")
    (tmp_path / "t.csv").write_text("id,text,x,x\n1,a red ring,1,2\n")
    assert len(read("csv", "text", "t.csv")[0]) == 1, "what is not read may be there twice"


def test_pictures_with_odd_names_are_not_lost(tmp_path: Path, read: Read) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b\u00a0c.png", "d\ne.png", os.fsdecode(b"f\xff.png")):
        (folder / name).write_bytes(png(0))
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png"}\n')
    good, bad = read("imagefolder", "image", "photos")
    assert len(good) == 1
    assert [row.id for row in bad] == ["b\u00a0c.png", "d\\ne.png", "f\\udcff.png"]
    write_quarantine(tmp_path / "quarantine.parquet", bad)
    assert polars.read_parquet(tmp_path / "quarantine.parquet").height == 3
