"""report: the page, the gallery's pictures, and the model card."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from polars import DataFrame

from gapbridge import artifacts
from gapbridge.corpus.manifest import read_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.embeddings.shards import Shards
from gapbridge.evaluate.predictions import SEEING, read_predictions
from gapbridge.evaluate.probe import write_probe
from gapbridge.model_package import register
from gapbridge.params import VECTORS, EncoderParams, LlmParams
from gapbridge.report import card, figures, gallery
from gapbridge.report.facts import Recipe, read_metrics
from gapbridge.report.licences import stated_licence
from gapbridge.report.page import Story, render
from gapbridge.stages.runner import StageRun

FORMAT_VERSION = 1
_PROBE_QUESTIONS = 8
_LOSSES = {
    "encoder": ("encoder", "losses.parquet"),
    "llm": ("llm", "losses.parquet"),
    "pretrain": ("pretrain", "losses.parquet"),
    "instruct": ("instruct", "training", "losses.parquet"),
}
"""Where each stage keeps its losses; one that trained nothing (a pinned model, a control) keeps none."""


def run(stage: StageRun) -> dict[str, Any]:
    """Write index.html, gallery/, gallery.json and model_card.md; return the page's digest and what it shows."""
    metrics, recipe = read_metrics(stage.workspace / "metrics"), _recipe(stage)
    exhibits = _write_gallery(stage)
    geometry = stage.artifact("geometry")
    page = render(
        Story(
            recipe=recipe,
            metrics=metrics,
            clouds=figures.gap_charts(figures.read_table(geometry / "plane.parquet")),
            spectra=figures.spectrum_charts(figures.read_table(geometry / "spectra.parquet")),
            losses=figures.loss_charts(_losses(stage)),
            exhibits=exhibits,
            folder=stage.out,
        )
    ).encode()
    artifacts.write_bytes(stage.out / "index.html", page)
    model = stage.artifact("instruct")
    text = card.model_card(recipe, metrics, artifacts.model_digest(model), _licences(stage))
    artifacts.write_bytes(stage.out / "model_card.md", text.encode())
    if stage.params.report.register_as is not None:
        _register(stage, stage.params.report.register_as)
    return {
        "format_version": FORMAT_VERSION,
        "page_digest": hashlib.sha256(page).hexdigest(),
        "page_bytes": len(page),
        "gallery": len(exhibits),
    }


def _register(stage: StageRun, name: str) -> None:
    """The next version of `name`, with a probe made of some of the benchmark's questions."""
    from gapbridge.evaluate.predict import Predictor  # brings torch, which the page does without

    model = stage.artifact("instruct")
    manifest, pictures = _benchmark(stage)
    asked = manifest.gather_every(max(1, manifest.height // _PROBE_QUESTIONS)).head(_PROBE_QUESTIONS)
    with tempfile.TemporaryDirectory() as folder:
        probe = None
        if not asked["image"].null_count():  # a model that reads vectors alone is asked nothing
            shown = [pictures.load(*file) for file in asked.select("image", "sha256").iter_rows()]
            probe = write_probe(Path(folder), Predictor.load(model), shown, asked["question"].to_list())
        register(stage.workspace, name, model, stage.out / "model_card.md", probe)


def _benchmark(stage: StageRun) -> tuple[DataFrame, Pictures]:
    folder = stage.artifact("ingest", "benchmark")
    return read_manifest(folder), Pictures(folder, stage.workspace / stage.params.sources.root)


def _write_gallery(stage: StageRun) -> list[gallery.Exhibit]:
    manifest, pictures = _benchmark(stage)
    files = {item_id: file for item_id, *file in manifest.select("id", "image", "sha256").iter_rows()}
    predictions = read_predictions(stage.artifact("evaluate", SEEING))
    drawn = gallery.draw(predictions, stage.params.report.gallery, stage.params.seed)
    if not manifest["image"].null_count():
        return gallery.write_gallery(stage.out, drawn, lambda item_id: pictures.load(*files[item_id]))
    shards = Shards.open(stage.artifact("embed", "benchmark", "images"))
    places = dict(zip(shards.ids, range(shards.rows), strict=True))

    def shown(item_id: str) -> Image.Image | np.ndarray:
        locator, sha256 = files[item_id]
        return pictures.load(locator, sha256) if locator else shards.read([places[item_id]])[0]

    return gallery.write_gallery(stage.out, drawn, shown)


def _losses(stage: StageRun) -> dict[str, DataFrame]:
    paths = {name: stage.workspace.joinpath("artifacts", *parts) for name, parts in _LOSSES.items()}
    return {name: figures.read_table(path) for name, path in paths.items() if path.exists()}


def _licences(stage: StageRun) -> dict[str, str | None]:
    """What the pinned parts' own cards state."""
    parts: dict[str, EncoderParams | LlmParams] = {"encoder": stage.params.encoder, "llm": stage.params.llm}
    if stage.params.encoder.is_brought:
        del parts["encoder"]  # but a name; nothing of it is in the model
    return {
        name: stated_licence(part.pretrained, part.revision, stage.workspace)
        for name, part in parts.items()
        if part.pretrained is not None
    }


def _recipe(stage: StageRun) -> Recipe:
    params = stage.params
    return Recipe(
        method=params.realign.method,
        stage1=params.pretrain.enabled,
        stage1_source=params.pretrain.source,
        stage2_source=params.instruct.source,
        stage2_tune=params.instruct.tune,
        seed=params.seed,
        encoder=(params.encoder.pretrained or "").removeprefix(VECTORS).strip() or None,
        brought=params.encoder.is_brought,
        llm=params.llm.pretrained,
    )
