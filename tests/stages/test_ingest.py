"""The stage that turns sources into records."""

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest
from PIL import Image

from gapbridge import artifacts
from gapbridge.corpus.manifest import read_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.corpus.records import SETS
from gapbridge.errors import InputError


@pytest.fixture
def ingest(run_bare: Callable[[str], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Runs the stage."""
    return lambda: run_bare("ingest")


@pytest.fixture
def stopped(ingest: Callable[[], dict[str, Any]], workspace: Path) -> Callable[[], str]:
    """Runs the stage and returns the one line by which it stops; nothing half-written is left."""

    def line() -> str:
        with pytest.raises(InputError) as caught:
            ingest()
        assert not list((workspace / "artifacts").glob("*ingest*"))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return line


def test_a_users_files_become_seven_manifests(
    user_files: Path, workspace: Path, ingest: Callable[[], dict[str, Any]]
) -> None:
    metrics = ingest()
    for name, kind in SETS.items():
        folder = workspace / "artifacts/ingest" / name
        assert read_manifest(folder).height == metrics["sets"][name]["rows"] == 6
        assert json.loads((folder / "ingest.json").read_text())["kind"] == kind
    assert metrics["disjoint"]["pairs"]["texts/images"] == {"shared_groups": 0, "shared_pictures": 0}
    folder = workspace / "artifacts/ingest/probe"
    record = read_manifest(folder).row(0, named=True)
    assert Pictures(folder, workspace).load(record["image"]).size == (record["width"], record["height"])


def test_two_runs_give_the_same_bytes_and_no_path_of_the_machine(
    user_files: Path, workspace: Path, ingest: Callable[[], dict[str, Any]]
) -> None:
    metrics = ingest()
    first = artifacts.dvc_digest(workspace / "artifacts/ingest")
    assert ingest() == metrics
    assert artifacts.dvc_digest(workspace / "artifacts/ingest") == first
    for path in (workspace / "artifacts/ingest").rglob("*.*"):
        assert str(workspace).encode() not in path.read_bytes()


def test_too_many_bad_rows_stop_the_stage_and_can_be_looked_up(
    user_files: Path,
    workspace: Path,
    set_params: Callable[..., None],
    ingest: Callable[[], dict[str, Any]],
    stopped: Callable[[], str],
) -> None:
    with (user_files / "texts.jsonl").open("a") as handle:
        handle.write('{"id": "x"}\n{"id": \n{"id": "y"}\n')
    line = stopped()
    assert line.startswith('data/texts.jsonl line 7: "text" is missing (2 such rows; in all 3 of the 9 rows')
    table = workspace / re.search(r"stand in (\S+),", line)[1]
    assert polars.read_parquet(table)["where"].to_list() == [f"data/texts.jsonl line {n}" for n in (7, 8, 9)]
    set_params(ingest={"max_bad_fraction": 0.5})
    metrics = ingest()["sets"]["texts"]
    assert (metrics["rows"], metrics["quarantined"]) == (6, 3)
    assert metrics["reasons"] == {'"text" is missing': 2, "the line does not parse as JSON": 1}


def test_the_table_of_bad_rows_goes_when_the_data_is_mended(
    user_files: Path, workspace: Path, ingest: Callable[[], dict[str, Any]], stopped: Callable[[], str]
) -> None:
    whole = (user_files / "texts.jsonl").read_text()
    (user_files / "texts.jsonl").write_text(whole + "{}\n")
    stopped()
    (user_files / "texts.jsonl").write_text(whole)
    ingest()
    assert not list((workspace / "runs").rglob("quarantine*"))


def test_too_few_rows_and_overlapping_sets_stop_the_stage(
    user_files: Path, workspace: Path, set_params: Callable[..., None], stopped: Callable[[], str]
) -> None:
    set_params(ingest={"min_rows": 7})
    assert stopped() == "sources.texts: 6 good rows in data/texts.jsonl, ingest.min_rows is 7"
    set_params(ingest={"min_rows": 1})
    (user_files / "texts.jsonl").write_text('{"text": "a", "group_id": "data/images/2.png"}\n')
    assert "texts and sources.images share 1 group (the first: data/images/2.png)" in stopped()


def test_a_benchmark_picture_under_another_name_in_training_stops_the_stage(
    user_files: Path, workspace: Path, stopped: Callable[[], str]
) -> None:
    (user_files / "images/copy.png").write_bytes((user_files / "benchmark/1.png").read_bytes())
    assert "sources.images and sources.benchmark share 1 picture file" in stopped()


def test_rows_is_a_limit_and_a_null_set_is_empty(
    user_files: Path, workspace: Path, set_params: Callable[..., None], ingest: Callable[[], dict[str, Any]]
) -> None:
    texts = {"format": "jsonl", "path": "data/texts.jsonl", "rows": 5}
    set_params(sources={"texts": texts, "llm": None})
    sets = ingest()["sets"]
    assert (sets["texts"]["rows"], sets["llm"]["rows"]) == (5, 0)
    assert read_manifest(workspace / "artifacts/ingest/llm").height == 0


def test_the_world_gives_every_set_and_is_apart(
    workspace: Path, set_params: Callable[..., None], ingest: Callable[[], dict[str, Any]]
) -> None:
    rows = {"texts": 60, "images": 40, "encoder": 64, "llm": 60, "instruct": 40, "probe": 40, "benchmark": 12}
    set_params(sources={name: {"format": "world", "rows": count} for name, count in rows.items()})
    sets = ingest()["sets"]
    expected = {**rows, "benchmark": 6 * 12 + 5 * 3}
    assert {name: entry["rows"] for name, entry in sets.items()} == expected
    folder = workspace / "artifacts/ingest/instruct"
    records = read_manifest(folder)
    pictures = Pictures(folder, workspace)
    assert all(pictures.load(locator).size == (64, 64) for locator in records["image"])
    first = artifacts.dvc_digest(workspace / "artifacts/ingest")
    ingest()
    assert artifacts.dvc_digest(workspace / "artifacts/ingest") == first


def test_several_sources_are_mixed_and_their_formats_found(
    user_files: Path, workspace: Path, set_params: Callable[..., None], ingest: Callable[[], dict[str, Any]]
) -> None:
    """Both number their rows alike; the table has no format named."""
    polars.DataFrame({"id": [1, 2, 3, 4], "caption": list("abcd")}).write_csv(user_files / "more.csv")
    polars.DataFrame({"id": [1, 2, 3, 4], "text": list("wxyz")}).write_ndjson(user_files / "other.jsonl")
    sources = [{"path": "data/more.csv", "weight": 1.0}, {"path": "data/other.jsonl", "weight": 2.0}]
    set_params(sources={"texts": sources})
    told = ingest()["sets"]["texts"]
    assert (told["rows"], told["sources"]) == (6, {"data/more.csv": 2, "data/other.jsonl": 4})
    ids = read_manifest(workspace / "artifacts/ingest/texts")["id"].to_list()
    assert [name for name in ids if name.startswith("data/other.jsonl#")] == [
        f"data/other.jsonl#{n}" for n in range(1, 5)
    ]


def test_pictures_inside_an_archive_and_near_twins(
    user_files: Path, workspace: Path, set_params: Callable[..., None], ingest: Callable[[], dict[str, Any]]
) -> None:
    with Image.open(user_files / "benchmark/1.png") as picture:
        picture.convert("RGB").save(user_files / "again.bmp")
    with tarfile.open(user_files / "images.tar", "w") as archive:
        archive.add(user_files / "images/1.png", "1.png")
        archive.add(user_files / "again.bmp", "2.bmp")
    set_params(sources={"images": {"path": "data/images.tar"}, "encoder": None}, ingest={"min_rows": 1})
    metrics = ingest()
    assert metrics["sets"]["images"]["rows"] == 2
    assert metrics["disjoint"]["near_twins"]["images"] == 1
    folder = workspace / "artifacts/ingest/images"
    record = read_manifest(folder).row(0, named=True)
    assert Pictures(folder, workspace).load(record["image"], record["sha256"]).size == (
        record["width"],
        record["height"],
    )


def test_a_weighed_source_without_rows_is_named(
    user_files: Path, workspace: Path, set_params: Callable[..., None], stopped: Callable[[], str]
) -> None:
    (user_files / "none.jsonl").write_text("\n")
    sources = [{"format": "jsonl", "path": f"data/{name}.jsonl", "weight": 1.0} for name in ("texts", "none")]
    set_params(sources={"texts": sources})
    assert stopped() == "sources.texts: data/none.jsonl has a weight and no good row; mend it or leave it out"


def test_fields_named_in_params_reach_the_readers(
    user_files: Path, workspace: Path, set_params: Callable[..., None], ingest: Callable[[], dict[str, Any]]
) -> None:
    polars.DataFrame({"alt": [f"text {row}" for row in range(6)]}).write_csv(user_files / "alt.csv")
    set_params(sources={"texts": {"path": "data/alt.csv", "text_field": "alt"}})
    ingest()
    assert read_manifest(workspace / "artifacts/ingest/texts")["text"][0] == "text 0"
