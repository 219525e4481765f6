"""The method written out plainly in float64, all rows at once.

Shapes: `n` texts, `m` images, `d` width.
"""

from collections.abc import Callable

import numpy as np

Cloud = Callable[..., np.ndarray]


def project(rows: np.ndarray) -> np.ndarray:
    """Rows on the unit sphere."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def oracle(texts: np.ndarray, images: np.ndarray, method: str) -> np.ndarray:
    """The aligned texts (n, d), straight from the formulas."""
    texts, images = project(texts.astype(np.float64)), project(images.astype(np.float64))
    if method == "none":
        return texts
    text_mean, image_mean = texts.mean(axis=0), images.mean(axis=0)
    text_trace = ((texts - text_mean) ** 2).sum(axis=1).mean()
    image_trace = ((images - image_mean) ** 2).sum(axis=1).mean()
    scale = 1.0 if method == "anchor" else np.sqrt(image_trace / text_trace)
    moved = project(image_mean + scale * (texts - text_mean))
    if method == "realign":
        moved = project(moved - moved.mean(axis=0) + image_mean)
    return moved
