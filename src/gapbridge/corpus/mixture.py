"""How many rows of each of several sources, and which: by chance that a seed and a row's id decide, not its place."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """The ids of one source's good rows, at most how many to take of them, and its share of the mixture."""

    ids: Sequence[str]
    rows: int | None = None
    weight: float | None = None

    @property
    def most(self) -> int:
        """How many rows it can give."""
        return len(self.ids) if self.rows is None else min(self.rows, len(self.ids))


def choose(parts: Sequence[Part], seed: int) -> list[np.ndarray]:
    """Which rows of each part to take, as a mask of its ids.

    Parts with a weight give rows in proportion to it, as many as the scarcest of them allows; the others give all
    that they can.
    """
    weighed = [part for part in parts if part.weight is not None]
    scale = min((part.most / (part.weight or 1.0) for part in weighed), default=0.0)
    counts = [part.most if part.weight is None else min(part.most, round(part.weight * scale)) for part in parts]
    return [_mask(part.ids, count, seed) for part, count in zip(parts, counts, strict=True)]


def _mask(ids: Sequence[str], count: int, seed: int) -> np.ndarray:
    if count == len(ids):
        return np.ones(len(ids), dtype=bool)
    ranks = np.fromiter((_rank(row_id, seed) for row_id in ids), dtype=np.uint64, count=len(ids))
    mask = np.zeros(len(ids), dtype=bool)
    mask[np.argsort(ranks, kind="stable")[:count]] = True
    return mask


def _rank(row_id: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest())
