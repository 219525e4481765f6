"""encoder: the contrastive dual encoder, trained from the pairs of the set `encoder`, or pinned, or none at all.

Shapes: `n` probe pairs, `d` width. Writes encoder.json, which is all where vectors were brought along; a model
trained here adds open_clip's files, `losses.parquet` and `snapshots/`.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from PIL import Image
from tqdm import tqdm

from gapbridge import artifacts
from gapbridge.corpus.manifest import read_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.embeddings.brought import read_rows
from gapbridge.embeddings.encoders import DualEncoder, best_device, pin_encoder, pin_vectors
from gapbridge.errors import InputError
from gapbridge.params import VECTORS, EncoderParams
from gapbridge.stages.runner import StageRun
from gapbridge.train.contrastive import Architecture, Recipe, as_pixels, save_model, train_contrastive
from gapbridge.train.pairs import Mixing, Pairs

_log = logging.getLogger(__name__)
SNAPSHOT_ROWS = 256
SCORED_ROWS = 1000
SCORED_AT_ONCE = 100  # pictures of people's own are large: a thousand at once would need tens of GB


def run(stage: StageRun) -> dict[str, Any]:
    """Train or pin the encoder; the figures say how well it finds the probe's pairs and how wide the gap is."""
    settings = stage.params.encoder
    torch.set_num_threads(settings.threads)
    if settings.is_brought:
        return _brought(stage, str(settings.pretrained).removeprefix(VECTORS).strip())
    figures = {} if settings.pretrained else _train(stage, settings)
    named = settings.pretrained, settings.revision, settings.text_template
    return figures | _score(pin_encoder(stage.out, *named, best_device()), stage)


def _train(stage: StageRun, settings: EncoderParams) -> dict[str, Any]:
    manifest = read_manifest(stage.artifact("ingest", "encoder"))
    if manifest.is_empty():
        raise InputError("sources.encoder: no pairs; name pairs to learn from, or a model in encoder.pretrained")
    architecture = _architecture(settings)
    pairs = _pairs(stage, "encoder", manifest, architecture)
    probe = read_manifest(stage.artifact("ingest", "probe")).unique("group_id", keep="first", maintain_order=True)
    probe_pairs = _pairs(stage, "probe", probe.head(SNAPSHOT_ROWS), architecture)
    trained = train_contrastive(
        pairs, probe_pairs, architecture, _recipe(settings), stage.params.seed, settings.snapshot_count, stage.tracker
    )
    save_model(stage.out, trained.model, trained.tokenizer, architecture)
    if trained.snapshots:
        trained.snapshots.save(stage.out / "snapshots")
    trained.history.frame().write_parquet(stage.out / "losses.parquet")
    losses = trained.history.losses
    last = losses[-max(1, len(losses) // 20) :]
    return {"pairs": manifest.height, "steps": len(losses), "loss": float(np.mean(last))}


def _score(encoder: DualEncoder, stage: StageRun) -> dict[str, Any]:
    """Retrieval among the probe's pairs: right is whatever has the same group."""
    probe = read_manifest(stage.artifact("ingest", "probe")).head(SCORED_ROWS)
    parts = list(probe.iter_slices(SCORED_AT_ONCE))
    texts = np.concatenate([encoder.encode_texts(part["text"].to_list()) for part in parts])
    images = np.concatenate([encoder.encode_images(list(_load(stage, "probe", part))) for part in parts])
    about = {"fingerprint": encoder.fingerprint, "width": encoder.width, "context_length": encoder.context_length}
    return about | {"truncated": encoder.truncated(probe["text"].to_list())} | _retrieval(probe, texts, images)


def _brought(stage: StageRun, name: str) -> dict[str, Any]:
    """No encoder but the name of one, and the score of the vectors that it left."""
    found = artifacts.read_json(stage.artifact("ingest", "probe", "ingest.json"))["vectors"]
    about = pin_vectors(stage.out, name, found["width"])
    probe = read_manifest(stage.artifact("ingest", "probe")).head(SCORED_ROWS)
    root = stage.workspace / stage.params.sources.root
    sides = [read_rows(root, probe[column].to_list()) for column in ("text_vector", "image_vector")]
    texts, images = (rows.astype(np.float32) for rows in sides)
    return {"fingerprint": about["fingerprint"], "width": about["width"]} | _retrieval(probe, texts, images)


def _retrieval(probe: polars.DataFrame, texts: np.ndarray, images: np.ndarray) -> dict[str, Any]:
    """How well the unit rows (n, d) of the probe's texts and pictures find each other, and how far apart they lie."""
    groups = probe["group_id"].to_numpy()
    cosines = images @ texts.T
    found = {
        "image_to_text": float((groups[cosines.argmax(1)] == groups).mean()),
        "text_to_image": float((groups[cosines.argmax(0)] == groups).mean()),
    }
    gap = float(np.linalg.norm(images.mean(0, dtype=np.float64) - texts.mean(0, dtype=np.float64)))
    _log.info("encoder: finds %.3f of the right texts; the gap is %.3f", found["image_to_text"], gap)
    return {"probe_pairs": probe.height, "retrieval": found, "gap": gap}


def _pairs(stage: StageRun, name: str, manifest: polars.DataFrame, architecture: Architecture) -> Pairs:
    template = stage.params.encoder.text_template
    texts = [template.replace("{}", text) for text in manifest["text"]]
    pixels = as_pixels(_load(stage, name, manifest), manifest.height, architecture)
    return Pairs(pixels, texts, manifest["group_id"].to_list())


def _load(stage: StageRun, name: str, manifest: polars.DataFrame) -> Iterator[Image.Image]:
    root: Path = stage.workspace / stage.params.sources.root
    pictures = Pictures(stage.artifact("ingest", name), root)
    files = manifest.select("image", "sha256").iter_rows()
    for locator, sha256 in tqdm(files, desc=f"read {name}", total=manifest.height, unit="picture", mininterval=1):
        yield pictures.load(locator, sha256)


def _architecture(settings: EncoderParams) -> Architecture:
    return Architecture(
        settings.width, settings.image_size, settings.context_length, settings.vocabulary_size, settings.logit_scale
    )


def _recipe(settings: EncoderParams) -> Recipe:
    training = settings.training
    mixing = Mixing(
        training.steps, training.batch_size, settings.group_rows, settings.wording_fraction, settings.wording_weight
    )
    speed = training.model_dump(exclude={"steps", "batch_size"})
    return Recipe(mixing, **speed, consistency_weight=settings.consistency_weight)
