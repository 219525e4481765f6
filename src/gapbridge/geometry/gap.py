"""The gap between two clouds of unit vectors, as numbers and as a picture plane (arXiv 2602.07026 §3, App. D).

Shapes: `n` rows, `d` width.
"""

import numpy as np


def centroid_gap(texts: np.ndarray, images: np.ndarray) -> float:
    """‖mean of `texts` (n, d) − mean of `images` (m, d)‖, in float64."""
    return float(np.linalg.norm(_mean(texts) - _mean(images)))


def trace_ratio(texts: np.ndarray, images: np.ndarray) -> float:
    """Trace of the covariance of `texts` (n, d) over that of `images` (m, d); 1 where both spread alike."""
    return float(_trace(texts) / _trace(images))


def paired_cosine(texts: np.ndarray, images: np.ndarray) -> float:
    """Mean cosine of row i of `texts` with row i of `images`, (n, d) each, whatever their lengths."""
    products = np.einsum("nd,nd->n", texts, images, dtype=np.float64)
    return float((products / (_lengths(texts) * _lengths(images))).mean())


def gap_plane(texts: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plane to look at the gap in: an origin (d,) and two orthonormal axes (2, d).

    The origin is the image mean; the first axis runs from there to the text mean, the second one is the principal
    direction of both clouds about their own means, at a right angle to the first. Signs are fixed, so that the
    same rows give the same picture.
    """
    origin = _mean(images)
    across = _mean(texts) - origin
    residuals = np.concatenate([texts - _mean(texts), images - origin]).astype(np.float64)
    if np.linalg.norm(across) > 0:
        across = across / np.linalg.norm(across)
        residuals = residuals - np.outer(residuals @ across, across)
        along = _principal_axes(residuals, 1)
        return origin, np.stack([across, along[0]])
    return origin, _principal_axes(residuals, 2)


def in_plane(rows: np.ndarray, origin: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Coordinates (n, 2) of `rows` (n, d) in the plane of `gap_plane`."""
    return (rows.astype(np.float64) - origin) @ axes.T


def _principal_axes(residuals: np.ndarray, count: int) -> np.ndarray:
    """The `count` directions of largest spread (count, d), each with its largest number positive."""
    axes = np.linalg.eigh(residuals.T @ residuals)[1].T[::-1][:count]
    largest = np.abs(axes).argmax(axis=1)
    return axes * np.sign(axes[np.arange(count), largest])[:, None]


def _mean(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0, dtype=np.float64)


def _trace(rows: np.ndarray) -> float:
    return float(rows.var(axis=0, dtype=np.float64).sum())


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
