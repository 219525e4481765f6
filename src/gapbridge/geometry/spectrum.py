"""The shape of a cloud of vectors, read from the eigenvalues of its covariance (arXiv 2602.07026 App. D).

Shapes: `n` rows, `d` width.
"""

import numpy as np

NEGLIGIBLE = 1e-10
"""Eigenvalues below this share of the largest are rounding, and no part of a ratio."""
SLOPE_ENERGY = 0.99
"""The slope is read where the spectrum holds this share of its energy; beyond, it shows how few rows there were."""


def covariance_spectrum(rows: np.ndarray) -> np.ndarray:
    """Eigenvalues (d,) of the covariance of `rows` (n, d), largest first, in float64.

    The covariance divides by n, so that the eigenvalues add up to the trace of `align.Moments`.
    """
    centred = np.asarray(rows, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred / len(centred))
    return eigenvalues[::-1].clip(min=0)


def effective_rank(spectrum: np.ndarray) -> float:
    """exp of the spectrum's entropy: d where all directions weigh the same, 1 where one has it all.

    Raises ValueError where the spectrum (d,) is zero.
    """
    total = spectrum.sum()
    if total <= 0:
        raise ValueError("a spectrum of zeros has no rank")
    shares = spectrum[spectrum > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def power_law_exponent(spectrum: np.ndarray) -> float:
    """α of λ_k ∝ k^−α: the least-squares slope of log λ over log k, on the first eigenvalues of SLOPE_ENERGY.

    At least two eigenvalues enter. Raises ValueError where fewer than two of the spectrum (d,) are positive.
    """
    energy = np.cumsum(spectrum)
    count = max(2, int(np.searchsorted(energy, SLOPE_ENERGY * energy[-1])) + 1)
    kept = spectrum[:count][spectrum[:count] > 0]
    if len(kept) < 2:
        raise ValueError("a slope needs two eigenvalues")
    slope, _ = np.polyfit(np.log(np.arange(1, len(kept) + 1)), np.log(kept), 1)
    return float(-slope)


def condition_number(spectrum: np.ndarray) -> float:
    """Largest over smallest eigenvalue of those in the spectrum (d,) that are not rounding."""
    kept = spectrum[spectrum > NEGLIGIBLE * spectrum.max(initial=0)]
    if not len(kept):
        raise ValueError("a spectrum of zeros has no condition number")
    return float(kept.max() / kept.min())
