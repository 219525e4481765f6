"""What goes wrong most often with data and models of one's own: each one line that says where, what, and the remedy.

A hub that refuses a model stands in tests/test_hub.py, vectors of another encoder in test_evaluate.py and
test_pretrain.py.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest

from gapbridge.errors import GapbridgeError

from .direct import run_directly
from .own_vectors import write_language_model

SetParams = Callable[..., None]


@pytest.fixture
def line(user_files: Path, workspace: Path) -> Callable[[str], str]:
    """Runs a stage and gives the line by which it stops; nothing half-written is left."""

    def stopped(stage: str) -> str:
        with pytest.raises(GapbridgeError) as caught:
            run_directly(workspace, stage)
        assert not (workspace / "artifacts" / stage).exists() and "\n" not in str(caught.value)
        return str(caught.value)

    return stopped


def _parquet(data: Path) -> None:
    polars.DataFrame({"text": [f"text {row}" for row in range(9)]}).write_parquet(data / "t.parquet")


def _csv(data: Path) -> None:
    polars.DataFrame({"text": [f"text {row}" for row in range(9)]}).write_csv(data / "t.csv")


def _json_list(data: Path) -> None:
    shutil.copy(data / "instruct.json", data / "t.json")


@pytest.mark.parametrize(
    ("write", "path", "named", "found"),
    [
        (_parquet, "t.parquet", "jsonl", "parquet"),
        (_parquet, "t.parquet", "csv", "parquet"),
        (_csv, "t.csv", "jsonl", "csv"),
        (_csv, "t.csv", "parquet", "csv"),
        (_json_list, "t.json", "jsonl", "llava"),
        (_json_list, "t.json", "webdataset", "llava"),
        (lambda data: None, "texts.jsonl", "parquet", "jsonl"),
    ],
)
def test_a_wrong_format(
    write: Callable[[Path], None], path: str, named: str, found: str,
    user_files: Path, set_params: SetParams, line: Callable[[str], str],
) -> None:  # fmt: skip
    write(user_files)
    set_params(sources={"texts": {"format": named, "path": f"data/{path}"}})
    expected = f"data/{path} looks like {found}, not {named}; say {found}, or leave the format out"
    assert line("ingest") == f"sources.texts.format: {expected}"


def test_a_format_that_cannot_give_what_a_set_needs(set_params: SetParams, line: Callable[[str], str]) -> None:
    set_params(sources={"texts": {"format": "folder", "path": "data/images"}})
    assert line("ingest").startswith("sources.texts.format: folder gives no text records; use csv or ")


def test_a_wrong_root(set_params: SetParams, line: Callable[[str], str]) -> None:
    set_params(sources={"root": "nowhere"})
    for stage in ("sources", "ingest"):
        assert "sources.root: there is no folder" in (told := line(stage)) and told.endswith("mend it in params.yaml")


def test_pictures_that_are_missing(user_files: Path, set_params: SetParams, line: Callable[[str], str]) -> None:
    instruct = {"format": "llava", "path": "data/instruct.json", "images": "data/elsewhere"}
    (user_files / "elsewhere").mkdir()
    set_params(sources={"instruct": instruct})
    told = line("ingest")
    assert told.startswith(
        "data/instruct.json row 1: the picture's file is missing (6 such rows; in all 6 of the 6 rows"
    )
    assert told.endswith("; sources.instruct.images names the folder where it is looked for")
    shutil.rmtree(user_files / "elsewhere")
    assert line("ingest").startswith("sources.instruct.images: data/elsewhere does not exist in")


def test_a_column_of_strings_in_place_of_pictures(
    user_files: Path, set_params: SetParams, line: Callable[[str], str]
) -> None:
    polars.DataFrame({"image": [f"{row}.png" for row in range(6)]}).write_parquet(user_files / "i.parquet")
    set_params(sources={"images": {"path": "data/i.parquet"}})
    told = line("ingest")
    assert "the column 'image' of data/i.parquet holds paths, not pictures" in told
    assert told.endswith("name their folder in sources.images.images")


def test_a_benchmark_that_is_not_there(set_params: SetParams, line: Callable[[str], str]) -> None:
    set_params(sources={"benchmark": {"format": "pope", "path": "data/no.jsonl", "images": "data/benchmark"}})
    for stage in ("sources", "ingest"):
        told = line(stage)
        assert told.startswith("sources.benchmark.path: data/no.jsonl does not exist in")
        assert told.endswith("mend the path or sources.root")


@pytest.mark.parametrize(
    ("template", "message"),
    [(False, "the language model's tokenizer has no chat template; pin an instruct model"), (None, "no such folder")],
)
def test_a_language_model_that_will_not_do(
    template: bool | None, message: str, workspace: Path, set_params: SetParams, line: Callable[[str], str]
) -> None:
    if template is not None:
        write_language_model(workspace / "model", ["a red circle"], template)
    set_params(llm={"pretrained": str(workspace / "model")})
    assert message in line("llm")


def test_an_encoder_that_is_no_folder_of_one(
    workspace: Path, set_params: SetParams, line: Callable[[str], str]
) -> None:
    run_directly(workspace, "ingest")
    set_params(encoder={"pretrained": "local-dir:data/images"})
    assert "open_clip_config.json is missing; name a folder that open_clip saved" in line("encoder")


def test_params_of_a_wrong_kind_name_their_key(workspace: Path, set_params: Any) -> None:
    set_params(sources={"texts": {"format": "jsnol", "path": "a"}})
    with pytest.raises(GapbridgeError, match=r"sources\.texts\.format: Input should be 'world', 'jsonl', .*'jsnol'"):
        run_directly(workspace, "sources")
