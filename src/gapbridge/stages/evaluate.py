"""evaluate: every benchmark question answered with the picture and without, parsed, scored, and kept."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from polars import DataFrame

from gapbridge.corpus.manifest import read_manifest
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError
from gapbridge.evaluate.benchmarks import rules_for
from gapbridge.evaluate.blind import mean_image
from gapbridge.evaluate.predict import Predictor
from gapbridge.evaluate.predictions import BLIND, SEEING, write_predictions
from gapbridge.evaluate.protocol import Graded, Item, Rules, grade
from gapbridge.evaluate.scores import benchmark_figures, whole_figures
from gapbridge.stages.runner import StageRun
from gapbridge.train.prompts import record_names


def run(stage: StageRun) -> dict[str, Any]:
    """Write predictions.jsonl and predictions_blind.jsonl; the figures are those of every benchmark."""
    settings = stage.params.evaluate
    torch.set_num_threads(settings.threads)
    manifest = read_manifest(stage.artifact("ingest", "benchmark"))
    items = benchmark_items(manifest)
    images = Shards.open(stage.artifact("embed", "images", "images"))
    pictures = Shards.open(stage.artifact("embed", "benchmark", "images"), images.fingerprint, images.width)
    predictor = Predictor.load(stage.artifact("instruct"), settings.batch_size, settings.max_new_tokens)
    _demand_same_encoder(predictor, images)
    ids, questions = [item.item_id for item in items], [item.question for item in items]
    places = _one_row_a_picture(manifest["sha256"], pictures.places(ids))
    visuals = predictor.embedded(pictures.read(range(pictures.rows)))
    seeing = predictor.answers(questions, places, visuals, "answers", record_names("benchmark", ids))
    nothing = predictor.embedded(mean_image(images)[None])
    blind = predictor.answers(questions, [0] * len(items), nothing, "answers, blind")
    return _score(stage, items, seeing, blind)


def _demand_same_encoder(predictor: Predictor, vectors: Shards) -> None:
    fingerprint = predictor.model.config.vision_config.encoder_fingerprint
    if fingerprint != vectors.fingerprint:
        raise ArtifactError(
            f"artifacts/instruct: reads vectors of encoder {fingerprint}, those embedded come from"
            f" {vectors.fingerprint}; run `dvc repro instruct`"
        )


def benchmark_items(manifest: DataFrame) -> list[Item]:
    """The questions of a benchmark manifest, in its order."""
    return [
        Item(
            row["id"],
            row["benchmark"],
            row["group_id"],
            row["question"],
            row["answer"],
            row["subset"],
            row["novel"],
            json.loads(row["detail"] or "{}"),
        )
        for row in manifest.iter_rows(named=True)
    ]


def _one_row_a_picture(digests: Iterable[str], rows: Iterable[int]) -> list[int]:
    """The row of each item's picture, the same for the same picture: a question asked twice is answered once."""
    first: dict[str, int] = {}
    return [first.setdefault(digest, int(row)) for digest, row in zip(digests, rows, strict=True)]


def _score(stage: StageRun, items: Sequence[Item], seeing: Sequence[str], blind: Sequence[str]) -> dict[str, Any]:
    names = sorted({item.benchmark for item in items})
    rules = {name: rules_for(name, [item for item in items if item.benchmark == name]) for name in names}
    graded = _grade_all(rules, items, seeing)
    graded_blind = _grade_all(rules, items, blind)
    write_predictions(stage.out / SEEING, graded, rules)
    write_predictions(stage.out / BLIND, graded_blind, rules)
    benchmarks = {
        name: benchmark_figures(
            rules[name],
            [one for one in graded if one.item.benchmark == name],
            [one for one in graded_blind if one.item.benchmark == name],
            stage.params.seed,
        )
        for name in names
    }
    return whole_figures(benchmarks)


def _grade_all(rules: dict[str, Rules], items: Sequence[Item], raws: Sequence[str]) -> list[Graded]:
    return [
        grade(rules[item.benchmark], [item], [item.question], [raw])[0] for item, raw in zip(items, raws, strict=True)
    ]
