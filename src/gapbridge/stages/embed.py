"""embed: the unit vectors of one set; texts, pictures or both, as the set's records have them.

Reads artifacts/ingest/<set> and artifacts/encoder; writes one shard folder for each modality (`texts/`, `images/`),
its rows in the manifest's order. Several processes under torchrun share the work, and the first one writes.
"""

from typing import Any

import polars

from gapbridge.corpus.manifest import read_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.embeddings.encode import Encoding, Records, embed_images, embed_texts
from gapbridge.embeddings.encoders import Encoder, best_device, load_encoder
from gapbridge.embeddings.ranks import Ranks, joined
from gapbridge.stages.runner import StageRun, cache_root

TEXT_COLUMNS = {"texts": "text", "probe": "text", "instruct": "context"}
"""The column whose texts are embedded, by set; the other sets have pictures alone."""
PICTURED_SETS = ("images", "instruct", "benchmark", "probe")


def run(stage: StageRun) -> dict[str, Any]:
    """Embed the set `stage.item`; the figures count rows, distinct contents and truncated texts."""
    with joined() as ranks:
        return _embed(stage, ranks)


def _embed(stage: StageRun, ranks: Ranks) -> dict[str, Any]:
    folder = stage.artifact("ingest", stage.item)
    manifest = read_manifest(folder)
    settings = stage.params.embed
    encoder = load_encoder(stage.artifact("encoder"), device=best_device(), threads=settings.threads)
    encoding = Encoding(cache_root(), settings.batch_size, settings.shard_rows, ranks)
    figures: dict[str, Any] = {"fingerprint": encoder.fingerprint, "width": encoder.width, "rows": manifest.height}
    if stage.item in PICTURED_SETS:
        pictures = Pictures(folder, stage.workspace / stage.params.sources.root)
        figures["images"] = _embed_pictures(encoder, manifest, pictures, stage, encoding)
    column = TEXT_COLUMNS.get(stage.item)
    if column and manifest[column].null_count() == 0:
        records = _records(manifest, column)
        figures["texts"] = embed_texts(encoder, records, stage.out / "texts", encoding)
    return figures


def _embed_pictures(
    encoder: Encoder, manifest: polars.DataFrame, pictures: Pictures, stage: StageRun, encoding: Encoding
) -> dict[str, int]:
    locators, digests = manifest["image"].to_list(), manifest["sha256"].to_list()
    return embed_images(
        encoder,
        _records(manifest, "sha256"),
        lambda record: pictures.load(locators[record], digests[record]),
        stage.out / "images",
        encoding,
    )


def _records(manifest: polars.DataFrame, column: str) -> Records:
    return Records(manifest["id"].to_list(), manifest["group_id"].to_list(), manifest[column].to_list())
