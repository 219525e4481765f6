"""How many rows a fit needs, and whether one corpus's statistics serve another.

Shapes: `n` rows, `d` width, `m` rows of the other side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gapbridge.align import Alignment, fit

SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
DRAWS = 5
ENOUGH = 0.01
"""A sample is large enough where chance moves its means by no more than this share of the raw gap."""


@dataclass(frozen=True)
class SizePoint:
    """The held-out gap of fits on `rows` rows a side: mean and standard deviation over the draws."""

    rows: int
    mean: float
    spread: float


def size_curve(
    texts: np.ndarray, images: np.ndarray, method: str, seed: int, sizes: Sequence[int] = SIZES, draws: int = DRAWS
) -> list[SizePoint]:
    """Fit on samples of texts (n, d) and images (m, d) of each size and measure on rows kept out, always the same.

    A fifth of each side is kept out; sizes beyond the rest are left out and the rest itself ends the curve.
    """
    random = np.random.default_rng(seed)
    text_order, image_order = random.permutation(len(texts)), random.permutation(len(images))
    held_texts, held_images = texts[text_order[: len(texts) // 5]], images[image_order[: len(images) // 5]]
    pools = text_order[len(texts) // 5 :], image_order[len(images) // 5 :]
    largest = min(map(len, pools))
    image_mean = held_images.mean(axis=0, dtype=np.float64)
    points = []
    for size in sorted({*(size for size in sizes if size < largest), largest}):
        gaps = []
        for _ in range(draws):
            chosen = [random.choice(pool, size, replace=False) for pool in pools]
            alignment = fit(texts[chosen[0]], images[chosen[1]], method, seed=seed)
            gaps.append(float(np.linalg.norm(_aligned_mean(alignment, held_texts) - image_mean)))
        points.append(SizePoint(size, float(np.mean(gaps)), float(np.std(gaps))))
    return points


def rows_needed(alignment: Alignment, share: float = ENOUGH) -> int:
    """Independent rows a side so that chance moves the fit by `share` of the raw gap: (T_x + s² T_y) / (share·gap)²."""
    energy = alignment.image_trace + alignment.scale**2 * alignment.text_trace
    raw = float(np.linalg.norm(alignment.text_mean - alignment.image_mean))
    return max(2, int(np.ceil(energy / max(share * raw, np.finfo(np.float64).tiny) ** 2)))


def cross_domain(
    domains: Mapping[str, tuple[np.ndarray, np.ndarray]], method: str, seed: int
) -> dict[str, dict[str, float]]:
    """`[fitted][applied]`: the gap left on the half of a domain that was kept out, by statistics of any domain.

    Each domain is its texts (n, d) and images (m, d).
    """
    halves = {name: ([_halves(side, seed) for side in sides]) for name, sides in domains.items()}
    table: dict[str, dict[str, float]] = {}
    for fitted, ((texts, _), (images, _)) in halves.items():
        alignment = fit(texts, images, method, seed=seed)
        table[fitted] = {
            applied: float(
                np.linalg.norm(_aligned_mean(alignment, other) - other_images.mean(axis=0, dtype=np.float64))
            )
            for applied, ((_, other), (_, other_images)) in halves.items()
        }
    return table


def _halves(rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]


def _aligned_mean(alignment: Alignment, texts: np.ndarray) -> np.ndarray:
    ids = [str(place) for place in range(len(texts))]
    mean: np.ndarray = alignment.apply(texts, ids).mean(axis=0, dtype=np.float64)
    return mean
