"""How alike two clouds are in shape, and what is left between the two vectors of a pair (arXiv 2605.07825).

Shapes: `n` rows, `d` width.
"""

from dataclasses import dataclass

import numpy as np

from gapbridge.geometry.spectrum import NEGLIGIBLE

OVERLAP_DIRECTIONS = 128
"""q: so many leading directions are compared, fewer where there are fewer."""


@dataclass(frozen=True)
class Likeness:
    """Covariances of two clouds, compared."""

    spectral_correlation: float
    """C_λ: correlation of the logarithms of both spectra."""
    subspace_overlap: float
    """O_q: share of the leading q directions that both have in common."""
    subspace_chance: float
    """q/d: the same for random directions."""
    directions: int
    """q."""
    covariance_discrepancy: float
    """‖Σ_x − Σ_y‖_F / ‖Σ_x‖_F."""


@dataclass(frozen=True)
class Residual:
    """What is left of the pairs' distance, and of what shape it is."""

    ratio: float
    """D_after / D_before: mean squared distance of pairs after the alignment over that before."""
    anisotropy: float
    """A_r = λ_max / (tr/d) of E[r rᵀ]: 1 where it is the same in all directions."""
    effective_dimension: float
    """tr² / tr(Σ²) / d: 1 where it fills the space."""


def likeness(first: np.ndarray, second: np.ndarray, directions: int = OVERLAP_DIRECTIONS) -> Likeness:
    """Compare the covariances (d, d) of two clouds; `first` is the target's."""
    (values, vectors), (other_values, other_vectors) = _eigen(first), _eigen(second)
    kept = (values > NEGLIGIBLE * values[0]) & (other_values > NEGLIGIBLE * other_values[0])
    count = int(min(directions, kept.sum()))
    shared = np.linalg.norm(vectors[:, :count].T @ other_vectors[:, :count]) ** 2 / count
    logs = np.log(values[kept]), np.log(other_values[kept])
    flat = min(log.std() for log in logs) == 0
    return Likeness(
        1.0 if flat else float(np.corrcoef(*logs)[0, 1]),
        float(shared),
        count / len(values),
        count,
        float(np.linalg.norm(first - second) / np.linalg.norm(first)),
    )


def pair_residual(images: np.ndarray, before: np.ndarray, after: np.ndarray) -> Residual:
    """From pairs: images (n, d), their texts before and after the alignment (n, d)."""
    left = np.asarray(images, dtype=np.float64) - after
    moment = left.T @ left / len(left)
    distances = [
        float(np.square(np.asarray(images, dtype=np.float64) - texts).sum(axis=1).mean()) for texts in (before, after)
    ]
    trace = float(np.trace(moment))
    if trace == 0:
        return Residual(0.0, 1.0, 1.0)
    width = len(moment)
    return Residual(
        distances[1] / distances[0] if distances[0] else 1.0,
        float(np.linalg.eigvalsh(moment)[-1] / (trace / width)),
        trace**2 / float(np.square(moment).sum()) / width,
    )


def _eigen(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1], vectors[:, ::-1]
