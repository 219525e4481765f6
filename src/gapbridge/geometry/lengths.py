"""Long texts against short ones: how far from the images each kind lies, how it spreads, and what is cut off.

Shapes: `n` texts, `m` images, `d` width.
"""

from collections.abc import Sequence

import numpy as np

from gapbridge.geometry.gap import centroid_gap
from gapbridge.geometry.spectrum import covariance_spectrum, effective_rank

FEWEST = 10


def by_length(
    texts: Sequence[str], vectors: np.ndarray, images: np.ndarray, truncated: Sequence[bool] | None = None
) -> dict[str, dict[str, float]] | None:
    """Figures of the texts (n,) up to the median number of words and of those above it, with their vectors (n, d).

    `gap_before` is to the mean of `images` (m, d); `truncated` says which texts the encoder cut off,
    where that is known. None where the texts are all about as long, so that either kind would be too few.
    """
    words = np.array([len(text.split()) for text in texts])
    long = words > np.median(words)
    if min(long.sum(), (~long).sum()) < FEWEST:
        return None
    cut = None if truncated is None else np.array(truncated, dtype=bool)
    return {
        name: {
            "rows": int(mask.sum()),
            "words": float(words[mask].mean()),
            "gap_before": centroid_gap(vectors[mask], images),
            "effective_rank": effective_rank(covariance_spectrum(vectors[mask])),
            **({} if cut is None else {"truncated": float(cut[mask].mean())}),
        }
        for name, mask in (("short", ~long), ("long", long))
    }
