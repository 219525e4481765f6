"""Fit an alignment from unpaired texts and images, by streaming over them (arXiv 2602.07026 §4.2).

Shapes: `n` rows, `d` width.
"""

from collections.abc import Sequence

import numpy as np

from gapbridge.align.alignment import Alignment
from gapbridge.align.blockwise import blockwise_transform
from gapbridge.align.methods import RECIPES, canonical_method
from gapbridge.align.moments import Moments
from gapbridge.align.rows import Block, RowBatches, Rows
from gapbridge.errors import ArtifactError, InputError

C3_NOISE = 0.2
"""Root mean square length of c3's noise; with it a row keeps a cosine of about .98 to where it was."""


def fit(
    texts: Rows | RowBatches,
    images: Rows | RowBatches,
    method: str = "realign",
    *,
    centroid_iterations: int = 1,
    noise: float = C3_NOISE,
    seed: int = 0,
) -> Alignment:
    """The alignment of `texts` (n, d) onto `images` (m, d), each a matrix or a re-iterable of batches.

    One pass over each side finds the means and traces; every centroid step walks the texts once more.
    Raises InputError for an unknown method, fewer than two rows or equal rows, ArtifactError for NaN or sides of
    different width.
    """
    texts, images = batches_of(texts, "texts"), batches_of(images, "images")
    full = RECIPES[canonical_method(method)].whitens
    alignment = from_moments(
        summarise(texts, covariance=full)[0],
        summarise(images, covariance=full)[0],
        method,
        noise=noise,
        seed=seed,
        off_unit=(texts.off_unit, images.off_unit),
    )
    for _ in range(centroid_iterations if RECIPES[alignment.method].recentres else 0):
        alignment = alignment.recentred(aligned_means(alignment, texts)[0])
    return alignment


def from_moments(
    texts: Moments,
    images: Moments,
    method: str = "realign",
    *,
    noise: float = C3_NOISE,
    seed: int = 0,
    off_unit: tuple[int, int] = (0, 0),
) -> Alignment:
    """The alignment without its centroid steps, from moments of unit rows, wherever they were gathered.

    `blockwise` needs moments with covariances. Raises InputError for an unknown method, fewer than two rows or
    equal rows, ArtifactError for sides of different width.
    """
    method = canonical_method(method)
    recipe = RECIPES[method]
    if texts.width != images.width:
        raise ArtifactError(f"texts have width {texts.width}, images {images.width}; embed both with one encoder")
    for name, side in (("texts", texts), ("images", images)):
        if side.count < 2:
            raise InputError(f"{name}: {side.count} rows; an alignment needs two or more a side")
        if side.is_point:
            raise InputError(f"{name}: all {side.count} rows are the same; there is no spread to align")
    return Alignment(
        method=method,
        text_mean=texts.mean,
        image_mean=images.mean,
        image_std=np.sqrt(images.variance),
        drift_means=np.empty((0, images.width)),
        transform=blockwise_transform(texts, images) if recipe.whitens else None,
        scale=float(np.sqrt(images.trace / texts.trace)) if recipe.scales else 1.0,
        noise=noise if recipe.adds_noise else 0.0,
        seed=seed,
        text_trace=texts.trace,
        image_trace=images.trace,
        text_count=texts.count,
        image_count=images.count,
        text_off_unit=off_unit[0],
        image_off_unit=off_unit[1],
    )


class Centroid:
    """The mean of the texts as an alignment moves them, gathered batch by batch: what its next step takes away."""

    def __init__(self, alignment: Alignment) -> None:
        self.alignment = alignment
        self.count = 0
        self._sum = np.zeros(alignment.width)

    def update(
        self, rows: np.ndarray, row_ids: Sequence[str] | np.ndarray | None = None, lengths: np.ndarray | None = None
    ) -> "Centroid":
        """Take in float64 texts (n, d), unit rows or rows of these `lengths` (n,); returns itself."""
        lengths = np.ones(len(rows)) if lengths is None else lengths
        return self._take(len(rows), self.alignment.moved(rows, lengths, row_ids).sum())

    def merge(self, other: "Centroid") -> "Centroid":
        """The centroid of both sets of texts together, as a new object."""
        merged = Centroid(self.alignment)
        return merged._take(self.count, self._sum)._take(other.count, other._sum)

    @property
    def mean(self) -> np.ndarray:
        """(d,); zeros before the first row."""
        return self._sum / max(self.count, 1)

    def finish(self) -> Alignment:
        """The alignment with one more centroid step."""
        return self.alignment.recentred(self.mean)

    def _take(self, count: int, total: np.ndarray) -> "Centroid":
        self.count += count
        self._sum = self._sum + total
        return self


def summarise(rows: RowBatches, *masks: np.ndarray | None, covariance: bool = False) -> list[Moments]:
    """Moments of the unit rows of each mask (n,), in one pass; of all rows where no mask is given.

    Raises InputError where there are fewer than two rows at all.
    """

    def of_block(block: Block) -> list[Moments]:
        parts = (block.picked(mask) for mask in masks or (None,))
        return [Moments(part.rows.shape[1], covariance).update(part.rows, part.lengths) for part in parts]

    totals: list[Moments] = []
    for parts in rows.map(of_block):
        totals = [total.merge(part) for total, part in zip(totals, parts, strict=True)] if totals else parts
    if not totals or rows.total - len(rows.bad) < 2:
        raise InputError(f"{rows.name}: {rows.total - len(rows.bad)} rows; an alignment needs two or more a side")
    return totals


def aligned_means(alignment: Alignment, texts: RowBatches, *masks: np.ndarray | None) -> list[np.ndarray]:
    """Means (d,) of the texts of each mask (n,) as `alignment` moves them; of all where no mask is given.

    Rows are named by their places, which is what noise is drawn from.
    """

    def of_block(block: Block) -> list[Centroid]:
        return [_centroid(alignment, block.picked(mask)) for mask in masks or (None,)]

    totals: list[Centroid] = []
    for parts in texts.map(of_block):
        totals = [total.merge(part) for total, part in zip(totals, parts, strict=True)] if totals else parts
    return [total.mean for total in totals]


def batches_of(rows: Rows | RowBatches, name: str) -> RowBatches:
    """`rows` as something that can be walked again."""
    return rows if isinstance(rows, RowBatches) else RowBatches(rows, name)


def _centroid(alignment: Alignment, block: Block) -> Centroid:
    ids = [str(place) for place in block.places] if alignment.noise else None
    return Centroid(alignment).update(block.rows, ids, block.lengths)
