"""Who lies next to whom: mixing of the modalities, and how much of its neighbourhood a text keeps (App. D).

Neighbours are by cosine and leave the row itself out. Up to `EXACT_ROWS` rows they are exact; beyond, faiss's HNSW
graph finds them (Malkov and Yashunin, arXiv 1603.09320), nearly all.
Shapes: `n` rows, `d` width, `k` neighbours.
"""

from dataclasses import dataclass

import numpy as np

EXACT_ROWS = 50_000
MIXING_K = 20
OVERLAP_K = 10
_BLOCK_NUMBERS = 1 << 22
_GRAPH_LINKS, _BUILD_WIDTH, _SEARCH_WIDTH = 32, 200, 128


@dataclass(frozen=True)
class Mixing:
    """How the neighbours of aligned texts and of images are shared between both kinds."""

    rate: float
    """Share of other-modality rows among the k nearest of all rows; 0.5 where both kinds, equally many, are mixed."""
    from_texts: float
    """Entropy of the neighbours' kinds around a text, over its value where labels are shuffled (2605.07825)."""
    from_images: float
    """Likewise around an image."""


def nearest(rows: np.ndarray, k: int) -> np.ndarray:
    """Places (n, k) of the k nearest rows by cosine to each of the unit rows (n, d), nearest first.

    Raises ValueError where there are not more than k rows.
    """
    if not 0 < k < len(rows):
        raise ValueError(f"{len(rows)} rows have no {k} neighbours each")
    exact = np.ascontiguousarray(rows, dtype=np.float32)
    return _exact(exact, k) if len(exact) <= EXACT_ROWS else _by_graph(exact, k)


def mixing(texts: np.ndarray, images: np.ndarray, k: int = MIXING_K, seed: int = 0) -> Mixing:
    """Mixing of unit texts (n, d) and unit images (m, d) among each other's k nearest rows.

    The larger side is thinned by chance to the size of the smaller one, so that half is what full mixing gives.
    """
    random = np.random.default_rng(seed)
    size = min(len(texts), len(images))
    sides = [
        side if len(side) == size else side[np.sort(random.permutation(len(side))[:size])] for side in (texts, images)
    ]
    is_image = np.repeat([False, True], size)
    found = is_image[nearest(np.concatenate(sides), min(k, 2 * size - 1))]
    shares = found.mean(axis=1)
    shuffled = random.permutation(is_image)[random.integers(0, 2 * size, found.shape)].mean(axis=1)
    chance = float(_entropy(shuffled).mean())
    other = np.where(is_image, 1 - shares, shares)
    return Mixing(
        float(other.mean()),
        float(_entropy(shares[:size]).mean()) / chance,
        float(_entropy(shares[size:]).mean()) / chance,
    )


def overlap(before: np.ndarray, after: np.ndarray, k: int = OVERLAP_K) -> float:
    """Mean share of a row's k nearest rows before that are among its k nearest after, rows (n, d) against (n, d)."""
    return mean_overlap(nearest(before, k), nearest(after, k))


def mean_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Mean share of common places of neighbour lists (n, k)."""
    both = np.concatenate([np.sort(first, axis=1), np.sort(second, axis=1)], axis=1)
    both.sort(axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum(axis=1).mean() / first.shape[1])


def _exact(rows: np.ndarray, k: int) -> np.ndarray:
    found = np.empty((len(rows), k), dtype=np.int64)
    step = max(1, _BLOCK_NUMBERS // len(rows))
    for start in range(0, len(rows), step):
        cosines = rows[start : start + step] @ rows.T
        here = np.arange(len(cosines))
        cosines[here, start + here] = -np.inf
        best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosines, best, axis=1), axis=1, kind="stable")
        found[start : start + step] = np.take_along_axis(best, order, axis=1)
    return found


def _by_graph(rows: np.ndarray, k: int) -> np.ndarray:
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], _GRAPH_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD_WIDTH, _SEARCH_WIDTH
    index.add(rows)
    found: np.ndarray = index.search(rows, k + 1)[1]
    # A row finds itself, but a twin may take its place: whatever is not the row comes first.
    itself = found == np.arange(len(rows))[:, None]
    order = np.argsort(itself, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Bits of a choice between two kinds, one of which has these shares (n,)."""
    kinds = np.stack([shares, 1 - shares])
    logs = np.log2(kinds, out=np.zeros_like(kinds), where=kinds > 0)
    entropy: np.ndarray = -(kinds * logs).sum(axis=0)
    return entropy
