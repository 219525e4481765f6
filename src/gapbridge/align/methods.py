"""The aligners by name, as the steps that each one takes (arXiv 2602.07026 §4.2, its baselines in §6 and App. F)."""

from dataclasses import dataclass

from gapbridge.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """Which steps an aligner takes; what needs a pass over the texts, `fit` does for it."""

    anchors: bool = False
    """Carry the text mean to the image mean."""
    scales: bool = False
    """Stretch the residuals until their trace is that of the images."""
    whitens: bool = False
    """Give the residuals the images' covariance, in the frame's two blocks."""
    adds_noise: bool = False
    """Blur every row by Gaussian noise, the same in all directions."""
    recentres: bool = False
    """After the projection, carry the drifted centroid to the image mean again."""


RECIPES = {
    "none": Recipe(),
    "anchor": Recipe(anchors=True),
    "anchor_trace": Recipe(anchors=True, scales=True),
    "realign": Recipe(anchors=True, scales=True, recentres=True),
    "c3": Recipe(anchors=True, adds_noise=True),
    "blockwise": Recipe(anchors=True, whitens=True, recentres=True),
}
ALIASES = {"mean_shift": "anchor"}
"""Unicorn's mean shift is the same formula as the anchor step."""


def canonical_method(name: str) -> str:
    """The name under which a method is recorded. Raises InputError for one that is not known."""
    method = ALIASES.get(name, name)
    if method not in RECIPES:
        raise InputError(f"method {name!r}: unknown; choose one of {', '.join([*RECIPES, *ALIASES])}")
    return method
