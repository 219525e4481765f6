"""embed: the unit vectors of one set; texts, pictures or both, as the set's records have them, or as brought along.

Reads artifacts/ingest/<set> and artifacts/encoder; writes one shard folder for each modality (`texts/`, `images/`),
its rows in the manifest's order. Several processes under torchrun share the work, and the first one writes.
"""

from typing import Any

import polars

from gapbridge import artifacts
from gapbridge.corpus.manifest import read_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.embeddings import brought
from gapbridge.embeddings.encode import Encoding, Records, embed_images, embed_texts
from gapbridge.embeddings.encoders import BROUGHT, Encoder, best_device, load_encoder, read_about
from gapbridge.embeddings.ranks import Ranks, joined
from gapbridge.embeddings.shards import write_shards
from gapbridge.errors import ArtifactError
from gapbridge.stages.runner import StageRun, cache_root

TEXT_COLUMNS = {"texts": "text", "probe": "text", "instruct": "context"}
"""The column whose texts are embedded, by set; the other sets have pictures alone."""
PICTURED_SETS = ("images", "instruct", "benchmark", "probe")


def run(stage: StageRun) -> dict[str, Any]:
    """Embed the set `stage.item`; the figures count rows, distinct contents and truncated texts."""
    with joined() as ranks:
        return _embed(stage, ranks)


def _embed(stage: StageRun, ranks: Ranks) -> dict[str, Any]:
    if stage.item is None:
        raise AssertionError("the runner starts embed with a set alone")
    folder = stage.artifact("ingest", stage.item)
    manifest = read_manifest(folder)
    if vectors := artifacts.read_json(folder / "ingest.json").get("vectors"):
        return _copy(stage, manifest, vectors)
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


def _copy(stage: StageRun, manifest: polars.DataFrame, found: dict[str, Any]) -> dict[str, Any]:
    """Shards of the vectors that were brought along (`found` is what ingest says of them), as an encoder's would be."""
    root, encoder = stage.workspace / stage.params.sources.root, read_about(stage.artifact("encoder"))
    if encoder["kind"] != BROUGHT or encoder["width"] != found["width"]:
        what = f"sources.{stage.item} brings vectors of width {found['width']}"
        raise ArtifactError(f"artifacts/encoder: says otherwise, {what}; run `gapbridge encoder` again")
    brought.demand_unchanged(root, found["files"])
    told: dict[str, Any] = {"fingerprint": encoder["fingerprint"], "width": found["width"], "rows": manifest.height}
    ids, groups = manifest["id"].to_list(), manifest["group_id"].to_list()
    for side, column in (("images", "image_vector"), ("texts", "text_vector")):
        if column in manifest.columns and manifest[column].null_count() == 0:
            rows = brought.batches(root, ids, manifest[column].to_list())
            write_shards(stage.out / side, rows, encoder["fingerprint"], stage.params.embed.shard_rows, groups)
            told[side] = {"rows": manifest.height}
    return told


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
