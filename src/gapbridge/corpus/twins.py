"""Pictures that look alike though their files differ: the same photo scaled, cropped a little or saved again.

A look is a difference hash of each colour channel: whether a cell of a coarse grid is brighter than the one to its
right. Shapes: `n` pictures, `m` others, `w` words of 16 bits.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

_CELLS = 8
_WORDS = 3 * _CELLS * _CELLS // 16
CLOSE_BITS = _WORDS - 1
"""Two looks differ in no more bits where pictures count as near twins: then one of their words is the same."""


def look(picture: Image.Image) -> str:
    """The look of an RGB picture, 48 hexadecimal digits."""
    grid = np.asarray(picture.resize((_CELLS + 1, _CELLS), Image.Resampling.BILINEAR), dtype=np.int16)
    brighter = grid[:, :-1] > grid[:, 1:]
    return np.packbits(brighter.transpose(2, 0, 1)).tobytes().hex()


def near_twins(looks: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Mask (n,) of the pictures of which the others (m,) hold a near twin."""
    found = np.zeros(len(looks), dtype=bool)
    if not len(looks) or not len(others):
        return found
    words, other_words = _words(looks), _words(others)
    for word in range(_WORDS):
        order = np.argsort(other_words[:, word], kind="stable")
        column = other_words[order, word]
        starts, ends = (np.searchsorted(column, words[:, word], side) for side in ("left", "right"))
        for row in np.flatnonzero(~found & (ends > starts)):
            candidates = other_words[order[starts[row] : ends[row]]]
            differing = np.bitwise_count(candidates ^ words[row]).sum(axis=1)
            found[row] = bool((differing <= CLOSE_BITS).any())
    return found


def _words(looks: Sequence[str]) -> np.ndarray:
    """(n, w) of uint16."""
    return np.frombuffer(bytes.fromhex("".join(looks)), dtype=">u2").reshape(len(looks), _WORDS).astype(np.uint16)
