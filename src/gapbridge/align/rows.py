"""Rows of an embedding matrix, walked in small blocks in float64, each with the lengths of its rows.

Shapes: `n` rows, `d` width, `b` rows of one block.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gapbridge.errors import ArtifactError

UNIT_TOLERANCE = 2e-3
"""float16 storage alone leaves norms up to about 1e-3 off; only rows further off than this are counted."""
BLOCK_NUMBERS = 1 << 20
"""Numbers of a block: 8 MiB in float64. Smaller ones cost more in calls than they gain in the processor's cache."""
THREADS = min(4, os.cpu_count() or 1)
"""numpy lets go of the interpreter in all that costs time here; results do not depend on how many there are."""

Rows = np.ndarray | Iterable[np.ndarray]
"""A matrix (n, d), or an iterable of batches (b, d) that gives the same batches each time it is walked."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Block:
    """Rows (b, d) in float64 as they were given, their lengths (b,), and where they stand among all rows (b,).

    The rows lie in memory that the next block takes: copy what shall be kept. Who needs sums of the unit rows divides
    the weights of the sums by the lengths, not the rows.
    """

    rows: np.ndarray
    lengths: np.ndarray
    places: np.ndarray

    def picked(self, mask: np.ndarray | None) -> "Block":
        """The rows of a mask over all rows (n,); None picks every one."""
        if mask is None:
            return self
        here = mask[self.places]
        return Block(self.rows[here], self.lengths[here], self.places[here])


class RowBatches:
    """Rows that can be walked any number of times; bad ones are left out and remembered, up to a fraction.

    `name` is what an error calls them. After a walk, `total` is the number of rows, `bad` gives the reason for
    each one left out by its place, and `off_unit` is how many were not of unit length.
    """

    def __init__(self, rows: Rows, name: str, max_bad_fraction: float = 0.0) -> None:
        if isinstance(rows, Iterator):
            raise ValueError(f"{name}: a one-shot iterator cannot be walked twice; pass a matrix or a re-iterable")
        self.rows, self.name, self.max_bad_fraction = rows, name, max_bad_fraction
        self.total, self.off_unit = 0, 0
        self.bad: dict[int, str] = {}

    def map(self, function: Callable[[Block], Result]) -> Iterator[Result]:
        """`function` of every block in the order of the rows, worked out by several threads.

        Raises ArtifactError where more rows are bad than may be (NaN, infinity, zero), or widths differ.
        """
        self.total, self.off_unit, width = 0, 0, None
        memory = threading.local()
        with ThreadPoolExecutor(THREADS) as pool:
            waiting: deque[Future[tuple[Result, int, dict[int, str]]]] = deque()
            for start, raw in self._blocks():
                if width is not None and raw.shape[1] != width:
                    raise ArtifactError(f"{self.name}: batches of width {width} and {raw.shape[1]}; embed again")
                width = raw.shape[1]
                self.total = start + len(raw)
                waiting.append(pool.submit(self._work, function, start, raw, memory))
                if len(waiting) > 2 * THREADS:
                    yield self._taken(waiting.popleft())
            while waiting:
                yield self._taken(waiting.popleft())
        self._demand_few_bad()

    def good(self, mask: np.ndarray | None = None) -> np.ndarray:
        """Mask (n,) of the rows that take part, after a walk: those of `mask` that are not bad."""
        kept = np.ones(self.total, dtype=bool) if mask is None else mask.copy()
        kept[list(self.bad)] = False
        return kept

    def _work(
        self, function: Callable[[Block], Result], start: int, raw: np.ndarray, memory: threading.local
    ) -> tuple[Result, int, dict[int, str]]:
        exact = _converted(raw, memory)
        lengths = np.sqrt(np.vecdot(exact, exact))
        places = np.arange(start, start + len(raw))
        good = np.isfinite(lengths) & (lengths > 0)
        reasons: dict[int, str] = {}
        if not good.all():
            reasons = {int(places[i]): _reason(lengths[i]) for i in np.flatnonzero(~good)}
            exact, lengths, places = exact[good], lengths[good], places[good]
        off_unit = int((np.abs(lengths - 1) > UNIT_TOLERANCE).sum())
        return function(Block(exact, lengths, places)), off_unit, reasons

    def _taken(self, future: "Future[tuple[Result, int, dict[int, str]]]") -> Result:
        result, off_unit, reasons = future.result()
        self.off_unit += off_unit
        self.bad.update(reasons)
        if reasons and not self.max_bad_fraction:
            self._demand_few_bad()
        return result

    def _demand_few_bad(self) -> None:
        if len(self.bad) > self.max_bad_fraction * self.total:
            first = min(self.bad)
            others = f", and {len(self.bad) - 1} more of {self.total}" if len(self.bad) > 1 else ""
            allowed = f", or leave them out by --max-bad-fraction (now {self.max_bad_fraction:g})"
            remedy = f"embed again{allowed if self.max_bad_fraction else ''}"
            raise ArtifactError(f"{self.name} row {first}: {self.bad[first]}{others}; {remedy}")

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        start = 0
        for batch in [self.rows] if isinstance(self.rows, np.ndarray) else self.rows:
            if batch.ndim != 2:
                raise ArtifactError(
                    f"{self.name}: expected a matrix of rows and columns, got shape {batch.shape}; embed again"
                )
            size = max(1, BLOCK_NUMBERS // max(1, batch.shape[1]))
            for first in range(0, len(batch), size):
                yield start + first, batch[first : first + size]
            start += len(batch)


def _converted(raw: np.ndarray, memory: threading.local) -> np.ndarray:
    """`raw` in float64, in the memory of this thread: fresh memory for each block costs as much time as the rest."""
    if getattr(memory, "rows", np.empty((0, 0))).size < raw.size:
        memory.rows = np.empty(raw.size)
    exact: np.ndarray = memory.rows[: raw.size].reshape(raw.shape)
    np.copyto(exact, raw)
    return exact


def unit_rows(rows: np.ndarray, name: str = "embeddings", first_row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`rows` (n, d) as float64 rows of length one, and a mask (n,) of those off by more than UNIT_TOLERANCE.

    Raises ArtifactError when a row holds NaN or infinity, or has no direction; the first row is `first_row`.
    """
    if rows.ndim != 2:
        raise ArtifactError(f"{name}: expected a matrix of rows and columns, got shape {rows.shape}; embed again")
    exact = np.asarray(rows, dtype=np.float64)
    lengths = np.sqrt(np.vecdot(exact, exact))
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(bad):
        raise ArtifactError(f"{name} row {first_row + bad[0]}: {_reason(lengths[bad[0]])}; embed again")
    return exact / lengths[:, None], np.abs(lengths - 1) > UNIT_TOLERANCE


def _reason(length: float) -> str:
    return "is zero" if length == 0 else "holds NaN or infinity"
