"""The aligners by name, as the steps of ReAlign that each one takes (arXiv 2602.07026 §4.2)."""

from dataclasses import dataclass

from gapbridge.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """Which steps an aligner takes; what needs a pass over the texts, `fit` does for it."""

    anchors: bool = False
    """Step 1: carry the text mean to the image mean."""
    scales: bool = False
    """Step 2: stretch the residuals until their trace is that of the images."""
    recentres: bool = False
    """Step 3: after the projection, carry the drifted centroid to the image mean again."""


RECIPES = {
    "none": Recipe(),
    "anchor": Recipe(anchors=True),
    "anchor_trace": Recipe(anchors=True, scales=True),
    "realign": Recipe(anchors=True, scales=True, recentres=True),
}
ALIASES = {"mean_shift": "anchor"}
"""Unicorn's mean shift is the same formula as the anchor step."""


def canonical_method(name: str) -> str:
    """The name under which a method is recorded. Raises InputError for one that is not known."""
    method = ALIASES.get(name, name)
    if method not in RECIPES:
        raise InputError(f"method {name!r}: unknown; choose one of {', '.join([*RECIPES, *ALIASES])}")
    return method
