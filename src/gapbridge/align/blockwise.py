"""Blockwise covariance alignment, one of the paper's baselines (arXiv 2602.07026 App. F).

Shapes: `d` width, `r` directions of the principal block.
"""

import numpy as np

from gapbridge.align.moments import Moments

FRAME_ENERGY = 0.9
"""Share of the energy of both covariances together that the principal directions hold."""


def principal_count(eigenvalues: np.ndarray, energy: float) -> int:
    """r: the fewest of the eigenvalues (d,), largest first, that reach that share of their sum."""
    shares = np.cumsum(eigenvalues) / eigenvalues.sum()
    return min(len(eigenvalues), int(np.searchsorted(shares, energy - 1e-12)) + 1)


def blockwise_transform(texts: Moments, images: Moments) -> np.ndarray:
    """(d, d) M so that residual rows times M have about the images' covariance in each block of the frame.

    The frame is that of both covariances together; inside the principal block and inside the rest the residuals are
    whitened by the texts' covariance and coloured by the images', Σ_x^½ Σ_y^−½. Each block's covariance is first
    shrunk towards its mean variance by the share r/n: with few rows the directions that hardly vary in the sample
    would otherwise be blown up. Raises ValueError for moments without covariances.
    """
    eigenvalues, directions = np.linalg.eigh(texts.covariance + images.covariance)
    eigenvalues, directions = eigenvalues[::-1].clip(min=0), directions[:, ::-1]
    count = principal_count(eigenvalues, FRAME_ENERGY)
    transform = np.zeros((texts.width, texts.width))
    for block in (directions[:, :count], directions[:, count:]):
        if block.shape[1]:
            whiten, colour = _power(block, texts, -0.5), _power(block, images, 0.5)
            # Rows stand for vectors, so the product of the two symmetric matrices is read from the left.
            transform += block @ whiten @ colour @ block.T
    return transform


def _power(block: np.ndarray, moments: Moments, power: float) -> np.ndarray:
    """A power of the shrunk covariance (r, r) inside the block (d, r)."""
    eigenvalues, directions = np.linalg.eigh(block.T @ moments.covariance @ block)
    share = min(1.0, len(eigenvalues) / moments.count)
    shrunk = (1 - share) * eigenvalues.clip(min=0) + share * max(float(eigenvalues.mean()), np.finfo(np.float64).tiny)
    raised: np.ndarray = (directions * shrunk**power) @ directions.T
    return raised
