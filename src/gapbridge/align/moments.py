"""Count, mean and spread of rows, gathered batch by batch in float64 and merged exactly.

float32 sums leave an error floor near 1e-7 at half a million rows, float64 near 1e-15 (arXiv 2602.07026 §E.2).
Shapes: `n` rows, `d` width.
"""

import numpy as np

_ROUNDING = 1e-28
"""Of the squared length: some times the square of float64's spacing."""
_CANCELLATION = 1e-3
"""A spread below this share of the squared mean is not found as a difference: three digits would be lost."""


class Moments:
    """First and second moments of rows of one width, in constant memory.

    Each batch is centred on its own mean before it is joined to the rest, so that nothing is lost where the
    mean is large beside the spread. Spreads divide by the number of rows, not by one less: the method's trace
    is E‖e − μ‖² (arXiv 2602.07026 §4.2).
    """

    def __init__(self, width: int, covariance: bool = False) -> None:
        """`covariance` keeps the whole (d, d) scatter matrix; otherwise its diagonal alone is kept."""
        self.count = 0
        self.mean = np.zeros(width)
        self._scatter = np.zeros((width, width) if covariance else width)

    @property
    def width(self) -> int:
        """Numbers in a row, d."""
        return len(self.mean)

    def update(self, rows: np.ndarray, lengths: np.ndarray | None = None) -> "Moments":
        """Take in `rows` (n, d), each divided by its length where `lengths` (n,) are given; returns itself.

        Raises ValueError for another width.
        """
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(f"moments of width {self.width} cannot take rows of shape {rows.shape}")
        if len(rows):
            exact = np.asarray(rows, dtype=np.float64)
            weights = np.ones(len(rows)) if lengths is None else 1 / lengths
            mean = weights @ exact / len(rows)
            self._join(len(rows), mean, self._scatter_of(exact, weights, mean))
        return self

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together, as a new object.

        Raises ValueError where widths differ or only one of the two keeps a covariance.
        """
        if self._scatter.shape != other._scatter.shape:
            raise ValueError("moments of different widths or kinds cannot be merged")
        merged = Moments(self.width, self._scatter.ndim == 2)
        for part in (self, other):
            merged._join(part.count, part.mean, part._scatter)
        return merged

    @property
    def variance(self) -> np.ndarray:
        """Variance of each number of a row, (d,)."""
        diagonal = self._scatter if self._scatter.ndim == 1 else np.diagonal(self._scatter)
        return diagonal / max(self.count, 1)

    @property
    def trace(self) -> float:
        """E‖e − μ‖², the trace of the covariance."""
        return float(self.variance.sum())

    @property
    def is_point(self) -> bool:
        """Whether all rows are the same, but for what rounding leaves."""
        return self.trace <= _ROUNDING * float(self.mean @ self.mean)

    @property
    def covariance(self) -> np.ndarray:
        """The covariance matrix (d, d). Raises ValueError unless it was asked for at the start."""
        if self._scatter.ndim == 1:
            raise ValueError("these moments keep no covariance; make them with covariance=True")
        return self._scatter / max(self.count, 1)

    def _scatter_of(self, rows: np.ndarray, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Of the weighted rows about their mean. A row is only centred where a difference of sums is not exact."""
        if self._scatter.ndim == 1:
            square = mean * mean
            spread = weights**2 @ np.square(rows) - len(rows) * square
            if (spread >= _CANCELLATION * len(rows) * square).all():
                return spread
        centred = rows * weights[:, None]
        centred -= mean
        return centred.T @ centred if self._scatter.ndim == 2 else np.einsum("nd,nd->d", centred, centred)

    def _join(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Add another set of rows, given by its own moments."""
        total = self.count + count
        if count == 0:
            return
        step = mean - self.mean
        between = np.outer(step, step) if self._scatter.ndim == 2 else step * step
        self._scatter = self._scatter + scatter + between * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total
