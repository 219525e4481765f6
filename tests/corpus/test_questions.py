"""Rows of published benchmarks' tables, and the questions made of them."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from gapbridge.corpus import parquet
from gapbridge.corpus.gather import gather
from gapbridge.corpus.manifest import BadRow
from gapbridge.corpus.origin import BadFieldError, Draft, Origin, words
from gapbridge.corpus.parquet import TableRow
from gapbridge.corpus.pictures import Pictures
from gapbridge.corpus.questions import question, questions
from gapbridge.errors import InputError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two splits, as `datasets` writes them: two columns of pictures to read, one to leave alone."""
    datasets.disable_progress_bars()
    pictures = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (6, 9, 3), dtype=np.uint8)) for n in (0, 1)]
    rows = {
        "qid": ["a", "b", "c"],
        "text": ["What?", "  ", "Who?"],
        "options": [["x", "y"], [], ["z"]],
        "image_1": [pictures[0], pictures[1], pictures[0]],
        "image_2": [None, pictures[0], None],
        "icon": pictures[:1] * 3,
    }
    image = datasets.Image()
    features = {
        "qid": datasets.Value("string"),
        "text": datasets.Value("string"),
        "options": datasets.Sequence(datasets.Value("string")),
        "image_1": image,
        "image_2": image,
        "icon": image,
    }
    written = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    (tmp_path / "mine/data").mkdir(parents=True)
    written.to_parquet(tmp_path / "mine/data/validation-00000-of-00001.parquet")
    written.select([0]).to_parquet(tmp_path / "mine/data/dev-00000-of-00001.parquet")
    return tmp_path


def test_rows_have_every_column_and_their_pictures(table: Path) -> None:
    origin = Origin("benchmark", table, "mine")
    found = list(parquet.rows(origin, ["image_1", "image_2", "image_3"], "validation-"))
    assert all(isinstance(row, TableRow) for row in found)
    assert [list(row.pictures) for row in found] == [["image_1"], ["image_1", "image_2"], ["image_1"]]
    assert found[0].fields == {"qid": "a", "text": "What?", "options": ["x", "y"]}
    assert found[2].place == "mine/data/validation-00000-of-00001.parquet row 3"
    shown = found[1].pictures["image_2"]
    assert Pictures(table, table).read(shown.locator) == shown.content
    with Image.open(io.BytesIO(shown.content)) as picture:
        assert picture.size == (9, 6)
    assert len(list(parquet.rows(origin, ["image_1"]))) == 4


def test_a_single_file_is_read_whatever_its_name(table: Path) -> None:
    origin = Origin("benchmark", table, "mine/data/dev-00000-of-00001.parquet")
    assert [row.fields["qid"] for row in parquet.rows(origin, ["image_1"], "test-")] == ["a"]


@pytest.mark.parametrize(
    ("path", "columns", "prefix", "message"),
    [
        ("mine", ["image_1"], "test-", r"sources\.benchmark\.path: mine holds no parquet file whose name begins with"),
        ("mine", ["decoded"], "", r"has no column 'decoded', but qid, text, .*; name the file or folder"),
        ("gone", ["image_1"], "", r"sources\.benchmark\.path: gone does not exist"),
        ("mine/no.parquet", ["image_1"], "", r"no parquet table, or a damaged one"),
    ],
)
def test_what_is_no_such_table_is_one_line(
    table: Path, path: str, columns: list[str], prefix: str, message: str
) -> None:
    if path == "mine/no.parquet":
        (table / path).write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=message) as caught:
        list(parquet.rows(Origin("benchmark", table, path), columns, prefix))
    assert "\n" not in str(caught.value)


def read(origin: Origin, kind: str) -> Iterator[Draft | BadRow]:
    """A benchmark of that table; its protocol leaves rows of two pictures out."""
    assert kind == "question"

    def make(row: TableRow) -> Draft | None:
        if len(row.pictures) > 1:
            return None
        if row.fields["qid"] == "c":
            raise BadFieldError("no options")
        options = {"choices": row.fields["options"], "category": "é"}
        picture, text = row.pictures["image_1"], words(row.fields, "text")
        fields = {"benchmark": "mine", "text": text, "answer": "A", "picture": picture, "detail": options}
        return question(origin, row.place, row.fields["qid"], **fields)

    return questions(origin, parquet.rows(origin, ["image_1", "image_2"], "validation-"), make)


def test_rows_become_questions_bad_rows_or_are_left_out(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    origin = Origin("benchmark", table, "mine")
    with caplog.at_level(logging.INFO):
        found, bad = list(gather(origin, "mine", "question", 1000, benchmarks={"mine": read}))
    assert "mine: 1 questions left out" in caplog.text
    assert isinstance(bad, BadRow) and bad.reason == "no options"
    assert isinstance(found, dict)
    assert (found["id"], found["benchmark"], found["question"], found["width"]) == ("a", "mine", "What?", 9)
    assert found["detail"] == '{"category": "é", "choices": ["x", "y"]}'
    assert json.loads(found["detail"])["choices"] == ["x", "y"]


def test_a_benchmark_gives_questions_alone(table: Path) -> None:
    with pytest.raises(InputError, match="mine gives no text records"):
        list(gather(Origin("texts", table, "mine"), "mine", "text", 1000, benchmarks={"mine": read}))


def test_a_published_name_is_kept_for_its_own_format(
    tmp_path: Path, save_picture: Callable[..., Path], save_lines: Callable[..., None]
) -> None:
    save_picture("1.png")
    line = {"question_id": 1, "image": "1.png", "text": "What?", "label": "x", "benchmark": "mine"}
    save_lines("p.jsonl", [line, {**line, "question_id": 2, "benchmark": "other"}])
    origin = Origin("benchmark", tmp_path, "p.jsonl", ".")
    bad, good = gather(origin, "pope", "question", 1000, benchmarks={"mine": read})
    assert isinstance(bad, BadRow) and isinstance(good, dict)
    assert (bad.id, good["id"]) == ("1", "2")
    assert "mine is a published benchmark; read its own files with `format: mine`" in bad.reason
