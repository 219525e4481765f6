"""The blind floor's picture: the mean of the alignment images, which says nothing about any one of them.

Shapes: `d` width.
"""

import numpy as np

from gapbridge.embeddings.shards import Shards
from gapbridge.errors import ArtifactError

_BATCH_ROWS = 4096


def mean_image(images: Shards) -> np.ndarray:
    """The mean of the unit vectors in `images`, scaled back to length 1: float32 (d,).

    Raises ArtifactError when the mean vanishes and so has no direction.
    """
    total = np.zeros(images.width)
    for _, rows in images.batches(_BATCH_ROWS):
        exact = rows.astype(np.float64)
        total += (exact / np.linalg.norm(exact, axis=1, keepdims=True)).sum(axis=0)
    length = float(np.linalg.norm(total))
    if not length > 0:
        raise ArtifactError(f"{images.folder}: the images' mean is zero; check the encoder")
    return (total / length).astype(np.float32)
