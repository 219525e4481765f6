"""realign: fit the alignment of texts onto images from unpaired statistics (arXiv 2602.07026 §4).

Reads artifacts/embed/texts and artifacts/embed/images; writes the alignment (alignment.safetensors, alignment.json).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gapbridge.align import Side, fit_held_out
from gapbridge.embeddings.shards import Shards
from gapbridge.stages.runner import StageRun

_BATCH_ROWS = 16_384


def run(stage: StageRun) -> dict[str, Any]:
    """Fit on all but the held-out groups, save, and return the gap before, after and held out."""
    texts = Shards.open(stage.artifact("embed", "texts", "texts"))
    images = Shards.open(stage.artifact("embed", "images", "images"), texts.fingerprint, texts.width)
    alignment, metrics = fit_held_out(
        Side(ShardRows(texts), texts.groups),
        Side(ShardRows(images), images.groups),
        method=stage.params.realign.method,
        holdout=stage.params.realign.holdout,
        seed=stage.params.seed,
        fingerprint=texts.fingerprint,
        sources={"texts": texts.digests, "images": images.digests},
    )
    alignment.save(stage.out)
    return metrics


class ShardRows:
    """A shard folder's rows in bounded batches (b, d), as often as they are asked for."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def __iter__(self) -> Iterator[np.ndarray]:
        return (rows for _, rows in self._shards.batches(_BATCH_ROWS))
