"""realign: fit the alignment of texts onto images from unpaired statistics (arXiv 2602.07026 §4).

Reads artifacts/embed/texts and artifacts/embed/images; writes the alignment (alignment.safetensors,
alignment.json) and figures.json.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gapbridge import artifacts
from gapbridge.align import Options, Side, fit_held_out
from gapbridge.embeddings.shards import Shards
from gapbridge.stages.runner import StageRun

FIGURES_FILE = "figures.json"
_BATCH_ROWS = 16_384


def run(stage: StageRun) -> dict[str, Any]:
    """Fit on all but the held-out groups, save, and return the gap before, after and held out."""
    texts = Shards.open(stage.artifact("embed", "texts", "texts"))
    images = Shards.open(stage.artifact("embed", "images", "images"), texts.fingerprint, texts.width)
    settings = stage.params.realign
    options = Options(
        settings.method, settings.holdout, stage.params.seed, settings.centroid_iterations, settings.noise
    )
    sides = Side(ShardRows(texts), texts.groups), Side(ShardRows(images), images.groups)
    alignment, metrics = fit_held_out(*sides, options)
    alignment = alignment.with_origin(texts.fingerprint, {"texts": texts.digests, "images": images.digests})
    alignment.save(stage.out)
    artifacts.write_json(stage.out / FIGURES_FILE, metrics)
    return metrics


class ShardRows:
    """A shard folder's rows in bounded batches (b, d), as often as they are asked for."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def __iter__(self) -> Iterator[np.ndarray]:
        return (rows for _, rows in self._shards.batches(_BATCH_ROWS))
