"""Published benchmarks, several at once, by params alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gapbridge.corpus.manifest import read_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.embeddings.shards import write_shards
from gapbridge.errors import InputError
from gapbridge.evaluate.predictions import read_predictions

from ..evaluate.released import picture, write_lines, write_picture, write_table
from ..evaluate.tiny import save_model, unit_vectors

MMSTAR = {"format": "mmstar", "path": "data/mmstar.parquet"}
POPE = {"format": "pope_official", "path": "data/pope", "images": "data/val2014"}


@pytest.fixture
def released(user_files: Path, set_params: Callable[..., None]) -> Path:
    """Six questions of MMStar and two of POPE beside a user's other files, named in the params."""
    rows = [
        {"index": n, "question": "Which?", "image": picture(100 + n), "answer": "A", "category": "math"}
        for n in range(6)
    ]
    write_table(user_files / "mmstar.parquet", rows)
    asked = [{"question_id": n, "image": "1.jpg", "text": "Is there a cup?", "label": "yes"} for n in range(2)]
    write_lines(user_files / "pope/coco_pope_random.json", asked)
    write_picture(user_files / "val2014/1.jpg", 200)
    set_params(sources={"benchmark": [MMSTAR, POPE]})
    return user_files


def test_several_benchmarks_are_ingested(
    released: Path, workspace: Path, run_bare: Callable[[str], dict[str, Any]]
) -> None:
    run_bare("sources")
    metrics = run_bare("ingest")
    assert metrics["sets"]["benchmark"]["sources"] == {"data/mmstar.parquet": 6, "data/pope": 2}
    folder = workspace / "artifacts/ingest/benchmark"
    manifest = read_manifest(folder)
    assert manifest["id"].to_list()[0] == "data/mmstar.parquet#0"
    assert set(manifest["benchmark"]) == {"mmstar", "pope_official"}
    shown = [Pictures(folder, workspace).load(*row) for row in manifest["image", "sha256"].iter_rows()]
    assert {one.size for one in shown} == {(12, 8)}


def test_they_are_answered_and_scored_by_their_protocols(
    released: Path, workspace: Path, run_bare: Callable[[str], dict[str, Any]]
) -> None:
    run_bare("ingest")
    ids = read_manifest(workspace / "artifacts/ingest/benchmark")["id"].to_list()
    for name in ("benchmark", "images"):
        write_shards(workspace / "artifacts/embed" / name / "images", [(ids, unit_vectors(len(ids)))], "f", 100)
    save_model(workspace / "artifacts/instruct", "f")
    figures = run_bare("evaluate")["benchmarks"]
    assert (figures["mmstar"]["protocol"], figures["mmstar"]["n"]) == ("mmstar/1", 6)
    assert figures["mmstar"]["subsets"]["math"]["score"] == figures["mmstar"]["score"]
    assert (figures["pope_official"]["protocol"], figures["pope_official"]["n"]) == ("pope/1", 2)
    assert figures["pope_official"]["subsets"].keys() == {"random"}
    seeing = read_predictions(workspace / "artifacts/evaluate/predictions.jsonl")
    assert [line["item_id"] for line in seeing] == ids
    assert {line["protocol"] for line in seeing} == {"mmstar/1", "pope/1"}


def test_a_missing_file_stops_with_one_line(released: Path, run_bare: Callable[[str], dict[str, Any]]) -> None:
    (released / "mmstar.parquet").unlink()
    with pytest.raises(InputError, match=r"sources\.benchmark\.path: data/mmstar\.parquet does not exist"):
        run_bare("ingest")
