"""evaluate: every benchmark question answered with the picture and without, parsed, scored, and kept."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from polars import DataFrame

from gapbridge.corpus.manifest import read_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError
from gapbridge.evaluate.benchmarks import BENCHMARKS, rules_for
from gapbridge.evaluate.blind import mean_image
from gapbridge.evaluate.generation import KeptAnswers, Request
from gapbridge.evaluate.predict import Predictor
from gapbridge.evaluate.predictions import BLIND, SEEING, write_predictions
from gapbridge.evaluate.protocol import Graded, Item, Rules, grade
from gapbridge.evaluate.reference import Reference, grey
from gapbridge.evaluate.scores import benchmark_figures, whole_figures
from gapbridge.stages.runner import StageRun
from gapbridge.train.prompts import record_names


def run(stage: StageRun) -> dict[str, Any]:
    """Write predictions.jsonl and predictions_blind.jsonl; the figures are those of every benchmark."""
    torch.set_num_threads(stage.params.evaluate.threads)
    if stage.params.evaluate.model is None:
        return run_on(stage, stage.artifact("instruct"), "artifacts/instruct")
    manifest = read_manifest(stage.artifact("ingest", "benchmark"))
    items = benchmark_items(manifest)
    reference = Reference.load(
        stage.params.evaluate.model,
        stage.params.evaluate.revision,
        stage.params.evaluate.batch_size,
        stage.workspace,
    )
    figures = _score(stage, items, *_reference_answers(stage, reference, items, manifest))
    return {**figures, "model": reference.identity}


def run_on(stage: StageRun, model: Path, name: str) -> dict[str, Any]:
    """As `run`, for the model in a folder, whichever of ours it is; errors call it by `name`."""
    manifest = read_manifest(stage.artifact("ingest", "benchmark"))
    items = benchmark_items(manifest)
    return _score(stage, items, *_own_answers(stage, model, name, items, manifest))


def _own_answers(
    stage: StageRun, model: Path, name: str, items: Sequence[Item], manifest: DataFrame
) -> tuple[list[str], list[str]]:
    """The answers of a model of ours, with the picture's vector and with the mean image's."""
    images = Shards.open(stage.artifact("embed", "images", "images"))
    pictures = Shards.open(stage.artifact("embed", "benchmark", "images"), images.fingerprint, images.width)
    predictor = Predictor.load(model, stage.params.evaluate.batch_size)
    _demand_same_encoder(predictor, images, name)
    places = _one_place_a_picture(manifest["sha256"], pictures.places([item.item_id for item in items]))
    visuals = predictor.embedded(pictures.read(range(pictures.rows)))
    seeing = predictor.answers(_requests(stage, items, places), visuals, "answers", _kept(stage, "seeing"))
    nothing = predictor.embedded(mean_image(images)[None])
    requests = _requests(stage, items, [0] * len(items))
    return seeing, predictor.answers(requests, nothing, "answers, blind", _kept(stage, "blind"))


def _reference_answers(
    stage: StageRun, reference: Reference, items: Sequence[Item], manifest: DataFrame
) -> tuple[list[str], list[str]]:
    """The answers of another model, with the picture's file and with a grey picture."""
    pictures = Pictures(stage.artifact("ingest", "benchmark"), stage.workspace / stage.params.sources.root)
    locators, digests = manifest["image"].to_list(), manifest["sha256"].to_list()
    requests = _requests(stage, items, _one_place_a_picture(digests, range(len(items))))
    kept = _kept(stage, "seeing", reference.identity)
    seeing = reference.answers(requests, lambda place: pictures.load(locators[place], digests[place]), "answers", kept)
    requests = _requests(stage, items, [0] * len(items))
    return seeing, reference.answers(requests, grey, "answers, blind", _kept(stage, "blind", reference.identity))


def _demand_same_encoder(predictor: Predictor, vectors: Shards, name: str) -> None:
    fingerprint = predictor.model.config.vision_config.encoder_fingerprint
    if fingerprint != vectors.fingerprint:
        raise ArtifactError(
            f"{name}: reads vectors of encoder {fingerprint}, those embedded come from"
            f" {vectors.fingerprint}; run `dvc repro` with one encoder for both"
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


def _one_place_a_picture(digests: Iterable[str], places: Iterable[int]) -> list[int]:
    """The place of each item's picture, the same for the same picture: a question asked twice is answered once."""
    first: dict[str, int] = {}
    return [first.setdefault(digest, int(place)) for digest, place in zip(digests, places, strict=True)]


def _requests(stage: StageRun, items: Sequence[Item], places: Sequence[int]) -> list[Request]:
    names = record_names("benchmark", [item.item_id for item in items])
    limits = {name: benchmark.max_new_tokens for name, benchmark in BENCHMARKS.items()}
    usual = stage.params.evaluate.max_new_tokens
    return [
        Request(name, item.question, place, limits.get(item.benchmark) or usual)
        for name, item, place in zip(names, items, places, strict=True)
    ]


def _kept(stage: StageRun, side: str, model: dict[str, Any] | None = None) -> KeptAnswers:
    """What a killed run has answered; a reference's answers lie apart, since no dependency tells of its weights."""
    which = f"-{model.get('digest') or model['revision']}" if model else ""
    return KeptAnswers(stage.scratch / f"answers-{side}{which}.jsonl", side)


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
    return whole_figures(benchmarks, BENCHMARKS)


def _grade_all(rules: dict[str, Rules], items: Sequence[Item], raws: Sequence[str]) -> list[Graded]:
    return [
        grade(rules[item.benchmark], [item], [item.question], [raw])[0] for item, raw in zip(items, raws, strict=True)
    ]
