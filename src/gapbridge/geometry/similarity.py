"""Cosines inside a cloud and between clouds: their distributions, and what the alignment keeps of a text.

Shapes: `n` rows, `m` rows of the other side, `d` width.
"""

import numpy as np

BINS = 200
PAIRS = 100_000
"""Random pairs of rows whose cosines are looked at."""


def pair_cosines(rows: np.ndarray, seed: int, pairs: int = PAIRS) -> np.ndarray:
    """Cosines of `pairs` random pairs of different unit rows (n, d); the same seed gives the same pairs.

    Raises ValueError for fewer than two rows.
    """
    first, second = random_pairs(len(rows), pairs, seed)
    return np.concatenate(
        [
            np.einsum("nd,nd->n", rows[a], rows[b], dtype=np.float64)
            for a, b in zip(np.array_split(first, 64), np.array_split(second, 64), strict=True)
        ]
    )


def random_pairs(rows: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the first and second rows of random pairs, never a row with itself."""
    if rows < 2:
        raise ValueError(f"{rows} rows have no pairs")
    random = np.random.default_rng(seed)
    first = random.integers(0, rows, pairs)
    return first, (first + random.integers(1, rows, pairs)) % rows


def histogram(cosines: np.ndarray) -> np.ndarray:
    """Shares (BINS,) of the cosines in equal bins from −1 to 1."""
    counts = np.histogram(np.clip(cosines, -1, 1), bins=BINS, range=(-1, 1))[0]
    shares: np.ndarray = counts / max(1, counts.sum())
    return shares


def js_divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Jensen–Shannon divergence in nats of two distributions over the same bins: 0 alike, log 2 apart."""
    middle = (first + second) / 2
    return float(sum(_relative_entropy(one, middle) for one in (first, second)) / 2)


def mean_cosine(before: np.ndarray, after: np.ndarray) -> float:
    """Φ: mean cosine of each unit row (n, d) with what became of it (arXiv 2605.07825)."""
    return float(np.einsum("nd,nd->n", before, after, dtype=np.float64).mean())


def cosine_correlation(before: np.ndarray, after: np.ndarray, seed: int, pairs: int = PAIRS) -> float:
    """Ψ: correlation over random pairs of the cosines before and after (arXiv 2605.07825)."""
    first, second = (pair_cosines(rows, seed, pairs) for rows in (before, after))
    return float(np.corrcoef(first, second)[0, 1])


def _relative_entropy(shares: np.ndarray, reference: np.ndarray) -> float:
    there = shares > 0
    return float((shares[there] * np.log(shares[there] / reference[there])).sum())
