"""Fit an alignment from unpaired texts and images, by streaming over them (arXiv 2602.07026 §4.2).

Shapes: `n` rows, `d` width.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gapbridge.align.alignment import Alignment
from gapbridge.align.methods import RECIPES, canonical_method
from gapbridge.align.moments import Moments
from gapbridge.align.rows import RowBatches, Rows
from gapbridge.errors import ArtifactError, InputError

TRACE_FLOOR = 1e-12
"""ε of the scale: keeps it finite where all texts are the same."""


def fit(
    texts: Rows | RowBatches,
    images: Rows | RowBatches,
    method: str = "realign",
    *,
    fingerprint: str | None = None,
    sources: Mapping[str, Sequence[str]] | None = None,
) -> Alignment:
    """The alignment of `texts` (n, d) onto `images` (m, d), each a matrix or a re-iterable of batches.

    One pass over each side finds the means and traces; `realign` walks the texts once more for the centroid
    after projection. Raises InputError for an unknown method or fewer than two rows a side, ArtifactError for
    NaN or sides of different width.
    """
    method = canonical_method(method)
    recipe = RECIPES[method]
    texts, images = _batches(texts, "texts"), _batches(images, "images")
    (text, text_off), (image, image_off) = summarise(texts), summarise(images)
    if text.width != image.width:
        raise ArtifactError(f"texts have width {text.width}, images {image.width}; embed both with one encoder")
    alignment = Alignment(
        method=method,
        text_mean=text.mean,
        image_mean=image.mean,
        image_std=np.sqrt(image.variance),
        drift_mean=None,
        scale=float(np.sqrt(image.trace / (text.trace + TRACE_FLOOR))) if recipe.scales else 1.0,
        text_trace=text.trace,
        image_trace=image.trace,
        text_count=text.count,
        image_count=image.count,
        text_off_unit=text_off,
        image_off_unit=image_off,
        fingerprint=fingerprint,
        sources=dict(sources or {}),
    )
    return alignment.recentred(aligned_mean(alignment, texts)) if recipe.recentres else alignment


def summarise(rows: RowBatches) -> tuple[Moments, int]:
    """Moments of the unit rows, and how many rows were off the sphere. Raises InputError below two rows."""
    moments, off_unit = None, 0
    for units, off in rows.units():
        moments = moments or Moments(units.shape[1])
        if units.shape[1] != moments.width:
            raise ArtifactError(f"{rows.name}: batches of width {moments.width} and {units.shape[1]}; embed again")
        moments.update(units)
        off_unit += off
    if moments is None or moments.count < 2:
        raise InputError(f"{rows.name}: {moments.count if moments else 0} rows; an alignment needs two or more a side")
    return moments, off_unit


def aligned_mean(alignment: Alignment, texts: RowBatches) -> np.ndarray:
    """Mean (d,) of the texts as `alignment` moves them."""
    moments = Moments(alignment.width)
    for units, _ in texts.units():
        moments.update(alignment.move(units))
    return moments.mean


def _batches(rows: Rows | RowBatches, name: str) -> RowBatches:
    return rows if isinstance(rows, RowBatches) else RowBatches(rows, name)
