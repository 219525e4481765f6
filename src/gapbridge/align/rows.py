"""Rows of an embedding matrix, walked in bounded batches and made unit vectors in float64.

Shapes: `n` rows, `d` width, `b` rows of one batch.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from gapbridge.errors import ArtifactError

UNIT_TOLERANCE = 2e-3
"""float16 storage alone leaves norms up to about 1e-3 off; only rows further off than this are counted."""
BATCH_ROWS = 16_384

Rows = np.ndarray | Iterable[np.ndarray]
"""A matrix (n, d), or an iterable of batches (b, d) that gives the same batches each time it is walked."""


class RowBatches:
    """Rows that can be walked any number of times, in batches, all of them or only those of `keep`.

    `keep` is a boolean mask (n,) over the rows in their order; `name` is what an error calls them.
    """

    def __init__(self, rows: Rows, name: str, keep: np.ndarray | None = None) -> None:
        if isinstance(rows, Iterator):
            raise ValueError(f"{name}: a one-shot iterator cannot be walked twice; pass a matrix or a re-iterable")
        self.rows, self.name, self.keep = rows, name, keep

    def units(self) -> Iterator[tuple[np.ndarray, int]]:
        """Each batch as float64 unit rows (b, d), and how many of them were off the sphere.

        Raises ArtifactError as `unit_rows` does, with the row's place among all rows.
        """
        first_row = 0
        for batch in self._raw():
            units, off = unit_rows(batch, self.name, first_row)
            kept = slice(None) if self.keep is None else self.keep[first_row : first_row + len(batch)]
            first_row += len(batch)
            if len(units[kept]):
                yield units[kept], int(off[kept].sum())
        if self.keep is not None and first_row != len(self.keep):
            raise ValueError(f"{self.name}: {first_row} rows, but the mask has {len(self.keep)}")

    def _raw(self) -> Iterator[np.ndarray]:
        if not isinstance(self.rows, np.ndarray):
            yield from self.rows
            return
        for start in range(0, len(self.rows), BATCH_ROWS):
            yield self.rows[start : start + BATCH_ROWS]


def unit_rows(rows: np.ndarray, name: str = "embeddings", first_row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`rows` (n, d) as float64 rows of length one, and a mask (n,) of those off by more than UNIT_TOLERANCE.

    Raises ArtifactError when a row holds NaN or infinity, or has no direction; the first row is `first_row`.
    """
    if rows.ndim != 2:
        raise ArtifactError(f"{name}: expected a matrix of rows and columns, got shape {rows.shape}; embed again")
    exact = np.asarray(rows, dtype=np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", exact, exact))
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(bad):
        what = "is zero" if lengths[bad[0]] == 0 else "holds NaN or infinity"
        raise ArtifactError(f"{name} row {first_row + bad[0]}: {what}; embed again")
    return exact / lengths[:, None], np.abs(lengths - 1) > UNIT_TOLERANCE
