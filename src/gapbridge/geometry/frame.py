"""The gap in a frame that stays fixed, for pairs: what is bias, what is spread, and how they hang together.

All of it measures pairs; nothing is fitted for use (arXiv 2602.07026 §3.1, App. B and C).
Shapes: `n` pairs, `d` width, `r` directions of the principal block U; V is the rest of the space.
"""

from dataclasses import dataclass

import numpy as np

from gapbridge.align import Moments
from gapbridge.align.blockwise import principal_count
from gapbridge.geometry.spectrum import NEGLIGIBLE


@dataclass(frozen=True)
class Frame:
    """An orthonormal basis, cut into the principal block U and the rest V (§3.1)."""

    basis: np.ndarray
    """(d, d) directions as columns, by falling energy."""
    rank: int
    """r: the columns of U."""

    @property
    def principal(self) -> np.ndarray:
        """U, (d, r)."""
        return self.basis[:, : self.rank]

    @property
    def passive(self) -> np.ndarray:
        """V, (d, d − r)."""
        return self.basis[:, self.rank :]


@dataclass(frozen=True)
class Parts:
    """Δ = β + γ + δ + ζ for every pair (Lemma B.3); an identity, whatever the frame."""

    principal_bias: np.ndarray
    """β (d,): the mean gap inside U."""
    passive_bias: np.ndarray
    """γ (d,): the mean gap inside V."""
    principal_residual: np.ndarray
    """δ (n, d): what is left of each pair's gap inside U; of mean zero."""
    passive_residual: np.ndarray
    """ζ (n, d): likewise inside V."""

    def total(self) -> np.ndarray:
        """Δ (n, d) put together again."""
        return self.principal_bias + self.passive_bias + self.principal_residual + self.passive_residual


@dataclass(frozen=True)
class Coupling:
    """How far the residual in U tells that in V: a ridge regression (App. C)."""

    spectral_norm: float
    r_squared: float


@dataclass(frozen=True)
class PhantomDrift:
    """How far bringing rows back to the sphere moves their centroid (§3.4, Thm B.14)."""

    measured: float
    """Length of the centroid's move away from where its direction was."""
    predicted: float
    """The same to second order in the spread."""
    error: float
    """Length of the difference of the two vectors, over the measured length."""
    tangential: float
    """Of the prediction, the part along the sphere: zero where the spread is the same in all directions."""


def fit_frame(images: np.ndarray, texts: np.ndarray, energy: float = 0.9) -> Frame:
    """The frame of Cov(images) + Cov(texts), (n, d) each; r is the fewest directions with that share of the energy.

    Raises ValueError where `energy` is not above 0 and at most 1, or the rows do not spread.
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy {energy}: must be above 0 and at most 1")
    eigenvalues, directions = np.linalg.eigh(_covariance(images) + _covariance(texts))
    eigenvalues, directions = eigenvalues[::-1].clip(min=0), directions[:, ::-1]
    if eigenvalues.sum() <= 0:
        raise ValueError("rows without any spread have no frame")
    return Frame(directions, principal_count(eigenvalues, energy))


def decompose(frame: Frame, images: np.ndarray, texts: np.ndarray) -> Parts:
    """The parts of Δ = image − text of each pair, rows (n, d) against rows (n, d)."""
    gaps = np.asarray(images, dtype=np.float64) - np.asarray(texts, dtype=np.float64)
    mean = gaps.mean(axis=0)
    residuals = gaps - mean
    return Parts(
        _inside(frame.principal, mean),
        _inside(frame.passive, mean),
        _inside(frame.principal, residuals),
        _inside(frame.passive, residuals),
    )


def leakage(frame: Frame, gradients: np.ndarray) -> float:
    """Root mean square share of the gradients (n, d) that points into V: 0 none of it, 1 all."""
    exact = np.asarray(gradients, dtype=np.float64)
    total = np.square(exact).sum()
    return float(np.sqrt(np.square(exact @ frame.passive).sum() / total)) if total > 0 else 0.0


def largest_angle_sine(frame: Frame, other: Frame) -> float:
    """sin θ, θ the largest principal angle between both U: the bound of the leakage (Lemma B.7)."""
    cosines = np.linalg.svd(frame.principal.T @ other.principal, compute_uv=False)
    return float(np.sqrt(max(0.0, 1 - min(1.0, float(cosines.min())) ** 2)))


def effective_condition(covariance: np.ndarray) -> float:
    """Largest eigenvalue of the covariance over the mean one of those that are not rounding: 1 is isotropic."""
    eigenvalues = np.linalg.eigvalsh(covariance)
    kept = eigenvalues[eigenvalues > NEGLIGIBLE * eigenvalues.max(initial=0)]
    return float(kept.max() / kept.mean()) if len(kept) else 0.0


def profile_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the sorted eigenvalues of two covariances (r, r); 0 where either has no profile."""
    one, other = np.linalg.eigvalsh(first), np.linalg.eigvalsh(second)
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def angle_to_first_direction(vector: np.ndarray, covariance: np.ndarray) -> float:
    """Degrees (0 to 90) between a vector (d,) and the direction in which the covariance (d, d) is largest."""
    length = np.linalg.norm(vector)
    if length == 0:
        return 90.0
    first = np.linalg.eigh(covariance)[1][:, -1]
    return float(np.degrees(np.arccos(min(1.0, abs(float(first @ vector)) / float(length)))))


def couple(parts: Parts, frame: Frame, ridge: float = 1e-3) -> Coupling:
    """The ridge map L = ZDᵀ(DDᵀ + λI)⁻¹ from δ to ζ; λ is `ridge` of the mean energy of a direction of δ.

    R² is the share of ζ's energy that L explains on the rows it was fitted on.
    """
    inputs, targets = parts.principal_residual @ frame.principal, parts.passive_residual @ frame.passive
    gram = inputs.T @ inputs
    weight = ridge * max(float(np.trace(gram)) / len(gram), np.finfo(np.float64).tiny)
    solved = np.linalg.solve(gram + weight * np.eye(len(gram)), inputs.T @ targets)
    total = np.square(targets).sum()
    if not targets.shape[1] or total == 0:
        return Coupling(0.0, 0.0)
    left = np.square(targets - inputs @ solved).sum()
    return Coupling(float(np.linalg.svd(solved, compute_uv=False)[0]), float(1 - left / total))


def phantom_drift(rows: np.ndarray) -> PhantomDrift:
    """The centroid's move when rows (n, d), of any length, are brought to the sphere, and its second-order size.

    With r = ‖μ‖, a = μ/r and Σ the rows' covariance, E[e/‖e‖] − a ≈ (−Σa − ½ a tr Σ + (3/2) a(aᵀΣa)) / r².
    Raises ValueError where the mean is zero.
    """
    exact = np.asarray(rows, dtype=np.float64)
    mean = exact.mean(axis=0)
    radius = float(np.linalg.norm(mean))
    if radius == 0:
        raise ValueError("rows with a mean of zero have no direction to drift from")
    axis, covariance = mean / radius, _covariance(exact)
    along = covariance @ axis
    predicted = (-along - 0.5 * axis * np.trace(covariance) + 1.5 * axis * (axis @ along)) / radius**2
    units = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    measured = units.mean(axis=0) - axis
    tangential = predicted - axis * (axis @ predicted)
    length = float(np.linalg.norm(measured))
    error = float(np.linalg.norm(measured - predicted))
    return PhantomDrift(
        length, float(np.linalg.norm(predicted)), error / length if length else 0.0, float(np.linalg.norm(tangential))
    )


def _covariance(rows: np.ndarray) -> np.ndarray:
    return Moments(rows.shape[1], covariance=True).update(rows).covariance


def _inside(block: np.ndarray, rows: np.ndarray) -> np.ndarray:
    projected: np.ndarray = (rows @ block) @ block.T
    return projected
