"""The stage evaluate, whole, on a tiny model of random weights."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapbridge.corpus.manifest import read_manifest, write_manifest
from gapbridge.embeddings.shards import write_shards
from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.predictions import read_predictions
from gapbridge.stages.runner import run_stage

from ..evaluate.tiny import QUESTIONS, save_model, unit_vectors
from .direct import run_directly

COUNT = 12


def _record(number: int, benchmark: str, answer: str, novel: bool) -> dict[str, Any]:
    return {
        "id": f"{benchmark}-{number:02d}",
        "group_id": f"scene {number}",
        "source": "test",
        "image": f"root:{number}.png",
        "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "width": 8,
        "height": 8,
        "benchmark": benchmark,
        "question": QUESTIONS[number % 2],
        "answer": answer,
        "subset": "random" if benchmark == "pope" else None,
        "novel": novel,
    }


@pytest.fixture
def ready(workspace: Path) -> Path:
    """A workspace with everything that evaluate reads."""
    artifacts = workspace / "artifacts"
    records = [_record(n, "pope", "yes" if n % 2 else "no", n == 0) for n in range(COUNT)]
    records += [_record(n, "caption_f1", "a red circle on the left", False) for n in range(COUNT)]
    write_manifest(artifacts / "ingest" / "benchmark", "question", records, [])
    rows = np.concatenate([unit_vectors(COUNT)] * 2)
    ids = [record["id"] for record in records]
    write_shards(artifacts / "embed" / "benchmark" / "images", [(ids, rows)], "f", 100)
    write_shards(artifacts / "embed" / "images" / "images", [(ids, rows)], "f", 100)
    save_model(artifacts / "instruct", "f")
    return workspace


def test_it_writes_figures_and_every_answer(ready: Path) -> None:
    figures = run_stage("evaluate", workspace=ready)
    seeing = read_predictions(ready / "artifacts/evaluate/predictions.jsonl")
    blind = read_predictions(ready / "artifacts/evaluate/predictions_blind.jsonl")
    assert [line["item_id"] for line in seeing] == [line["item_id"] for line in blind] == sorted(_ids())
    assert {line["raw"] for line in blind if line["prompt"] == QUESTIONS[0]} != {""}
    assert len({(line["prompt"], line["raw"]) for line in blind}) == 2
    assert len({(line["prompt"], line["raw"]) for line in seeing}) > 2
    assert set(figures["benchmarks"]) == {"pope", "caption_f1"}
    pope = figures["benchmarks"]["pope"]
    assert (pope["n"], pope["novel"]["n"], pope["subsets"]["random"]["n"]) == (COUNT - 1, 1, COUNT - 1)
    correct = [line["correct"] for line in seeing if line["benchmark"] == "pope" and not line["novel"]]
    assert pope["score"] == pytest.approx(sum(correct) / len(correct))
    captions = [line["f1"] for line in seeing if line["benchmark"] == "caption_f1"]
    assert figures["benchmarks"]["caption_f1"]["score"] == pytest.approx(sum(captions) / len(captions))
    assert figures["average"] == pytest.approx((pope["score"] + sum(captions) / len(captions)) / 2)


def test_two_runs_give_the_same_bytes(ready: Path) -> None:
    def outcome() -> list[bytes]:
        run_stage("evaluate", workspace=ready)
        files = [*sorted((ready / "artifacts/evaluate").iterdir()), ready / "metrics/evaluate.json"]
        return [file.read_bytes() for file in files]

    assert outcome() == outcome()


def test_vectors_of_another_encoder_are_refused(ready: Path) -> None:
    folder = ready / "artifacts/embed/images/images"
    write_shards(folder, [(["a"], unit_vectors(1))], "another", 100)
    with pytest.raises(ArtifactError, match="of encoder f, expected another"):
        run_stage("evaluate", workspace=ready)
    assert not (ready / "artifacts/evaluate").exists()


def test_a_model_of_another_encoder_is_refused(ready: Path) -> None:
    save_model(ready / "artifacts/instruct", "older")
    with pytest.raises(ArtifactError, match=r"artifacts/instruct: reads vectors of encoder older, .* from f; run"):
        run_stage("evaluate", workspace=ready)
    assert not (ready / "artifacts/evaluate").exists()


def test_a_marker_in_a_question_is_told_by_its_record(ready: Path) -> None:
    folder = ready / "artifacts/ingest/benchmark"
    records = read_manifest(folder).to_dicts()
    records[COUNT + 3]["question"] = "is there <image>"
    write_manifest(folder, "question", records, [])
    with pytest.raises(InputError, match="benchmark: record 'pope-03': its text holds the marker '<image>'"):
        run_directly(ready, "evaluate")


def _ids() -> list[str]:
    return [f"{benchmark}-{n:02d}" for benchmark in ("pope", "caption_f1") for n in range(COUNT)]
